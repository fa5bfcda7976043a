"""What failed: one file per failed block, one place that tells all workers of a stage to stop, and a mark of either."""

from __future__ import annotations

import heapq
import json
import math
import os
import re
import shutil
import time
import traceback
import weakref
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError
from ...run import write_json
from ..blocks.grid import Block
from ..blocks.stage import BlockTask
from .error_kinds import Trouble

LOOK_SECONDS = 0.2
"""How often a worker with short blocks looks whether it is to end; after a longer one it always does."""
ENDING_BYTES = 4096
"""The reason to stop fits in here. The room is taken when a stage begins: a full disk must still let it be written."""
ALL_WELL, TROUBLE = b" ", b"!"
"""What the mark says. A worker keeps it open: to look whether a file exists would take a walk through folders."""


@dataclass(frozen=True)
class BlockFailure:
    """Why a block failed.

    Attributes:
        block: index of the block.
        error: type and message, one line.
        trace: the whole traceback; empty if the user can mend it, or the worker died without a word.
        trouble: what kind of error it is.
        tries: how often it has failed in this run.
    """

    block: int
    error: str
    trace: str
    trouble: Trouble
    tries: int = 1


def clear_failures(task: BlockTask) -> None:
    """Forget what failed in an earlier run, and make room for the reason to stop this one.

    Raises:
        UserError: the disk is full or not writable.
    """
    shutil.rmtree(failure_folder(task), ignore_errors=True)
    _success_mark(task).unlink(missing_ok=True)
    try:
        task.folder.mkdir(parents=True, exist_ok=True)
        for path, content in ((_ending_path(task), b" " * ENDING_BYTES), (_mark(task), ALL_WELL)):
            with path.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror or error}", str(task.folder)) from error


def failure_folder(task: BlockTask) -> Path:
    """Where failed blocks leave their errors."""
    return task.folder / "failures"


def record_failure(task: BlockTask, block: Block, error: Exception, trouble: Trouble) -> None:
    """Leave the error of a block for the driver, and have the stage end if going on is of no use."""
    known = isinstance(error, UserError)
    text = " ".join(f"{'' if known else f'{type(error).__name__}: '}{error}".split())
    if trouble is Trouble.DISK_FULL:
        end_early(task, f"block {block.index}: {text}; make room and run the same command again")
        return
    _record(task, block.index, text, "" if known else "".join(traceback.format_exception(error)), trouble)


def record_death(task: BlockTask, block: int, reason: str) -> None:
    """Note that the worker of a block died, for which no worker can leave the error."""
    _record(task, block, " ".join(reason.split()), "", Trouble.UNKNOWN)


def _record(task: BlockTask, block: int, error: str, trace: str, trouble: Trouble) -> None:
    """Two workers that fail with one block at the same moment count once; then it is tried once more than need be."""
    _write_in_place(_mark(task), TROUBLE)
    former = _read_failure(_failure_path(task, block))
    write_json(
        _failure_path(task, block),
        {
            "block": block,
            "error": error,
            "trace": trace,
            "trouble": trouble.name,
            "tries": former.tries + 1 if former is not None else 1,
        },
    )
    _end_if_all_fail_alike(task, error)


class KnownFailures:
    """What failed before, for a worker that asks at every block: where nothing failed, the answer is one system call.

    Args:
        task: whose blocks; its failures of an earlier run are forgotten.
    """

    def __init__(self, task: BlockTask) -> None:
        self._task = task
        self._mark = os.open(_mark(task), os.O_RDONLY)
        weakref.finalize(self, os.close, self._mark)

    def all_well(self) -> bool:
        """Whether no block has failed, and the task was not told to end."""
        return os.pread(self._mark, 1, 0) != TROUBLE

    def are_for_good(self, block: Block) -> bool:
        """Whether a block failed in this run in a way that would only repeat itself, or has no try left."""
        failure = _read_failure(_failure_path(self._task, block.index))
        if failure is None:
            return False
        return failure.trouble is Trouble.LASTING or failure.tries > self._task.run.config.cluster.retries

    def forget(self, block: Block) -> None:
        """A block has succeeded. It may have failed before; also meanwhile, with a worker that was given up."""
        _failure_path(self._task, block.index).unlink(missing_ok=True)


class Ending:
    """The reason to end, for a worker that asks for every block: it is looked at every `LOOK_SECONDS`.

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
        """Look at the next question: something has happened that may be a reason."""
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


def mark_success(task: BlockTask) -> None:
    """Note that a block of this run has succeeded."""
    _success_mark(task).touch()


def end_early(task: BlockTask, reason: str) -> None:
    """Tell all workers of a task to stop, in room that is there already."""
    text = " ".join(reason.split()).encode()[: ENDING_BYTES - 1]
    _write_in_place(_ending_path(task), text.ljust(ENDING_BYTES))
    _write_in_place(_mark(task), TROUBLE)


def _write_in_place(path: Path, content: bytes) -> None:
    """Write over the beginning of a file; the disk may be full."""
    file = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(file, content, 0)
    finally:
        os.close(file)


def reason_to_end(task: BlockTask) -> str | None:
    """Why the task is to stop; None while it is not."""
    try:
        return _ending_path(task).read_bytes().decode(errors="ignore").strip() or None
    except FileNotFoundError:
        return None


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


def _read_failure(path: Path) -> BlockFailure | None:
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return BlockFailure(**{**document, "trouble": Trouble[document["trouble"]]})


def _failure_path(task: BlockTask, block: int) -> Path:
    return failure_folder(task) / f"{block}.json"


def _mark(task: BlockTask) -> Path:
    return task.folder / "trouble"


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
