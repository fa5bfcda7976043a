"""What failed: one file per failed block, and one place that tells all workers of a stage to stop."""

from __future__ import annotations

import heapq
import math
import os
import re
import shutil
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import TypedDict

from ...errors import UserError
from ...small_files import Count, DamagedFile, read_json_as, replaced_file, write_json
from ..blocks.grid import Block
from ..blocks.stage import BlockTask
from .error_kinds import ErrorKind
from .memory import SIGNS, what_lowers_memory

LOOK_SECONDS = 0.2
"""How often a worker with short blocks looks whether it is to end; after a longer one it always does."""
KILLED_FOR_MEMORY = "was killed by the system for memory"
"""What is said of a worker that was."""
FAILURES = "failures"
"""Name of the folder of errors in the tracking folder of a task."""
ENDING_BYTES = 4096
"""The reason to stop fits in here. The room is taken when a stage begins: a full disk must still let it be written."""


@dataclass(frozen=True)
class BlockFailure:
    """Why a block failed.

    Attributes:
        block: index of the block.
        error: type and message, one line.
        trace: the whole traceback; empty if the user can mend it, or the worker died without a word.
        kind: what kind of error it is.
        tries: how often it has failed in this run.
    """

    block: int
    error: str
    trace: str
    kind: ErrorKind
    tries: int = 1


class _Stored(TypedDict):
    """A failure as its file says it."""

    block: Count
    error: str
    trace: str
    kind: str
    tries: Count


def clear_failures(task: BlockTask) -> None:
    """Forget what failed in an earlier run, and make room for the reason to stop this one.

    Raises:
        UserError: the disk is full or not writable.
    """
    shutil.rmtree(failure_folder(task), ignore_errors=True)
    _success_mark(task).unlink(missing_ok=True)
    with replaced_file(_ending_path(task)) as file:
        file.write(b" " * ENDING_BYTES)


def failure_folder(task: BlockTask) -> Path:
    """Where failed blocks leave their errors."""
    return task.folder / FAILURES


def record_failure(task: BlockTask, block: Block, error: Exception, kind: ErrorKind) -> None:
    """Leave the error of a block for the driver, and have the stage end if going on is of no use."""
    known = isinstance(error, UserError)
    text = " ".join(f"{'' if known else f'{type(error).__name__}: '}{error}".split())
    if kind is ErrorKind.DISK_FULL:
        end_early(task, f"block {block.index}: {text}; make room and run the same command again")
        return
    if kind is ErrorKind.MEMORY:
        _record_shortage(task, block.index, text)
        return
    _record(task, block.index, text, "" if known else "".join(traceback.format_exception(error)), kind)


def record_death(task: BlockTask, block: int, reason: str) -> None:
    """Note that the worker of a block died, for which no worker can leave the error."""
    text = " ".join(reason.split())
    if SIGNS.search(text) or KILLED_FOR_MEMORY in text:
        _record_shortage(task, block, text)
    else:
        _record(task, block, text, "", ErrorKind.UNKNOWN)


def _record_shortage(task: BlockTask, block: int, text: str) -> None:
    """Note that a block had too little memory; when it has no try left, the stage ends: others need as much."""
    reason = f"too little memory ({text}); {what_lowers_memory(task)}"
    _record(task, block, reason, "", ErrorKind.MEMORY)
    failure = _read_failure(_failure_path(task, block))
    if failure is not None and failure.tries > task.run.config.cluster.retries:
        end_early(task, f"block {block}: {reason}")


def _record(task: BlockTask, block: int, error: str, trace: str, kind: ErrorKind) -> None:
    """Two workers that fail with one block at the same moment count once; then it is tried once more than need be."""
    former = _read_failure(_failure_path(task, block))
    write_json(
        _failure_path(task, block),
        {
            "block": block,
            "error": error,
            "trace": trace,
            "kind": kind.name,
            "tries": former.tries + 1 if former is not None else 1,
        },
    )
    _end_if_all_fail_alike(task, error)


def failed_for_good(task: BlockTask, block: Block) -> bool:
    """Whether a block failed in this run in a way that would only repeat itself, or has no try left."""
    failure = _read_failure(_failure_path(task, block.index)) if _has_failed(task, block) else None
    if failure is None:
        return False
    return failure.kind is ErrorKind.PERMANENT or failure.tries > task.run.config.cluster.retries


