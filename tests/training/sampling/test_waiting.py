"""A training that waits for data is noticed and told what would help; one that does not is left alone."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

import numpy as np
import pytest

from pipeline.run import Run
from pipeline.training import train_student
from pipeline.training.sampling import loader as loader_module
from pipeline.training.sampling import waiting as supply_module
from pipeline.training.sampling.loader import BatchLoader
from pipeline.training.sampling.samples import Sampling
from pipeline.training.sampling.waiting import SETTLING, WINDOW, Supply, advice
from pipeline.training.steps.training_setup import Training

MakeRun = Callable[..., Run]


class Hand:
    """A clock that is moved by hand."""

    time = 0.0

    def __call__(self) -> float:
        return self.time


def sampling_of(run: Run) -> Sampling:
    training = Training(run, "teacher")
    return training.sampling(training.build_network())


def watched(wait: float, step: float, was_ready: bool = False, batches: int = SETTLING + WINDOW) -> Supply:
    clock = Hand()
    supply = Supply(clock)
    for _ in range(batches):
        asked = clock.time
        clock.time += wait
        supply.handed_over(asked, was_ready)
        clock.time += step
    return supply


def test_waiting_is_a_share_of_the_time_and_says_how_many_workers_would_do() -> None:
    supply = watched(wait=3.0, step=1.0)
    assert supply.waiting == pytest.approx(0.75)
    assert supply.enough(workers=0) == 3, "the training process makes a batch in the time of three steps"
    assert supply.enough(workers=1) == 4, "one worker hands a batch over every four steps"
    assert supply.enough(workers=2) == 8, "two do, so each takes the time of eight"


def test_taking_a_batch_that_lies_ready_is_no_waiting() -> None:
    assert watched(wait=3.0, step=1.0, was_ready=True).waiting == 0


def test_nothing_is_said_of_the_first_batches() -> None:
    """Workers that have just started have nothing ready, however fast they are."""
    assert watched(wait=9.0, step=1.0, batches=SETTLING + WINDOW - 1).waiting is None
    supply = watched(wait=9.0, step=1.0)
    supply.restart()
    assert supply.waiting is None


def test_a_validation_between_two_batches_is_no_long_step() -> None:
    clock = Hand()
    supply = Supply(clock)
    for index in range(SETTLING + WINDOW):
        asked = clock.time
        clock.time += 1.0
        supply.handed_over(asked, was_ready=False)
        clock.time += 1000.0 if index % 20 == 15 else 1.0
    assert supply.waiting == pytest.approx(0.5)


def test_advice_names_the_setting_and_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supply_module, "room_for_workers", lambda: 7)
    assert "raise student.training.loader_workers from 1 to 3" in advice("student.training", 0.4, 1, 3)
    assert "cores for no more than 7" in advice("student.training", 0.4, 7, 9)


def test_more_workers_change_no_batch(make_run: MakeRun) -> None:
    sampling = sampling_of(make_run("teacher.training.loader_cache=4"))
    one_worker = sampling_of(make_run("teacher.training.loader_workers=1"))
    with BatchLoader(sampling, 0) as alone, BatchLoader(one_worker, 0) as loader:
        for iteration in range(7):
            if iteration == 3:
                loader.use_workers(2)
            one, other = alone.next(), loader.next()
            for name, array in one.items():
                np.testing.assert_array_equal(array, other[name], err_msg=name)


def test_auto_takes_more_workers_until_no_step_waits(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_module, "room_for_workers", lambda: 2)
    note = Supply.handed_over
    # however fast this machine makes a batch, none lies ready when it is asked for
    monkeypatch.setattr(Supply, "handed_over", lambda supply, asked, was_ready: note(supply, asked, False))
    sampling = sampling_of(make_run('teacher.training.loader_workers="auto"'))
    with BatchLoader(sampling, 0) as loader:
        assert loader.workers == 1
        for _ in range(SETTLING + WINDOW + 1):  # steps that take no time are slower than no loader
            loader.next()
        assert loader.workers == 2
        assert loader.iteration == SETTLING + WINDOW + 1


def test_a_starving_training_says_what_to_raise(make_run: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    iterations = SETTLING + WINDOW + 2
    tiny = ("student.distillation=null", "student.network.widths=[1, 1]", "student.training.patch_shape=[3, 16, 16]")
    with caplog.at_level(logging.WARNING):
        train_student(make_run(*tiny, f"student.training.iterations={iterations}"))
    told = [record.getMessage() for record in caplog.records if "loader_workers" in record.getMessage()]
    assert len(told) == 1  # how many suffice is the machine's affair
    assert re.search(r"waiting for data; raise student\.training\.loader_workers from 0 to [1-9]", told[0])
