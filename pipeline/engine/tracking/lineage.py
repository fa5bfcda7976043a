"""What was made of what, by the records of a run: outputs that the run still holds, of inputs that it does not."""

from __future__ import annotations

import os
from typing import Any

from ...command_names import SCRIPTS, name_of
from ...errors import UserError
from ...run import Run
from .progress import read_record_of


def replaced_input(run: Run, stage: str) -> str | None:
    """The stage whose output was made anew since a stage used it, directly or through others; None if there is none.

    The config is not asked: it may have changed without anything having been computed since. What has no record, an
    array that another program wrote for example, is held to be of what is there.

    Args:
        run: the run.
        stage: name of a stage, as its record is called.
    """
    for name, key in _visible_record(run, stage).get("upstream", {}).items():
        if _visible_record(run, name).get("key", key) != key:
            return str(name)
        earlier = replaced_input(run, name)
        if earlier is not None:
            return earlier
    return None


def require_graph_of_fragments(run: Run) -> None:
    """Make sure that fragments and merge scores belong together: those of others would join what they never saw.

    Raises:
        UserError: an input of theirs was computed anew since; says what to run.
    """
    for stage, step in (("fragments", "fragments"), ("rag", "agglomerate"), ("agglomerate", "agglomerate")):
        replaced = replaced_input(run, stage)
        if replaced is not None:
            cure = f"run {name_of(SCRIPTS[step])} with --overwrite first"
            raise UserError(f"{replaced} was computed anew since; {cure}", stage)


def present_segmentations(run: Run) -> list[str]:
    """The names of `Run.segmentation_names` without those that were made of a former graph."""
    return [name for name in run.segmentation_names() if replaced_input(run, f"segment_{name}") is None]


def is_outdated(run: Run) -> bool:
    """Whether a run holds outputs of inputs that were made anew since."""
    return any(replaced_input(run, path.stem) is not None for path in run.tracking.glob("*.json"))


def _visible_record(run: Run, stage: str) -> dict[str, Any]:
    """The record of a stage; empty for another user, who may look at a run without entering its tracking."""
    return read_record_of(run, stage) if os.access(run.tracking, os.X_OK) else {}
