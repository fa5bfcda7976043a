"""What a worker says about itself, and how it lies on disk: first what each block changes, then what seldom changes.

What each block changes is a packed record of some dozen bytes, in front of them a checksum: a reader that meets it half
written can tell. There is room for two, which are written in turns, so that a worker that dies while it writes one
leaves the other. What seldom changes is JSON behind the room for them.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from itertools import chain
from typing import Any
from zlib import crc32

RECORD_BYTES = 512
"""Room of what each block changes."""
RECORDS_BYTES = 2 * RECORD_BYTES
"""Room of the present one and of the one before."""
ENTRY_BYTES = 2560
"""Entries are padded to this length, so that a shorter one leaves nothing of a longer one."""
MOST_UNDER_WAY = 24
"""Blocks under way that fit into the room."""

AT_WORK = "at work"
DONE = "done"

LASTING = ("worker", "host", "process", "job", "log", "began", "state")
"""What seldom changes."""

_CHECKSUM = struct.Struct("<I")
_COUNTS = struct.Struct("<qdqqddqq")
_UNDER_WAY = struct.Struct("<qd")
_RECORDS = [struct.Struct(_COUNTS.format + count * _UNDER_WAY.format[1:]) for count in range(MOST_UNDER_WAY + 1)]
"""The record behind its checksum, by the number of blocks under way; so are the following."""
_PACK = [record.pack for record in _RECORDS]
_PLACES = [[slice(place, place + _CHECKSUM.size + record.size) for record in _RECORDS] for place in (0, RECORD_BYTES)]
"""Where a record lies in an entry, if it is an even one or an odd one."""


@dataclass(slots=True)
class Entry:
    """What a worker last said about itself.

    Attributes:
        worker: its name within the task: daisy's number, or another one if it was added by hand.
        host: machine it runs on, by its name in the cluster if it is a job.
        process: its process id there.
        job: its batch job; None if it is no job.
        log: path of what it prints; empty if that is the driver's output.
        began: when it began, in seconds since 1970; so are the other times.
        heard: when it said this.
        blocks: the blocks under way, those begun first in front: when each one began, by index.
        done, failed: blocks that it has finished.
        busy: seconds that these took; of blocks under way together, each counts its own.
        longest: seconds of the one that took longest.
        memory: its peak resident memory in bytes, as it was a moment ago.
        state: `at work`, `done`, or why it left.
        said: how often it has said something of blocks.
    """

    worker: str
    host: str
    process: int
    job: str | None
    log: str
    began: float
    heard: float
    blocks: dict[int, float] = field(default_factory=dict)
    done: int = 0
    failed: int = 0
    busy: float = 0.0
    longest: float = 0.0
    memory: int = 0
    state: str = AT_WORK
    said: int = 0

    @property
    def at_work(self) -> bool:
        """Whether it has not said that it left; it may have died since."""
        return self.state == AT_WORK

    @property
    def block(self) -> int | None:
        """Index of the block that has been under way longest; None between blocks."""
        return next(iter(self.blocks), None)

    @property
    def block_began(self) -> float:
        """When that one began; 0 between blocks."""
        return next(iter(self.blocks.values()), 0.0)

    def pack(self) -> bytes:
        """All of it, as it lies on disk."""
        lasting = json.dumps({name: getattr(self, name) for name in LASTING}).encode()
        _, record = self.next_record()
        return 2 * record.ljust(RECORD_BYTES, b"\0") + lasting.ljust(ENTRY_BYTES - RECORDS_BYTES)

    def next_record(self) -> tuple[slice, bytes]:
        """What each block changes, to be written now: over which bytes (not those of the one before), and what."""
        self.said = said = self.said + 1
        blocks = self.blocks
        count = len(blocks)
        content = _PACK[count](
            said,
            self.heard,
            self.done,
            self.failed,
            self.busy,
            self.longest,
            self.memory,
            count,
            *chain.from_iterable(blocks.items()),
        )
        return _PLACES[said % 2][count], _CHECKSUM.pack(crc32(content)) + content

    @staticmethod
    def unpack(content: bytes) -> Entry:
        """The inverse of `pack`; what a former record left behind the present one does not matter.

        Raises:
            ValueError: the worker is writing it just now.
        """
        if len(content) < ENTRY_BYTES:
            raise ValueError("not all of the entry is there")
        records = filter(None, map(_unpack_record, (content[:RECORD_BYTES], content[RECORD_BYTES:RECORDS_BYTES])))
        newest = max(records, key=lambda record: record["said"], default=None)
        if newest is None:
            raise ValueError("both records are half written")
        return Entry(**json.loads(content[RECORDS_BYTES:]), **newest)


def _unpack_record(content: bytes) -> dict[str, Any] | None:
    """The fields of an entry that each block changes; None if they are half written."""
    (checksum,) = _CHECKSUM.unpack_from(content)
    said, heard, done, failed, busy, longest, memory, count = _COUNTS.unpack_from(content, _CHECKSUM.size)
    begin = _CHECKSUM.size + _COUNTS.size
    end = begin + count * _UNDER_WAY.size
    if crc32(content[_CHECKSUM.size : end]) != checksum:
        return None
    return {
        "said": said,
        "heard": heard,
        "blocks": dict(_UNDER_WAY.iter_unpack(content[begin:end])),
        "done": done,
        "failed": failed,
        "busy": busy,
        "longest": longest,
        "memory": memory,
    }
