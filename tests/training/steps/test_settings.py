"""What a checkpoint remembers of its config, across versions of the program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.run import Run
from pipeline.training.steps.settings import refuse_changes, training_settings

CHECKPOINT = Path("checkpoint_0000001.pt")
FILE = 'volumes.sources.p={"kind": "file", "path": "x.h5"}'


def test_checkpoints_outlive_the_keys_of_newer_versions(make_run: Callable[..., Run]) -> None:
    """A training that knew nothing of images, chosen sections and background weights continues."""
    wanted = training_settings(make_run(FILE).config, "teacher", None)
    newer = {"volumes.images", "volumes.sources.p.sections", "targets.background_weight", "teacher.network.background"}
    refuse_changes({path: wanted[path] for path in wanted.keys() - newer}, wanted, CHECKPOINT)
    heads = {f"{role}.network.affinity_offsets" for role in ("teacher", "student")}
    assert not wanted.keys() & {*heads, "targets.balanced", "teacher.training.average"}  # unless they say something new


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ("targets.background_weight=0.5", "targets.background_weight"),
        ('volumes.sources.p.sections={"dataset": "split", "equals": 0}', "volumes.sources.p.sections.dataset"),
    ],
)
def test_a_newer_key_that_changes_the_batches_is_refused(make_run: Callable[..., Run], change: str, path: str) -> None:
    before = training_settings(make_run(FILE).config, "teacher", None)
    after = training_settings(make_run(FILE, change).config, "teacher", None)
    with pytest.raises(UserError, match=f"^{path}: was null, is "):
        refuse_changes(before, after, CHECKPOINT)
