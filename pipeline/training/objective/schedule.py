"""The learning rate as a pure function of the iteration, so that a resumed training continues exactly."""

from __future__ import annotations

import math

from ...config import ScheduleConfig

FINAL_SHARE = 1 / 50
"""The learning rate falls to this share of its configured value."""


def learning_rate(schedule: ScheduleConfig, iteration: int) -> float:
    """Step size of an iteration.

    Args:
        schedule: the training's schedule.
        iteration: counted from 0; the last is `schedule.iterations - 1`.
    """
    return schedule.learning_rate * warm_up_share(iteration, schedule.warm_up) * _decay(schedule, iteration)


def warm_up_share(iteration: int, warm_up: int) -> float:
    """Rises linearly to 1 over the first `warm_up` iterations; never 0."""
    return min(1.0, (iteration + 1) / (warm_up + 1))


def _decay(schedule: ScheduleConfig, iteration: int) -> float:
    first = min(schedule.warm_up, schedule.iterations - 1)
    progress = (iteration - first) / max(1, schedule.iterations - 1 - first)
    progress = min(1.0, max(0.0, progress))
    if schedule.schedule == "constant":
        return 1.0
    if schedule.schedule == "cosine":
        return FINAL_SHARE + (1 - FINAL_SHARE) * (1 + math.cos(math.pi * progress)) / 2
    result: float = FINAL_SHARE + (1 - FINAL_SHARE) * (1 - progress) ** 0.9
    return result
