"""The learning rate."""

from __future__ import annotations

import pytest

from pipeline.config import ScheduleConfig
from pipeline.training.objective.schedule import learning_rate


@pytest.mark.parametrize("kind", ["cosine", "polynomial"])
def test_rises_over_the_warm_up_and_falls_to_a_fiftieth(kind: str) -> None:
    schedule = ScheduleConfig(iterations=200, learning_rate=0.1, warm_up=20, schedule=kind)  # type: ignore[arg-type]
    rates = [learning_rate(schedule, iteration) for iteration in range(200)]
    assert 0 < rates[0] < 0.01
    assert rates[20] == max(rates) == pytest.approx(0.1)
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[-1] == pytest.approx(0.1 / 50)


def test_constant_stays() -> None:
    schedule = ScheduleConfig(iterations=10, learning_rate=0.1, warm_up=0, schedule="constant")
    assert {learning_rate(schedule, iteration) for iteration in range(10)} == {0.1}


def test_a_training_shorter_than_its_warm_up_has_a_rate() -> None:
    schedule = ScheduleConfig(iterations=3, learning_rate=0.1, warm_up=50)
    assert all(0 < learning_rate(schedule, iteration) < 0.01 for iteration in range(3))


def test_iterations_beyond_the_schedule_keep_the_last_rate() -> None:
    schedule = ScheduleConfig(iterations=10, learning_rate=0.1, warm_up=0)
    assert learning_rate(schedule, 50) == pytest.approx(0.1 / 50)
