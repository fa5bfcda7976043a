"""Arrays of chunks of any program, read through TensorStore; and how we compress and check the chunks of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorstore as ts

from ..errors import UserError
from .axes import AxisChoice
from .boxes import Box
from .codecs import refuse_codecs_of_objects
from .formats import Node
from .locations import Location
from .storage import DATA_WAIT, METADATA_WAIT, context, kvstore_spec, open_store, wait
from .storage_errors import raise_explained

DRIVERS = {"zarr2": "zarr", "zarr3": "zarr3", "n5": "n5", "precomputed": "neuroglancer_precomputed"}
SAFE_ZSTD = {"id", "type", "level"}
"""Options of the zstd codec that TensorStore knows; others do not matter for reading."""
CHUNK_EDGE = 64
"""Voxels along the edge of a chunk in a shard, about."""


@dataclass(frozen=True)
class TensorArray:
    """An array of chunks that is open, its axes in the order z, y, x, counted from 0.

    Attributes:
        view: (z, y, x) or (k, z, y, x).
        location: for messages.
    """

    view: ts.TensorStore
    location: Location

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of all axes."""
        return tuple(self.view.shape)

    @property
    def dtype(self) -> np.dtype:
        """Type of the voxels, in the byte order of this machine."""
        return np.dtype(self.view.dtype.numpy_dtype)

    @property
    def fill_value(self) -> float:
        """What voxels are that no file holds."""
        stored = self.view.fill_value
        return 0 if stored is None else stored.item()

    @property
    def chunks(self) -> tuple[int, int, int]:
        """Voxels along z, y, x that can only be decoded together."""
        return self._extents(self.view.chunk_layout.read_chunk.shape)

    @property
    def shards(self) -> tuple[int, int, int]:
        """Voxels along z, y, x that can only be written together."""
        return self._extents(self.view.chunk_layout.write_chunk.shape)

    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box inside; chunks that are not there are the fill value, 0 where none is given.

        Raises:
            StorageUnavailable: the server does not answer.
            UserError: a chunk is damaged, or access is denied.
        """
        found = self._part(box).read()
        data: np.ndarray = wait(found, self.location, DATA_WAIT, "read")
        return data

    def _part(self, box: Box) -> ts.TensorStore:
        z, y, x = box.slices
        return self.view[..., z, y, x]

    def _extents(self, sizes: Sequence[int | None] | None) -> tuple[int, int, int]:
        z, y, x = (
            int(size or extent) for size, extent in zip((sizes or [None] * 3)[-3:], self.shape[-3:], strict=True)
        )
        return z, y, x


def open_tensor(node: Node, choice: AxisChoice, scale: int | None = None) -> TensorArray:
    """Open an array.

    Args:
        node: an array of zarr, N5 or precomputed.
        choice: how its axes are read.
        scale: the number of the level of a precomputed volume.

    Raises:
        StorageUnavailable: the server does not answer.
        UserError: its type or codec cannot be read, or access is denied.
    """
    refuse_objects(node)
    spec: dict[str, Any] = {"driver": DRIVERS[node.format], "kvstore": _kvstore(node)}
    if scale is not None:
        spec["scale_index"] = scale
    try:
        opening = ts.open(spec, context=context(), open=True, read=True)
    except ValueError as error:
        raise_explained(error, node.location, "opened")
    opened = wait(opening, node.location, METADATA_WAIT, "opened")
    return TensorArray(_in_order(opened, choice, node.format in ("n5", "precomputed")), node.location)


def read_whole(node: Node) -> np.ndarray:
    """A small array of any number of axes, a table for example, in C order.

    Raises:
        StorageUnavailable: the server does not answer.
        UserError: it cannot be read.
    """
    refuse_objects(node)
    spec = {"driver": DRIVERS[node.format], "kvstore": _kvstore(node)}
    try:
        opening = ts.open(spec, context=context(), open=True, read=True)
    except ValueError as error:
        raise_explained(error, node.location, "opened")
    opened = wait(opening, node.location, METADATA_WAIT, "opened")
    data: np.ndarray = wait(opened.read(), node.location, DATA_WAIT, "read")
    return data.T if node.format in ("n5", "precomputed") else data


def refuse_objects(node: Node) -> None:
    """Refuse arrays whose values are no numbers: decoding Python objects may run anybody's code.

    Raises:
        UserError: the array holds objects, text, records or label multisets, or is stored as objects.
    """
    dtype = node.metadata.get({"zarr2": "dtype", "zarr3": "data_type", "n5": "dataType"}.get(node.format, "data_type"))
    is_object = isinstance(dtype, str) and (dtype.lstrip("|<>=")[:1] in "OSUVM" or dtype in ("object", "string"))
    if is_object or isinstance(dtype, list | dict):
        raise UserError(f"its type is {dtype!r}; a volume holds numbers (Python objects are never decoded)", node.name)
    if node.attributes.get("isLabelMultiset"):
        raise UserError("holds label multisets, several labels a voxel; export it as plain labels", node.name)
    refuse_codecs_of_objects(node.metadata, node.name)


def write_group(location: Location, attributes: Mapping[str, Any]) -> None:
    """Write a zarr 3 group with attributes, or replace those of one that exists.

    Raises:
        StorageUnavailable: the server does not answer.
        UserError: the place cannot be written.
    """
    document = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    writing = open_store(location).write("zarr.json", json.dumps(document, indent=2).encode())
    wait(writing, location, METADATA_WAIT, "written")


def chunk_inside(shard: Sequence[int]) -> list[int]:
    """Voxels along z, y, x of the chunks in a shard: about `CHUNK_EDGE`, and a divisor of its extent."""
    return [divisor_near(int(extent), CHUNK_EDGE) for extent in shard]


def divisor_near(extent: int, wanted: int) -> int:
    """The divisor of an extent that is nearest to a wanted one, as a ratio; the smaller of two."""
    divisors = [number for number in range(1, extent + 1) if extent % number == 0]
    return min(divisors, key=lambda number: max(number / wanted, wanted / number))


def compressor_of(dtype: Any) -> dict[str, Any]:
    """How Blosc compresses chunks (`cname`, `clevel`, `shuffle`); chosen on real data with `benchmarks/codecs.py`.

    Bytes of images and affinities hardly repeat, whatever is spent on them. Of ids, most bytes are those of the voxel
    before, which shows once the bytes are sorted by their place in the number (`shuffle` 1).
    """
    if np.dtype(dtype).itemsize == 1:
        return {"cname": "zstd", "clevel": 1, "shuffle": 0}
    return {"cname": "zstd", "clevel": 3, "shuffle": 1}


def zarr3_codecs(dtype: np.dtype, chunk: list[int], shard: list[int]) -> list[dict[str, Any]]:
    """How chunks are compressed and checked, in a shard if they are smaller than it."""
    several = dtype.itemsize > 1
    little = {"name": "bytes", "configuration": {"endian": "little"}} if several else {"name": "bytes"}
    blosc = {**compressor_of(dtype), "typesize": dtype.itemsize, "blocksize": 0}
    blosc["shuffle"] = ("noshuffle", "shuffle")[blosc["shuffle"]]
    inner = [little, {"name": "blosc", "configuration": blosc}, {"name": "crc32c"}]
    if chunk == shard:
        return inner
    index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    sharding = {"chunk_shape": chunk, "codecs": inner, "index_codecs": index, "index_location": "end"}
    return [{"name": "sharding_indexed", "configuration": sharding}]


def _in_order(opened: ts.TensorStore, choice: AxisChoice, reverse: bool) -> ts.TensorStore:
    """A view with the axes (z, y, x) or (k, z, y, x), from voxel 0; an image is one section."""
    if opened.rank < len(choice.axes):
        opened = opened[..., ts.newaxis] if reverse else opened[ts.newaxis]
    last = opened.rank - 1
    place = {axis: last - axis if reverse else axis for axis in range(opened.rank)}
    view, left = opened, list(range(opened.rank))
    for axis, index in choice.fixed.items():
        here = left.index(place[axis])
        view = view[ts.d[here][view.domain[here].inclusive_min + index]]
        left.remove(place[axis])
    wanted = [choice.channels] if choice.channels is not None else []
    order = [left.index(place[axis]) for axis in (*wanted, *choice.order)]
    view = view[ts.d[order].transpose[:]]
    return view[ts.d[:].translate_to[0]]


def _kvstore(node: Node) -> dict[str, Any]:
    """The array's folder; its metadata without options of zstd that TensorStore does not know, if it has any."""
    spec = kvstore_spec(node.location)
    key, file = ("compressor", ".zarray") if node.format == "zarr2" else ("compression", "attributes.json")
    codec = node.metadata.get(key)
    if not isinstance(codec, Mapping) or "zstd" not in (codec.get("id"), codec.get("type")) or set(codec) <= SAFE_ZSTD:
        return spec
    known = {"id", "level"} if node.format == "zarr2" else {"type", "level"}
    document = {**node.metadata, key: {name: value for name, value in codec.items() if name in known}}
    name = f"{node.location.path}/{file}"
    memory = ts.KvStore.open({"driver": "memory"}, context=context()).result()
    memory.write(name, json.dumps(document).encode()).result()
    replaced = {"exact": file, "base": {"driver": "memory", "path": name}}
    return {"driver": "kvstack", "layers": [{"base": spec}, replaced]}
