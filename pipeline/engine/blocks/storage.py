"""How blocks reach the disk, and how the blocks of an earlier stage are read.

A block is written, flushed, read back, compared with what was computed, and its checksum noted; only then does the
worker report it, and only then is it marked. An array of an earlier stage is read strictly: a shard that is gone is an
error, where TensorStore and zarr would give zeros.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from typing_extensions import override

from ...command_names import name_of
from ...config.base import plain_number
from ...errors import UserError
from ...run import Run
from ...volumes import Box, RunVolume, container_attributes, crop, open_volume
from ...volumes.complete import ComputedVolume
from ...volumes.locations import Place
from ...volumes.storage_errors import not_unavailable
from ...volumes.volume import Volume
from .checksums import BlockRecords, RecordTable, array_checksum
from .grid import Block, BlockGrid


@dataclass(frozen=True)
class UpstreamVolume(ComputedVolume):
    """An array of an earlier stage, or the raw volume, where every shard must be there and whole.

    Attributes:
        known: (z, y, x) bool over the shards: those that have been seen, or need not be there.
        records: what the shards held when they were written, if they are to be compared: in format 2, where nothing
            else tells a changed bit.
    """

    known: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), dtype=bool))
    records: RecordTable | None = None

    @override
    def read(self, box: Box) -> np.ndarray:
        self._require_shards(box)
        data = super().read(box)
        if self.records is not None:
            self._compare(data, box, self.records)
        return data

    def _compare(self, data: np.ndarray, box: Box, records: RecordTable) -> None:
        """Compare the shards that were read as a whole with their records. Of others, the block that owns them reads
        the whole, and fails.
        """
        for position, part in self.array.shards_in(box):
            index = int(np.ravel_multi_index(position, self.array.grid_shape))
            if part != self.array.shard_box(position) or not records.present[index]:
                continue
            if array_checksum(crop(data, part.relative_to(box))) != records.checksum[index]:
                raise UserError(
                    f"{self.array.called} {self.array.key(position)} holds other values than were written; {self.cure}",
                    self.name,
                )

    def _require_shards(self, box: Box) -> None:
        """Make sure that no shard is gone; each is looked for once."""
        unseen = [position for position, _ in self.array.shards_in(box) if not self.known[position]]
        for position, there in zip(unseen, self.array.exist(unseen) if unseen else (), strict=True):
            if not there:
                raise UserError(f"{self.array.called} {self.array.key(position)} is missing; {self.cure}", self.name)
            self.known[position] = True


def require_whole(
    volume: RunVolume, empty: np.ndarray, cure: str, records: RecordTable | None = None
) -> UpstreamVolume:
    """An array whose shards must be complete.

    Args:
        volume: the array.
        empty: (z, y, x) bool over its shards, those that need not be there.
        cure: what to do about a damaged shard, for messages.
        records: of its shards, to be compared as they are read.
    """
    return UpstreamVolume(volume.array, volume.voxel_size, volume.offset, volume.name, cure, empty.copy(), records)


def require_metadata(volume: RunVolume, grid: BlockGrid, channels: tuple[int, ...], dtype: str, cure: str) -> None:
    """Refuse an array whose metadata have changed: voxels would be missing, or taken for others.

    Args:
        volume: the array.
        grid, channels, dtype: what its stage creates it with.
        cure: what to do about it, for messages.

    Raises:
        UserError: names what differs.
    """
    array = volume.array
    compared = {
        "shape": (array.shape, (*channels, *grid.region.shape)),
        "type": ((array.dtype.name,), (dtype,)),
        "block size": (array.shards[-3:], grid.block_size),
        "voxel size": (volume.voxel_size, grid.voxel_size),
        "offset": (volume.offset, grid.offset),
        "fill value": ((array.fill_value,), (0,)),
    }
    for name, (found, wanted) in compared.items():
        if tuple(found) != tuple(wanted):
            said = ", ".join(map(str, found)), ", ".join(map(str, wanted))
            raise UserError(
                f"its metadata have changed since it was made: {name} is {said[0]}, not {said[1]}; {cure}", volume.name
            )


def may_hold_something(volume: RunVolume, box: Box) -> bool:
    """Whether a box of an array has a voxel that is not 0; if it cannot be read, it held something that is damaged."""
    try:
        return bool(volume.read(box).any())
    except UserError as error:
        return not_unavailable(error)


def open_raw(run: Run) -> Volume:
    """Raw intensities of the segmented source, (z, y, x). Of what the run has converted, a missing chunk is an error;
    in a source that is read in place, it is what its format says, 0 where it says nothing.

    Raises:
        UserError: the source has to be converted and is not, or cannot be read.
    """
    return run.open_raw(run.config.volumes.segment.source)


def raw_identity(run: Run, name: str | None = None) -> dict[str, Any]:
    """What tells one raw volume from another, as JSON values: its import or what it was recognised by, its extent, its
    place in the world, and how its intensities are read if not as the full range of their type.

    Args:
        run: the run.
        name: of the source. Default: the one that is segmented.

    Raises:
        UserError: the source is not imported.
    """
    source = run.source(name or run.config.volumes.segment.source)
    raw = source.open_raw()
    identity: dict[str, Any] = {"import": None}
    if source.is_converted("raw"):
        identity["import"] = container_attributes(source.container).get("import")
    else:
        known = source.read_record().get("volumes", {}).get("raw")
        if known is None:
            raise UserError(
                f"the source has not been looked at yet; run {name_of('import_data.py')} first", source.where
            )
        identity["in_place"] = {name: known[name] for name in ("metadata", "voxels")}
    identity |= {
        "shape": list(raw.shape),
        "dtype": str(raw.dtype),
        "voxel_size": [plain_number(size) for size in raw.voxel_size],
        "offset": [plain_number(position) for position in raw.offset],
    }
    intensity = source.intensity()
    if not intensity.is_of_type(raw.dtype):
        identity["intensity"] = [intensity.low, intensity.high]
    return identity


def labels_identity(run: Run) -> dict[str, Any]:
    """What tells one ground truth from another."""
    source = run.source(run.config.volumes.segment.source)
    known = source.read_record().get("volumes", {}).get("labels")
    if known is None or source.is_converted("labels"):
        return {"import": raw_identity(run)["import"]}
    return {name: known[name] for name in ("metadata", "voxels")}


def mask_identity(run: Run) -> dict[str, Any] | None:
    """What tells one mask of the segmented source from another; None without one, or where raw's import says it."""
    source = run.source(run.config.volumes.segment.source)
    if source.is_converted("mask"):
        imported = container_attributes(source.container).get("import")
        return None if source.is_converted("raw") else {"import": imported}
    known = source.read_record().get("volumes", {}).get("mask")
    return None if known is None else {name: known[name] for name in ("metadata", "voxels")}


