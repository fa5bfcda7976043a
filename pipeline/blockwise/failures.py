"""What failed: one file per failed block, and one place that tells all workers of a stage to stop."""

from __future__ import annotations

import heapq
import json
import os
import re
import shutil
import traceback
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..run import write_json
from .grid import Block
from .stage import BlockTask
from .trouble import Trouble

ENDING_BYTES = 4096
"""The reason to stop fits in here. The room is taken when a stage begins: a full disk must still let it be written."""


@dataclass(frozen=True)
class BlockFailure:
    """Why a block failed.

    Attributes:
        block: index of the block.
        error: type and message, one line.
        trace: the whole traceback; empty if the user can mend it, or the worker died without a word.
        trouble: what kind of error it is.
    """

    block: int
    error: str
    trace: str
    trouble: Trouble


def clear_failures(task: BlockTask) -> None:
    """Forget what failed in an earlier run, and make room for the reason to stop this one.

    Raises:
        UserError: the disk is full or not writable.
    """
    shutil.rmtree(failure_folder(task), ignore_errors=True)
    _success_mark(task).unlink(missing_ok=True)
    try:
        task.folder.mkdir(parents=True, exist_ok=True)
        with _ending_path(task).open("wb") as file:
            file.write(b" " * ENDING_BYTES)
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
    document = {
        "block": block.index,
        "error": " ".join(f"{'' if known else f'{type(error).__name__}: '}{error}".split()),
        "trace": "" if known else "".join(traceback.format_exception(error)),
        "trouble": trouble.name,
    }
    if trouble is Trouble.DISK_FULL:
        end_early(task, f"block {block.index}: {document['error']}; make room and run the same command again")
        return
    write_json(failure_folder(task) / f"{block.index}.json", document)
    _end_if_all_fail_alike(task, str(document["error"]))


def forget_failure(task: BlockTask, block: Block) -> None:
    """A block that failed before has succeeded."""
    (failure_folder(task) / f"{block.index}.json").unlink(missing_ok=True)


def failed_for_good(task: BlockTask, block: Block) -> bool:
    """Whether a block failed in this run in a way that would only repeat itself."""
    failure = _read_failure(failure_folder(task) / f"{block.index}.json")
    return failure is not None and failure.trouble is Trouble.LASTING


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
    file = os.open(_ending_path(task), os.O_WRONLY)
    try:
        os.pwrite(file, text.ljust(ENDING_BYTES), 0)
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
    return BlockFailure(document["block"], document["error"], document["trace"], Trouble[document["trouble"]])


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
