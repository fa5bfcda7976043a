"""Stage 05: merge scores to segmentations: a lookup table per threshold, of which every block reads its own slice."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from ..command_names import SCRIPTS
from ..engine.blocks.checksums import mapped_checksum
from ..engine.blocks.grid import Block
from ..engine.blocks.stage import BlockFunction, Stage, VolumeTask
from ..errors import UserError
from ..run import Run
from ..segmentation import relabel
from ..small_files import DamagedFile, read_npy, write_json
from ..units import threshold_name
from .agglomerate import agglomeration
from .fragments import FragmentsTask
from .region_graph import RagTask, open_graph


def small_settings(run: Run) -> dict[str, Any]:
    """What `segment.small_segments` adds to the settings of whoever makes a lookup table; nothing if it is not set."""
    limits = run.config.small_segments
    return {} if limits is None else {"segment.small_segments": list(limits)}


def lut_path(run: Run, threshold: float) -> Path:
    """Where the lookup table of a threshold lies."""
    return run.luts / f"lut_{threshold_name(threshold)}.npy"


def lut_slice(lut: np.ndarray, first_id: int, end_id: int) -> np.ndarray:
    """The rows of the fragments first_id .. end_id - 1 of a memory-mapped table, reading only those and a few pages."""
    ids = lut[:, 0]
    begin, end = bisect.bisect_left(ids, first_id), bisect.bisect_left(ids, end_id)
    return np.array(lut[begin:end])


SMALL_TABLE = 1 << 26
"""Bytes of a lookup table that is read in no time; of a larger one, the audit alone looks at every row."""


@dataclass(frozen=True)
class SegmentTask(VolumeTask):
    """Fragments to the segmentation at one threshold, block by block.

    Attributes:
        threshold: edges up to this score are merged.
    """

    threshold: float

    stage = "segment"
    version = 1
    script = SCRIPTS["segment"]

    @property
    @override
    def name(self) -> str:
        return f"segment_{threshold_name(self.threshold)}"

    @property
    @override
    def dataset(self) -> str:
        return f"segmentation/{threshold_name(self.threshold)}"

    @cached_property
    @override
    def upstream(self) -> tuple[Stage, ...]:
        return (agglomeration(self.run),)

    @property
    @override
    def reads(self) -> tuple[Stage, ...]:
        return (FragmentsTask(self.run),)  # of the agglomeration, the lookup table

    @property
    @override
    def empty_is_an_answer(self) -> bool:
        return self.run.config.segment.minimum_size > 0

    @override
    def settings(self) -> dict[str, Any]:
        return {
            "segment.thresholds": round(self.threshold, 6),
            "segment.minimum_size": self.run.config.segment.minimum_size,
            "agglomerate.maximum_score": self.run.config.agglomerate.maximum_score,
            **small_settings(self.run),
        }

    @override
    def attributes(self) -> dict[str, Any]:
        return {"threshold": self.threshold, "lookup_table": self.lut_checksum()}

    def lut_checksum(self) -> int | None:
        """Checksum of the stored lookup table; None if there is none that can be read."""
        try:
            return mapped_checksum(read_npy(lut_path(self.run, self.threshold)))
        except (FileNotFoundError, UserError):
            return None

    @override
    def is_intact(self) -> bool:
        path = lut_path(self.run, self.threshold)
        if path.exists() and path.stat().st_size <= SMALL_TABLE:
            return self.lut_is_sound()
        try:
            return read_npy(path).shape[1:] == (2,)
        except (FileNotFoundError, UserError):
            return False

    @override
    def damage(self) -> str:
        return "" if self.lut_is_sound() else "the lookup table is missing or damaged"

    @override
    def remark(self) -> str:
        from ..evaluation.segment_sizes import of_little_use, read_segment_sizes  # not needed by workers

        try:
            sizes = read_segment_sizes(self.run, threshold_name(self.threshold))
        except DamagedFile as error:
            return str(error)
        return of_little_use(sizes) if sizes is not None else ""

    @override
    def depends_on_whole_upstream(self) -> bool:
        return True

    @override
    def discard_whole(self) -> None:
        lut_path(self.run, self.threshold).unlink(missing_ok=True)
        self.sizes_path.unlink(missing_ok=True)

    @property
    def sizes_path(self) -> Path:
        """Where the sizes of the segments lie; a file that only reports."""
        return self.run.segment_sizes(threshold_name(self.threshold))

    def lut_is_sound(self) -> bool:
        """Whether the lookup table is the one that the segmentation was begun with."""
        checksum = self.lut_checksum()
        return checksum is not None and checksum == self.open().array.attrs.get("lookup_table")

    @override
    def prepare(self) -> None:
        self._make_lut()
        super().prepare()

    @override
    def resume(self) -> None:
        if self.lut_is_sound():
            return
        self._make_lut()
        if not self.lut_is_sound():  # the graph is another one: what was relabelled is of no use
            self.forget_blocks()
            super().prepare()

    @override
    def drop(self) -> None:
        super().drop()
        self.discard_whole()

    def _make_lut(self) -> None:
        from .lookup_tables import JoinLimits, join_fragments, sum_segments, write_lookup_table  # not needed by workers

        config, path = self.run.config, lut_path(self.run, self.threshold)
        limits = JoinLimits(min(self.threshold, config.agglomerate.maximum_score), config.small_segments)
        with open_graph(self.run) as store:
            joined = join_fragments(store, RagTask(self.run), agglomeration(self.run), limits, path.parent)
            sums = sum_segments(joined, config.segment.minimum_size, path.parent)
            sizes = sums.summary(joined.ids.values, joined.first.values, store.iterate_nodes())
        write_json(self.sizes_path, {**sizes})
        write_lookup_table(joined, sums, path)

    @contextmanager
    @override
    def process(self) -> Iterator[BlockFunction]:
        fragments, output = FragmentsTask(self.run).open_complete(), self.open_output()
        lut = read_npy(lut_path(self.run, self.threshold))

        def process_block(block: Block) -> None:
            rows = lut_slice(lut, *self.grid.fragment_ids(block))
            output.write(block, relabel(fragments.read(block.box), rows[:, 0], rows[:, 1]))

        yield process_block


def written_segmentations(run: Run) -> list[SegmentTask]:
    """The segmentations that have been begun from the present graph, by threshold."""
    tasks = [SegmentTask(run, float(name)) for name in run.segmentation_names()]
    return [task for task in tasks if task.stored_key() == task.key]