class BlockOutput:
    """Writes blocks, whole shards each, so that they survive.

    Args:
        container, dataset: the array, as of `open_volume`.
        records: where the checksums go.
        by_shard: see `VolumeTask.checksum_by_shard`.
    """

    def __init__(self, container: Place, dataset: str, records: BlockRecords, by_shard: bool = False) -> None:
        self.volume = open_volume(container, dataset, "r+")
        self._records = records
        self._by_shard = by_shard

    def write(self, block: Block, data: np.ndarray) -> None:
        """Store a block, check that it can be read, and note its checksum.

        Raises:
            UserError: the disk is full or not writable, or a shard cannot be read.
            OSError: what is read back is not what was written.
        """
        data = np.ascontiguousarray(data, dtype=self.volume.array.dtype)
        checksum = 0
        for _, box in self.volume.array.shards_in(block.box):
            shard = np.ascontiguousarray(crop(data, box.relative_to(block.box)))  # it is gone over several times
            self._write_shard(box, shard)
            checksum = array_checksum(shard, checksum) if self._by_shard else 0
        checksum = checksum if self._by_shard else array_checksum(data)
        self._records.write(block.index, checksum, int(np.count_nonzero(data)))

    def _write_shard(self, box: Box, data: np.ndarray) -> None:
        self.volume.write(box, data)
        if not np.array_equal(self.volume.read(box), data):
            raise OSError(errno.EIO, "what was written reads back differently", self.volume.name)
