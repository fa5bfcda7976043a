"""Volumes at another place, in the format of another program: a stage per level, each made of the level before.

Blocks count voxels of the region, as those of pyramids. A block is written, read back, compared and noted like every
block; what it replaces was its own.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from funlib.geometry import Coordinate
from typing_extensions import override

from ...command_names import SCRIPTS
from ...engine.blocks.checksums import array_checksum
from ...engine.blocks.grid import Block, BlockGrid
from ...engine.blocks.stage import BlockFunction, BlockTask, Stage
from ...engine.blocks.storage import labels_identity, open_raw, raw_identity
from ...engine.tracking.progress import read_record, recorded_key, write_record
from ...errors import UserError
from ...run import Run
from ...units import disk_size
from ...volumes import Box
from ...volumes.exports import ExportedImage, Form
from ...volumes.locations import Location
from ...volumes.pyramids import Method, Reader, downsampled_box, level_factors
from ...volumes.storage_errors import not_unavailable
from ..fragments import FragmentsTask
from ..predict import PredictTask
from .former_export import FormerExport, level_name
from .segments import NumberedFragments, SegmentedVolume, segments_of
from .supervoxels import SupervoxelVolume

CONTENTS = ("raw", "affinities", "segmentation", "labels")
"""What can be exported as a volume."""
FRAGMENTS, SUPERVOXELS = "fragments", "supervoxels"
"""Fragments as WEBKNOSSOS and PyChunkedGraph number them."""
IDS = ("segmentation", "labels", FRAGMENTS, SUPERVOXELS)
NO_THRESHOLD = -1.0


def place_of(content: str, form: Form) -> str:
    """Where a volume lies in an export: in OME-NGFF, ids are labels of the raw image."""
    if form == "precomputed" or content not in ("segmentation", "labels"):
        return content
    return f"raw/labels/{content}"


@dataclass(frozen=True)
class ExportTask(BlockTask):
    """A level of an exported volume, block by block.

    Attributes:
        to: path or URL of the export; variables are not yet expanded.
        form: format of the volume.
        content: one of `CONTENTS`.
        threshold: of the segmentation, else `NO_THRESHOLD`.
        level: 0 for the finest.
    """

    to: str
    form: Form
    content: str
    threshold: float
    level: int

    stage = "export"
    version = 1
    together = "export"
    script = SCRIPTS["export"]
    leaves_out_empty = False

    @property
    @override
    def name(self) -> str:
        threshold = f"{self.threshold:g}" if self.threshold != NO_THRESHOLD else ""
        return level_name(self.form, self.to, self.content, threshold, self.level)

    @property
    def former(self) -> FormerExport:
        """What this run has exported to the same place before."""
        return FormerExport(self.run, self.form, self.to, self.content, self.threshold)

    @property
    @override
    def output(self) -> str:
        return f"{self.image.location.name}, level s{self.level}"

    @cached_property
    @override
    def upstream(self) -> tuple[Stage, ...]:
        if self.level > 0:
            return (replace(self, level=self.level - 1),)
        if self.content in ("segmentation", FRAGMENTS):
            return (segments_of(self.run, self.threshold),)
        if self.content == SUPERVOXELS:
            return (FragmentsTask(self.run),)
        return (PredictTask(self.run),) if self.content == "affinities" else ()

    @cached_property
    def whole_grid(self) -> BlockGrid:
        """The segmented region in blocks of `predict.block_size`."""
        return BlockGrid.of_run(self.run)

    @cached_property
    def image(self) -> ExportedImage:
        """The volume as it is exported."""
        grid, run = self.whole_grid, self.run
        smallest, images = run.config.pyramid.smallest, run.config.volumes.images
        factors = level_factors(grid.voxel_size, grid.region.shape, smallest, keep_sections=images)
        return ExportedImage(
            location=Location.of(self.to).child(place_of(self.content, self.form)),
            form=self.form,
            shape=grid.region.shape,
            channels=len(run.config.predict.offsets) if self.content == "affinities" else None,
            dtype=self._dtype(),
            voxel_size=grid.voxel_size,
            offset=grid.offset,
            factors=(Coordinate(1, 1, 1), *factors),
            block=grid.block_size,
            is_ids=self.content in IDS,
        )

    def _dtype(self) -> np.dtype:
        if self.content == "affinities":
            return np.dtype(np.uint8)
        if self.content in IDS:
            return np.dtype(np.uint64)
        dtype = self.run.open_raw(self.run.config.volumes.segment.source).dtype
        half = dtype == np.float16 and self.form == "precomputed"  # has no such type
        return np.dtype(np.float32) if half else dtype

    @property
    def downsampling(self) -> Coordinate:
        """Voxels of the region along z, y, x that are one voxel of the level."""
        return self.image.factors[self.level]

    @cached_property
    @override
    def grid(self) -> BlockGrid:
        size = self.image.level_block(self.level) * self.downsampling
        region = self.whole_grid.region
        return replace(self.whole_grid, block_size=Coordinate(map(min, size, region.shape)))

    @override
    def settings(self) -> dict[str, Any]:
        region = self.whole_grid.region
        settings: dict[str, Any] = {
            "form": self.form,
            "volumes.segment": [list(region.begin), list(region.end)],
            "factors": [list(factors) for factors in self.image.factors],
            "block_size": list(self.image.level_block(self.level)),
            "voxel_size": list(self.whole_grid.voxel_size),
            "offset": list(self.whole_grid.offset),
        }
        if self.content == "raw":
            settings["raw"] = raw_identity(self.run)
        if self.content == "labels":
            settings["labels"] = labels_identity(self.run)
        return settings

    @override
    def check(self) -> None:
        if self.level > 0 or read_record(self) or self.former.thresholds() or not self.image.is_taken():
            return
        forms = [form for form in self.former.other_forms() if replace(self.image, form=form).is_there()]
        there = f"this run's {self.content} as {forms[0]}" if forms else "something that this run has not written"
        raise UserError(
            f"there is {there} already; name another place than {self.to}, or delete it", self.image.location.name
        )

    @override
    def stored_key(self) -> str | None:
        return (recorded_key(self) or self.former.key(self.level)) if self.image.is_there() else None

    @override
    def lies_instead(self) -> str:
        others = self.former.thresholds() if self.level == 0 and not read_record(self) else []
        if not others:
            return ""
        held = f"{self.image.location.name} holds threshold {others[0]} of this run"
        return f"{held}; name another place for {self.threshold:g}, or --overwrite"

    @override
    def is_intact(self) -> bool:
        return self.level > 0 or self.image.metadata_are_sound()

    @override
    def damage(self) -> str:
        return "" if self.is_intact() else "metadata are damaged"

    @override
    def prepare(self) -> None:
        write_record(self, complete=False)  # from now on what lies there is known to be this run's
        self.former.forget(self.level)
        self.image.delete_level(self.level)
        if self.level == 0:
            self.image.write_metadata({})
        self.image.create_level(self.level)

    @override
    def resume(self) -> None:
        self.former.forget(self.level)
        if self.level == 0 and not self.image.metadata_are_sound():
            self.image.write_metadata({})  # `DescribeStep` adds what it has to say, since its file has changed
        self.image.mend_level(self.level)  # it may have ended before it made the level, too

    @override
    def drop(self) -> None:
        self.former.give_up(self.level)
        self.image.delete_level(self.level)

    @property
    @override
    def reads(self) -> tuple[Stage, ...]:
        fragments = self.level == 0 and self.content in ("segmentation", FRAGMENTS)
        return (FragmentsTask(self.run),) if fragments else self.upstream  # of segments, the lookup table

    @property
    @override
    def bytes_read_per_voxel(self) -> int:
        return self._bytes_per_voxel

    @property
    def _bytes_per_voxel(self) -> int:
        return self.image.dtype.itemsize * (self.image.channels or 1)

    @property
    @override
    def array_place(self) -> Location:
        return Location.of(self.to)

    @property
    @override
    def array_bytes(self) -> int:
        return Box.of_shape(self.image.level_shape(self.level)).size * self._bytes_per_voxel

    @override
    def plan_details(self) -> list[tuple[str, str]]:
        return [("write", f"{self.output}: {disk_size(self.array_bytes)} before compression")]

    @property
    def step(self) -> Coordinate:
        """Voxels of the level before that are one voxel of this one."""
        return self.downsampling / (self.image.factors[self.level - 1] if self.level > 0 else Coordinate(1, 1, 1))

    @contextmanager
    @override
    def process(self) -> Iterator[BlockFunction]:
        read, output, dtype = self._open_source(), self.image.open_level(self.level), self.image.dtype

        def process_block(block: Block) -> None:
            box = self._box_of(block)
            data = np.ascontiguousarray(read(box), dtype=dtype)
            try:
                output.write(box, data)
            except UserError as error:
                if not not_unavailable(error) or self.form == "precomputed":
                    raise
                self.image.delete_block(self.level, box)
                output.write(box, data)
            if not np.array_equal(output.read(box), data):
                raise OSError(errno.EIO, "what was written reads back differently", output.location.name)
            self.records.write(block.index, array_checksum(data), int(np.count_nonzero(data)))

        yield process_block

    @override
    def stored_checksums(self) -> Callable[[Block], int]:
        open_level, filled = functools.cache(self.image.open_level), self.records.read().filled

        def checksum_of(block: Block) -> int:
            data = open_level(self.level).read(self._box_of(block))
            if filled[block.index] > 0 and not data.any():
                raise FileNotFoundError(self.output)
            return array_checksum(data)

        return checksum_of

    def _box_of(self, block: Block) -> Box:
        """The voxels of the level in a block."""
        begin = block.box.begin // self.downsampling
        whole = Box.of_shape(self.image.level_shape(self.level))
        return Box(begin, begin + self.image.level_block(self.level)).intersect(whole)

    def _open_source(self) -> Reader:
        """A function that gives the voxels of a box of this level."""
        if self.level > 0:
            return self._joined()
        run, grid = self.run, self.whole_grid
        if self.content == "segmentation":
            return SegmentedVolume(segments_of(run, self.threshold)).read
        if self.content == FRAGMENTS:
            return NumberedFragments(segments_of(run, self.threshold)).read
        if self.content == SUPERVOXELS:
            return SupervoxelVolume(run).read
        if self.content == "affinities":
            return PredictTask(run).open_complete().read
        source = run.config.volumes.segment.source
        volume = open_raw(run) if self.content == "raw" else run.open_labels(source)
        return lambda box: volume.read(grid.to_source(box))

    def _joined(self) -> Reader:
        """Reads a box of this level from the level before."""
        image, step = self.image, self.step
        before, shape = image.open_level(self.level - 1), image.level_shape(self.level - 1)
        method: Method = "majority" if image.is_ids else "mean"
        channels = () if image.channels is None else (image.channels,)
        return lambda box: downsampled_box(before.read, box, shape, step, method, image.dtype, channels)


def volume_stages(run: Run, to: str, form: Form, content: str, threshold: float) -> list[ExportTask]:
    """The stages that export a volume, a level each."""
    has_threshold = content in ("segmentation", FRAGMENTS)
    first = ExportTask(run, to, form, content, threshold if has_threshold else NO_THRESHOLD, 0)
    if content == FRAGMENTS:  # are numbered alike at any threshold: a later one takes what the first has written
        first = replace(first, threshold=next(map(float, first.former.thresholds()), threshold))
    return [replace(first, level=level) for level in range(len(first.image.factors))]
