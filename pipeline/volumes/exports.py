"""Arrays in the formats of other programs, at any place: OME-NGFF 0.5 and 0.4, and neuroglancer's precomputed format.

An image has levels, each an array; what one process may write alone (a shard, or several chunks) is its `block`.
OME-NGFF places a level exactly. Precomputed volumes lie at whole voxels: an image whose first voxel does not, lies up
to half a voxel beside its place; a coarser level is placed up to a voxel of its own too low where the image begins
between its voxels.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tensorstore as ts
from funlib.geometry import Coordinate

from ..errors import UserError
from .boxes import Box
from .locations import Location
from .nanometres import Nanometres
from .placed_files import as_json as as_json
from .placed_files import exists_at as exists_at
from .placed_files import read_file as read_file
from .placed_files import read_json_at as read_json_at
from .placed_files import require_file as require_file
from .placed_files import write_file as write_file
from .placed_files import write_json as write_json
from .placement import nearest_voxel
from .run_containers import level_of_image
from .storage import DATA_WAIT, METADATA_WAIT, context, exists, kvstore_spec, open_store, wait
from .storage_errors import not_unavailable
from .tensors import chunk_inside, compressor_of, zarr3_codecs

Form = Literal["ngff-0.5", "ngff-0.4", "precomputed"]
"""Formats of exported images."""

CHUNK = 64
"""Voxels along the edge of a chunk of a precomputed volume."""
CHUNKS_PER_SHARD_BITS = 6
"""A shard of a precomputed volume has two to the power of this many chunks: about 256 voxels along its edge."""


@dataclass(frozen=True)
class ExportedImage:
    """An image as it is exported.

    Attributes:
        location: where it goes.
        form: its format.
        shape: of the finest level, z, y, x.
        channels: extent of the first axis if there is one.
        dtype: of its voxels.
        voxel_size, offset: of the finest level in nanometres, order z, y, x.
        factors: of each level, how many voxels of the finest along z, y, x are one; the first are 1, 1, 1.
        block: voxels that are written together at least, order z, y, x.
        is_ids: whether its voxels are ids of objects.
    """

    location: Location
    form: Form
    shape: Coordinate
    channels: int | None
    dtype: np.dtype
    voxel_size: Nanometres
    offset: Nanometres
    factors: tuple[Coordinate, ...]
    block: Coordinate
    is_ids: bool

    def level_shape(self, level: int) -> Coordinate:
        """Extents of a level in its voxels."""
        return Coordinate(-(-e // f) for e, f in zip(self.shape, self.factors[level], strict=True))

    def level_size(self, level: int) -> list[float]:
        """Voxel size of a level in nanometres."""
        return [size * factor for size, factor in zip(self.voxel_size, self.factors[level], strict=True)]

    def level_block(self, level: int) -> Coordinate:
        """Voxels of a level that are written together: one file, or several whole ones."""
        if self.form != "precomputed":
            return Coordinate(map(min, self.block, self.level_shape(level)))
        shape = self._in_memory(level).chunk_layout.write_chunk.shape or (None,) * 4
        extents = zip(shape[:3][::-1], self.level_shape(level), strict=True)
        return Coordinate(int(min(shard or extent, extent)) for shard, extent in extents)

    def is_there(self) -> bool:
        """Whether `write_metadata` has been done."""
        return exists_at(
            self.location, {"precomputed": "info", "ngff-0.5": "zarr.json", "ngff-0.4": ".zgroup"}[self.form]
        )

    def is_taken(self) -> bool:
        """Whether there is something at the place, whatever made it."""
        return any(exists(self.location, ("info", "zarr.json", ".zgroup", ".zattrs", ".zarray")))

    def write_metadata(self, extra: Mapping[str, Any]) -> None:
        """Say what the image is.

        Args:
            extra: further members: of `info` (precomputed), or of the image's OME attributes.

        Raises:
            StorageUnavailable, UserError: the place cannot be written.
        """
        for name, document in self.metadata(extra).items():
            write_json(self.location, name, document)

    def metadata(self, extra: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """What `write_metadata` writes, by name of the file."""
        if self.form == "precomputed":
            return {"info": {**self._info(), **extra}}
        ome = {"multiscales": [self._multiscale()], **extra}
        if self.form == "ngff-0.5":
            attributes = {"ome": {"version": "0.5", **ome}}
            return {"zarr.json": {"zarr_format": 3, "node_type": "group", "attributes": attributes}}
        ome["multiscales"][0]["version"] = "0.4"
        return {".zattrs": ome, ".zgroup": {"zarr_format": 2}}

    def metadata_are_sound(self) -> bool:
        """Whether what `write_metadata` writes can be read, and says what it should; it may say more."""
        for name, document in self.metadata({}).items():
            try:
                stored = json.loads(read_file(self.location, name) or b"")
            except ValueError:
                return False
            if not _says(stored, json.loads(as_json(document))):
                return False
        return True

    def create_level(self, level: int) -> None:
        """Make an empty level unless it is there; of a precomputed volume, `write_metadata` has done so."""
        if self.form != "precomputed":
            spec = {**self._spec(level), "kvstore": kvstore_spec(self.location.child(f"s{level}"))}
            wait(ts.open(spec, context=context(), create=True, open=True), self.location, METADATA_WAIT, "written")

    def mend_level(self, level: int) -> None:
        """Make a level unless it is there and its metadata can be read; voxels that have been written stay."""
        try:
            self.create_level(level)
        except UserError as error:
            if not not_unavailable(error) or self.form == "precomputed":
                raise
            folder = self.location.child(f"s{level}")
            name = "zarr.json" if self.form == "ngff-0.5" else ".zarray"
            wait(open_store(folder).delete_range(ts.KvStore.KeyRange(name, name + "\0")), folder, DATA_WAIT, "deleted")
            self.create_level(level)

    def delete_level(self, level: int) -> None:
        """Delete what has been written of a level."""
        folder = self.location.child(f"s{level}")
        wait(open_store(folder).delete_range(ts.KvStore.KeyRange()), folder, DATA_WAIT, "deleted")

    def delete_block(self, level: int, box: Box) -> None:
        """Delete the files of a block (OME-NGFF): damaged ones cannot be written over, where a block ends early."""
        folder, block = self.location.child(f"s{level}"), self.level_block(level)
        extents = block if self.form == "ngff-0.5" else chunk_inside(block)
        spans = [range(b // e, -(-end // e)) for b, end, e in zip(box.begin, box.end, extents, strict=True)]
        first = ["c"] * (self.form == "ngff-0.5") + ["0"] * (self.channels is not None)
        for place in itertools.product(*spans):
            key = "/".join([*first, *map(str, place)])
            wait(open_store(folder).delete_range(ts.KvStore.KeyRange(key, key + "\0")), folder, DATA_WAIT, "deleted")

    def open_level(self, level: int) -> ExportedLevel:
        """A level, to be read and written.

        Raises:
            StorageUnavailable, UserError: it cannot be opened.
        """
        if self.form == "precomputed":
            spec = {"driver": "neuroglancer_precomputed", "kvstore": kvstore_spec(self.location), "scale_index": level}
        else:
            driver = "zarr3" if self.form == "ngff-0.5" else "zarr"
            spec = {"driver": driver, "kvstore": kvstore_spec(self.location.child(f"s{level}"))}
        opening = ts.open(spec, context=context(), open=True, read=True, write=True)
        opened = wait(opening, self.location, METADATA_WAIT, "opened")
        if self.form == "precomputed":
            opened = opened[ts.d[3, 2, 1, 0].transpose[:]]
            opened = opened if self.channels is not None else opened[0]
            opened = opened[ts.d[:].translate_to[0]]
        return ExportedLevel(opened, self.location.child(f"s{level}"))

    def _spec(self, level: int) -> dict[str, Any]:
        """TensorStore's description of a level, without its place."""
        if self.form == "precomputed":
            return self._precomputed_spec(level)
        channels = [] if self.channels is None else [self.channels]
        shape = [*channels, *self.level_shape(level)]
        shard = [int(extent) for extent in self.level_block(level)]
        chunk = chunk_inside(shard)
        if self.form == "ngff-0.5":
            metadata: dict[str, Any] = {
                "shape": shape,
                "data_type": self.dtype.name,
                "fill_value": 0,
                "dimension_names": ["c"] * len(channels) + ["z", "y", "x"],
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [*channels, *shard]}},
                "codecs": zarr3_codecs(self.dtype, [*channels, *chunk], [*channels, *shard]),
            }
            return {"driver": "zarr3", "metadata": metadata}
        metadata = {
            "shape": shape,
            "chunks": [*channels, *chunk],
            "dtype": self.dtype.newbyteorder("<").str,
            "fill_value": 0,
            "dimension_separator": "/",
            "compressor": {"id": "blosc", **compressor_of(self.dtype), "blocksize": 0},
        }
        return {"driver": "zarr", "metadata": metadata}

    def _multiscale(self) -> dict[str, Any]:
        axes: list[dict[str, str]] = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
        if self.channels is not None:
            axes = [{"name": "c", "type": "channel"}, *axes]
        levels = [
            level_of_image(f"s{level}", self.level_size(level), self.offset, factors, self.channels is not None)
            for level, factors in enumerate(self.factors)
        ]
        name = self.location.path.rpartition("/")[2]
        return {"name": name, "axes": axes, "datasets": levels, "type": "mode" if self.is_ids else "mean"}

    def _precomputed_spec(self, level: int) -> dict[str, Any]:
        shape = self.level_shape(level)
        bits = sum((max(1, -(-extent // CHUNK)) - 1).bit_length() for extent in shape)
        encoding: dict[str, Any] = {"encoding": "raw"}
        if self.is_ids:
            encoding = {"encoding": "compressed_segmentation", "compressed_segmentation_block_size": [8, 8, 8]}
        return {
            "driver": "neuroglancer_precomputed",
            "multiscale_metadata": {
                "type": "segmentation" if self.is_ids else "image",
                "data_type": self.dtype.name,
                "num_channels": self.channels or 1,
            },
            "scale_metadata": {
                "key": f"s{level}",
                "size": shape[::-1],
                "resolution": self.level_size(level)[::-1],
                "voxel_offset": self._voxel_offset(level)[::-1],
                "chunk_size": [CHUNK] * 3,
                "sharding": {
                    "@type": "neuroglancer_uint64_sharded_v1",
                    "preshift_bits": CHUNKS_PER_SHARD_BITS,
                    "hash": "identity",
                    "minishard_bits": 0,
                    "shard_bits": max(0, bits - CHUNKS_PER_SHARD_BITS),
                    "minishard_index_encoding": "gzip",
                    "data_encoding": "gzip",
                },
                **encoding,
            },
        }

    def _voxel_offset(self, level: int) -> list[int]:
        first = nearest_voxel(self.offset, self.voxel_size)
        return [voxel // factor for voxel, factor in zip(first, self.factors[level], strict=True)]

    def _in_memory(self, level: int) -> ts.TensorStore:
        """The level without voxels, which tells how it is divided."""
        spec = {**self._spec(level), "kvstore": {"driver": "memory"}}
        return ts.open(spec, context=ts.Context(), create=True).result()

    def _info(self) -> dict[str, Any]:
        """The `info` of all levels, as TensorStore writes it."""
        memory = ts.Context()
        for level in range(len(self.factors)):
            spec = {**self._spec(level), "kvstore": {"driver": "memory"}}
            ts.open(spec, context=memory, create=True).result()
        store = ts.KvStore.open({"driver": "memory"}, context=memory).result()
        info: dict[str, Any] = json.loads(store.read("info").result().value)
        return info


@dataclass(frozen=True)
class ExportedLevel:
    """An open level of an exported image, axes (z, y, x) or (k, z, y, x), from voxel 0."""

    view: ts.TensorStore
    location: Location

    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box.

        Raises:
            StorageUnavailable, UserError: they cannot be read.
        """
        z, y, x = box.slices
        data: np.ndarray = wait(self.view[..., z, y, x].read(), self.location, DATA_WAIT, "read")
        return data

    def write(self, box: Box, data: np.ndarray) -> None:
        """Store a block in one step per file.

        Raises:
            StorageUnavailable, UserError: it cannot be written.
        """
        z, y, x = box.slices
        transaction = ts.Transaction()
        part = self.view.with_transaction(transaction)[..., z, y, x]
        wait(part.write(np.ascontiguousarray(data)), self.location, DATA_WAIT, "written")
        wait(transaction.commit_async(), self.location, DATA_WAIT, "written")


def _says(stored: Any, wanted: Any) -> bool:
    """Whether a JSON document says what is wanted, whatever else it says."""
    if isinstance(wanted, dict):
        return isinstance(stored, dict) and all(_says(stored.get(key), value) for key, value in wanted.items())
    return bool(stored == wanted)
