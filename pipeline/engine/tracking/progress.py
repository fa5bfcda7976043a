"""What is done, what is stale, what is left: tracking keyed by what determines an output.

Each stage has a record `tracking/<name>.json` (its key and settings, and whether all blocks are done) and a folder
`tracking/<name>/<key>/` with daisy's marker and our checksum per block, and one file per failed block. Nothing here
names an absolute path, so a run directory can be moved.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from ...command_names import name_of
from ...errors import UserError
from ...run import Run
from ...small_files import DamagedFile, as_kind, read_json, write_json
from ..blocks.stage import BlockTask, Stage
from .failures import clear_failures
from .worker_records import clear_worker_records


class Progress(Enum):
    """How far the output of a stage is."""

    ABSENT = "there is no output"
    STALE = "the output was made with other settings or inputs"
    STARTED = "some blocks may be done"
    DONE = "everything is done"


def progress_of(stage: Stage) -> Progress:
    """Compare the output of a stage with what its config and inputs ask for now."""
    stored = stage.stored_key()
    if stored is None:
        return Progress.ABSENT
    if stored != stage.key:
        return Progress.STALE
    record = read_record(stage)
    done = record.get("key") == stage.key and record.get("complete") is True and stage.is_intact()
    return Progress.DONE if done else Progress.STARTED


class _Record(TypedDict, total=False):
    """What a record says."""

    key: str
    complete: bool
    version: int
    settings: dict[str, Any]
    upstream: dict[str, str]


class StageStates:
    """How far stages are, each asked once: a command makes one of these and hands it down."""

    def __init__(self) -> None:
        self._known: dict[str, Progress] = {}

    def __getitem__(self, stage: Stage) -> Progress:
        if stage.name not in self._known:
            self._known[stage.name] = progress_of(stage)
        return self._known[stage.name]

    def __setitem__(self, stage: Stage, progress: Progress) -> None:
        self._known[stage.name] = progress

    def clear(self) -> None:
        """Ask anew from here on: blocks were computed, and what is made from them may have changed."""
        self._known.clear()


def read_record(stage: Stage) -> dict[str, Any]:
    """The record of a stage; empty if there is none, or nothing can be told from it: it is written anew."""
    return read_record_of(stage.run, stage.name)


def read_record_of(run: Run, name: str) -> dict[str, Any]:
    """The record of the stage of a name, which the config need not have any more; as `read_record`."""
    path = _path_of(run, name)
    try:
        record = read_json(path)
        as_kind(record, _Record, path)
    except DamagedFile:
        return {}
    return record


def recorded_key(stage: Stage) -> str | None:
    """The key under which a stage was begun, as its record says; None if it says none."""
    key = read_record(stage).get("key")
    return None if key is None else str(key)


def key_of_folder(stage: Stage, folder: str = "") -> str | None:
    """The key under which an output was begun that lies beside the markers; None if there is none.

    Args:
        stage: the stage.
        folder: of the output, in `tracking/<name>/<key>/`.
    """
    key = recorded_key(stage)
    return key if key is not None and (stage.run.tracking / stage.name / key / folder).is_dir() else None


def write_record(stage: Stage, complete: bool) -> None:
    """Note what the present output of a stage was made from, and whether it is complete."""
    write_json(
        _record_path(stage),
        {
            "key": stage.key,
            "complete": complete,
            "version": stage.version,
            "settings": stage.settings(),
            "upstream": {upstream.name: upstream.key for upstream in stage.upstream},
        },
    )


def record_time(stage: Stage) -> float:
    """When the record of a stage was written last, in seconds since 1970; 0 if there is none."""
    try:
        return _record_path(stage).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def begin(stage: Stage, states: StageStates | None = None) -> None:
    """Make a stage ready for its blocks: create the output if there is none, keep what is done otherwise.

    Args:
        stage: the stage.
        states: what the command knows of the stages; default: the disk is asked.
    """
    states = states if states is not None else StageStates()
    if states[stage] is Progress.ABSENT:
        forget(stage)
        stage.prepare()
    else:
        stage.resume()
    write_record(stage, complete=False)
    states[stage] = Progress.STARTED
    if isinstance(stage, BlockTask):
        clear_failures(stage)
        clear_worker_records(stage)


def forget(stage: Stage) -> None:
    """Remove the markers of a stage."""
    _record_path(stage).unlink(missing_ok=True)
    shutil.rmtree(stage.run.tracking / stage.name, ignore_errors=True)


def marker_folder(task: BlockTask) -> Path:
    """Where daisy marks finished blocks."""
    return task.folder / "blocks"


def refuse_stale(stages: Sequence[Stage], overwrite: bool, states: StageStates) -> None:
    """Make sure that stages may run, as far as outputs are concerned that were made with other settings or inputs.

    Args:
        stages: the stages about to run, upstream first.
        overwrite: outputs of theirs may be stale, since they will be made anew. Those of stages that are redone
            without being asked may be anyhow, if nothing else is stale.
        states: what the command knows of the stages.

    Raises:
        UserError: an output is stale and `overwrite` is not given; or a stage needs another one that is missing,
            incomplete or itself stale.
    """
    _check_foundations(stages, states)
    stale = [stage for stage in stages if states[stage] is Progress.STALE]
    if not overwrite and not all(stage.is_redone for stage in stale):
        instead = next(filter(None, (stage.lies_instead() for stage in stale)), "")
        if instead:
            raise UserError(instead)
        reasons = "; ".join(f"{stage.name} ({why_stale(stage)})" for stage in stale)
        raise UserError(
            f"stale: {reasons}. --overwrite redoes {_list(stage.name for stage in stale)} and nothing else; "
            "with the former config everything is kept"
        )


def drop_stale(stages: Sequence[Stage], states: StageStates) -> None:
    """Delete outputs that were made with other settings or inputs, so that they are made anew; what fits is kept.

    Args:
        stages: the stages about to run, upstream first.
        states: what the command knows of the stages.
    """
    for stage in [stage for stage in stages if states[stage] is Progress.STALE]:
        stage.drop()  # its key first: whatever else a kill leaves belongs to no output then, and is removed
        forget(stage)
        states[stage] = Progress.ABSENT


def why_stale(stage: Stage) -> str:
    """What changed since the output was made, in a few words."""
    if read_record(stage).get("key") != stage.stored_key():
        return "made with other settings"
    return what_changed(stage)


def what_changed(stage: Stage) -> str:
    """What changed since the record of a stage was written, in a few words; the output is not looked at."""
    record = read_record(stage)
    before, now = record.get("settings", {}), json.loads(json.dumps(stage.settings()))
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if changed:
        return "changed: " + ", ".join(changed)
    if record.get("version") != stage.version:
        return "made by another version of the program"
    moved = [up.name for up in stage.upstream if record.get("upstream", {}).get(up.name) != up.key]
    return "follows " + _list(moved) if moved else "made with other settings"


def _check_foundations(stages: Sequence[Stage], states: StageStates) -> None:
    """Every upstream stage that does not run now must be complete and up to date."""
    running = {stage.name for stage in stages}
    for stage in stages:
        for upstream in stage.upstream:
            if upstream.name in running:
                continue
            progress = states[upstream]
            if progress is Progress.STALE:
                cure = f"run {name_of(upstream.script)} with --overwrite first"
                raise UserError(f"{stage.name} needs {upstream.name}, which is stale ({why_stale(upstream)}); {cure}")
            if progress is not Progress.DONE:
                state = "missing" if progress is Progress.ABSENT else "not complete"
                raise UserError(
                    f"{stage.name} needs {upstream.name}, which is {state}; run {name_of(upstream.script)} first"
                )


def _record_path(stage: Stage) -> Path:
    return _path_of(stage.run, stage.name)


def _path_of(run: Run, name: str) -> Path:
    return run.tracking / f"{name}.json"


def _list(names: Iterable[str]) -> str:
    names = list(names)
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
