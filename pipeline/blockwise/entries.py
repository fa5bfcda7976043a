"""What a worker says about itself, and how it lies on disk: first what each block changes, then what seldom changes.

What each block changes is a packed record of some dozen bytes, in front of them a checksum: a reader that meets it half
written can tell. What seldom changes is JSON behind the room for it.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, field

RECORD_BYTES = 512
"""Room of what each block changes."""
ENTRY_BYTES = 2048
"""Entries are padded to this length, so that a shorter one leaves nothing of a longer one."""
MOST_UNDER_WAY = 24
"""Blocks under way that fit into the room."""

AT_WORK = "at work"
DONE = "done"

LASTING = ("worker", "host", "process", "job", "log", "began", "state")
"""What seldom changes."""

_CHECKSUM = struct.Struct("<I")
_COUNTS = struct.Struct("<dqqddqq")
_UNDER_WAY = struct.Struct("<qd")


@dataclass
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
        return self.pack_record().ljust(RECORD_BYTES, b"\0") + lasting.ljust(ENTRY_BYTES - RECORD_BYTES)

    def pack_record(self) -> bytes:
        """What each block changes, as it lies at the beginning."""
        content = _COUNTS.pack(
            self.heard, self.done, self.failed, self.busy, self.longest, self.memory, len(self.blocks)
        )
        for block, began in self.blocks.items():
            content += _UNDER_WAY.pack(block, began)
        return _CHECKSUM.pack(zlib.crc32(content)) + content

    @staticmethod
    def unpack(content: bytes) -> Entry:
        """The inverse of `pack`; what a former record left behind the present one does not matter.

        Raises:
            ValueError: the worker is writing it just now.
        """
        if len(content) < ENTRY_BYTES:
            raise ValueError("not all of the entry is there")
        (checksum,) = _CHECKSUM.unpack_from(content)
        heard, done, failed, busy, longest, memory, count = _COUNTS.unpack_from(content, _CHECKSUM.size)
        begin = _CHECKSUM.size + _COUNTS.size
        end = begin + count * _UNDER_WAY.size
        if zlib.crc32(content[_CHECKSUM.size : end]) != checksum:
            raise ValueError("the record is half written")
        return Entry(
            **json.loads(content[RECORD_BYTES:]),
            heard=heard,
            blocks=dict(_UNDER_WAY.iter_unpack(content[begin:end])),
            done=done,
            failed=failed,
            busy=busy,
            longest=longest,
            memory=memory,
        )
