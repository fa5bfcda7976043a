"""A training tells where the time of its steps goes, and is not slowed down by being watched."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.run import Run, read_json
from pipeline.training import train_student
from pipeline.training.objective.step_clock import (
    BACKWARD,
    COPY,
    DATA,
    FIRST_STEPS,
    REST,
    STEP,
    STUDENT,
    TEACHER,
    StepClock,
)

MakeRun = Callable[..., Run]


class Hand:
    """A clock that is moved by hand."""

    time = 0.0

    def __call__(self) -> float:
        return self.time


def test_parts_and_the_rest_add_up_to_a_step_without_the_first_ones() -> None:
    hand = Hand()
    clock = StepClock(torch.device("cpu"), now=hand)
    for step in range(FIRST_STEPS + 4):
        slow = 100.0 if step < FIRST_STEPS else 1.0
        with clock.step():
            with clock.data():
                hand.time += 1 * slow
            with clock.part(STUDENT):
                hand.time += 2 * slow
            hand.time += 1 * slow
        hand.time += 1000  # a validation, outside of any step
    split = clock.total()
    assert split is not None and split == clock.recent()
    assert (split.steps, split.seconds, split.waiting) == (4, 4.0, 0.25)
    assert split.parts == {DATA: 1.0, STUDENT: 2.0, REST: 1.0}
    assert "25.0%" in split.table()


class Passing:
    """An event of a GPU that is behind: what was recorded has not passed until `reached` says so."""

    reached = 0
    recorded = 0
    waited_for = 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        Passing.recorded += 1
        self.number = Passing.recorded

    def query(self) -> bool:
        return self.number <= Passing.reached

    def synchronize(self) -> None:
        Passing.waited_for += 1
        Passing.reached = Passing.recorded

    def elapsed_time(self, end: Passing) -> float:
        assert end.query(), "a time was asked for that the GPU has not reached"
        return 7.0


def test_no_step_waits_for_the_gpu_and_few_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Passing)
    clock = StepClock(torch.device("cuda"), gpu_every=10)
    for _ in range(35):
        with clock.step(), clock.part(STUDENT):
            pass
    assert Passing.waited_for == 0
    assert Passing.recorded == 2 * 4, "one step in ten"
    recent = clock.recent()
    assert recent is not None and STUDENT not in recent.parts
    total = clock.total()
    assert total is not None and Passing.waited_for == 1
    assert total.parts[STUDENT] == pytest.approx(0.007)


def test_a_training_tells_where_its_time_went(make_run: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(*(f"{role}.training.iterations={FIRST_STEPS + 3}" for role in ("teacher", "student")))
    with caplog.at_level(logging.INFO):
        train_student(run)
    for role, parts in (("teacher", {STUDENT}), ("student", {STUDENT, TEACHER})):
        told = read_json(run.summary)["training"][role]["step"]
        times = told["milliseconds"]
        assert told["steps"] == 3 and parts | {STEP, DATA, COPY, BACKWARD} <= times.keys()
        assert sum(times.values()) - times[STEP] == pytest.approx(times[STEP], rel=0.01)
        assert told["waiting_for_data"] == pytest.approx(times[DATA] / times[STEP], abs=0.01)
        assert f"{role}: where the time of a step went" in caplog.text
        assert f"time/{BACKWARD} (ms)" in tags(run.network_directory(role) / "logs")
    assert TEACHER not in read_json(run.summary)["training"]["teacher"]["step"]["milliseconds"]


def tags(logs: Path) -> list[str]:
    events = EventAccumulator(str(logs))
    events.Reload()
    return list(events.Tags()["scalars"])