def forget_failure(task: BlockTask, block: Block) -> None:
    """Note that a block has succeeded; it may have failed before, also meanwhile with another worker."""
    if _has_failed(task, block):
        _failure_path(task, block.index).unlink(missing_ok=True)


def mark_success(task: BlockTask) -> None:
    """Note that a block of this run has succeeded."""
    _success_mark(task).touch()


class Ending:
    """The reason to end a task early, for a worker that asks at every block: read every `LOOK_SECONDS`.

    Args:
        task: that may end early.
    """

    def __init__(self, task: BlockTask) -> None:
        self._task, self._next_look = task, -math.inf
        self._reason: str | None = None

    def reason(self) -> str | None:
        """Why the task is to stop; None while it is not, or was not a moment ago."""
        if self._reason is None and (now := time.monotonic()) >= self._next_look:
            self._reason = reason_to_end(self._task)
            self._next_look = now + LOOK_SECONDS
        return self._reason

    def look_again(self) -> None:
        """Read it at the next question: something has happened that may be a reason."""
        self._next_look = -math.inf


def read_failures(task: BlockTask) -> list[BlockFailure]:
    """The failed blocks that left an error, by index."""
    found = [_read_failure(path) for path in failure_folder(task).glob("[0-9]*.json")]
    return sorted((failure for failure in found if failure is not None), key=lambda failure: failure.block)


def newest_failures(task: BlockTask, most: int) -> tuple[int, list[BlockFailure]]:
    """How many failed blocks left an error, and the newest of them, newest first; the others are not read.

    Args:
        task: whose blocks.
        most: errors to give.
    """
    try:
        entries = [entry for entry in os.scandir(failure_folder(task)) if entry.name[:1].isdigit()]
    except FileNotFoundError:
        return 0, []
    newest = heapq.nlargest(most, entries, key=_written)
    found = [_read_failure(Path(entry.path)) for entry in newest]
    return len(entries), [failure for failure in found if failure is not None]


def end_early(task: BlockTask, reason: str) -> None:
    """Tell all workers of a task to stop, in room that is there already: the disk may be full."""
    text = " ".join(reason.split()).encode()[: ENDING_BYTES - 1]
    with _ending_path(task).open("r+b") as file:
        file.write(text.ljust(ENDING_BYTES))


def reason_to_end(task: BlockTask) -> str | None:
    """Why the task is to stop; None while it is not."""
    try:
        text = _ending_path(task).read_bytes().strip().decode(errors="ignore")
    except FileNotFoundError:
        return None
    return "".join(letter for letter in text if letter.isprintable()).strip() or None


def _end_if_all_fail_alike(task: BlockTask, error: str) -> None:
    """End the stage if its first blocks all fail with the same error, but for numbers, and none succeeds."""
    limit = task.run.config.cluster.identical_failures
    if _success_mark(task).exists():
        return
    alike = [failure for failure in read_failures(task) if _without_numbers(failure.error) == _without_numbers(error)]
    if len(alike) >= limit:
        first = alike[0]
        end_early(task, f"the first {len(alike)} blocks fail alike, block {first.block}: {first.error}")


def _without_numbers(text: str) -> str:
    return re.sub(r"\d+", "0", text)


def _has_failed(task: BlockTask, block: Block) -> bool:
    """Whether a block has left an error; asked twice for each block, so without a detour by `Path`."""
    return os.path.exists(f"{task.folder}/{FAILURES}/{block.index}.json")  # noqa: PTH110


def _read_failure(path: Path) -> BlockFailure | None:
    """None if there is none, or it cannot be understood: then the block counts as not tried yet."""
    try:
        stored = read_json_as(path, _Stored)
    except DamagedFile:
        return None
    if stored is None:
        return None
    kind = ErrorKind.__members__.get(stored["kind"], ErrorKind.UNKNOWN)  # earlier versions named others
    return BlockFailure(stored["block"], stored["error"], stored["trace"], kind, stored["tries"])


def _failure_path(task: BlockTask, block: int) -> Path:
    return failure_folder(task) / f"{block}.json"


def _written(entry: os.DirEntry[str]) -> float:
    """When; 0 if the block has succeeded just now."""
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _success_mark(task: BlockTask) -> Path:
    return task.folder / "succeeded"


def _ending_path(task: BlockTask) -> Path:
    return task.folder / "ending"
