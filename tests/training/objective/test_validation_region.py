"""A region that validation could say nothing of: refused, or told, before anything is learnt."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.run import Run
from pipeline.training import train_teacher
from pipeline.training.objective.validation import check_validation
from pipeline.training.sampling.regions import validation_region
from pipeline.volumes import open_volume

MakeRun = Callable[..., Run]


def test_a_validation_that_could_only_be_perfect_is_refused_before_training(make_run: MakeRun) -> None:
    run = make_run()
    labels = open_volume(run.volume, "labels", "r+")
    held_out = labels.read(labels.box)
    held_out[14:] = 5
    labels.write(labels.box, held_out)
    targets = run.config.targets.model_copy(update={"unlabelled_id": 5})
    with pytest.raises(UserError, match=r"volumes\.validate: nothing is labelled in its middle, voxels \(16, 16, 16\)"):
        train_teacher(Run(run.config.model_copy(update={"targets": targets})))
    ignoring = run.config.evaluate.model_copy(update={"ignore": tuple(np.unique(held_out).tolist())})
    with pytest.raises(UserError, match=r"nothing but what evaluate\.ignore leaves out is labelled in its middle"):
        train_teacher(Run(run.config.model_copy(update={"evaluate": ignoring})))
    assert not list(run.directory.rglob("checkpoint_*.pt"))


def test_a_validation_of_one_object_is_told(make_run: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever joins everything is perfect there: "VOI 0.000" after a few steps."""
    run = make_run()
    labels = open_volume(run.volume, "labels", "r+")
    held_out = labels.read(labels.box)
    held_out[14:] = 5
    labels.write(labels.box, held_out)

    def told() -> bool:
        caplog.clear()
        region = validation_region(run)
        assert region is not None
        check_validation(region, region.box.shape, images=False)
        return "has one object (label 5)" in caplog.text

    assert told()
    held_out[-1, -1, -1] = 6
    labels.write(labels.box, held_out)
    assert not told()
