"""Small arrays in every format, written as other programs write them."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
import zarr

ZARR_2: dict[str, Any] = {} if zarr.__version__.startswith("2.") else {"zarr_format": 2}
"""What zarr-python is to be told that it writes zarr 2: from its version 3 on, it writes zarr 3 otherwise."""

SHAPE = (12, 40, 44)
"""z, y, x; no multiple of any chunk."""


def raw_voxels(shape: Sequence[int] = SHAPE, dtype: str = "uint8") -> np.ndarray:
    """Voxels that are all over the range of uint8, always the same."""
    return np.random.default_rng(0).integers(0, 255, tuple(shape)).astype(dtype)


def write_zarr(path: Path, data: np.ndarray, attributes: Mapping[str, Any] | None = None, **options: Any) -> None:
    """A zarr 2 array; groups above it are made."""
    chunks = options.pop("chunks", (1,) * (data.ndim - 3) + (8, 16, 16))
    array = zarr.open_array(str(path), mode="w", shape=data.shape, dtype=data.dtype, chunks=chunks, **ZARR_2, **options)
    array[:] = data
    array.attrs.update(attributes or {})


def write_group(path: Path, attributes: Mapping[str, Any]) -> None:
    """A zarr 2 group with attributes."""
    zarr.open_group(str(path), mode="a", **ZARR_2).attrs.update(attributes)


def write_zarr3(
    path: Path,
    data: np.ndarray,
    attributes: Mapping[str, Any] | None = None,
    shard: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
) -> None:
    """A zarr 3 array of chunks of 8, 16, 16 voxels, in shards if any are given."""
    chunk = [*(1,) * (data.ndim - 3), 8, 16, 16]
    codecs: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "gzip"}]
    if shard:
        codecs = [{"name": "sharding_indexed", "configuration": {"chunk_shape": chunk, "codecs": codecs}}]
    metadata = {
        "shape": list(data.shape),
        "data_type": data.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shard or chunk)}},
        "codecs": codecs,
        "attributes": dict(attributes or {}),
    }
    if names:
        metadata["dimension_names"] = list(names)
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}, "metadata": metadata}
    ts.open(spec, create=True).result().write(data).result()


def write_n5(
    folder: Path, data: np.ndarray, attributes: Mapping[str, Any] | None = None, compression: Any = None
) -> None:
    """An N5 array as n5-java writes it: blocks with a header, big-endian, x first, cropped at the edges.

    Groups above it get no attributes, as in Java.
    """
    block = (*(1,) * (data.ndim - 3), 8, 16, 16)
    folder.mkdir(parents=True)
    document = {
        "dimensions": list(data.shape[::-1]),
        "blockSize": list(block[::-1]),
        "dataType": data.dtype.name,
        "compression": compression or {"type": "gzip", "level": -1, "useZlib": False},
        **(attributes or {}),
    }
    (folder / "attributes.json").write_text(json.dumps(document))
    for position in np.ndindex(*(-(-extent // size) for extent, size in zip(data.shape, block, strict=True))):
        part = data[tuple(slice(i * size, (i + 1) * size) for i, size in zip(position, block, strict=True))]
        file = folder.joinpath(*map(str, position[::-1]))
        file.parent.mkdir(parents=True, exist_ok=True)
        header = struct.pack(f">HH{data.ndim}I", 0, data.ndim, *part.shape[::-1])
        file.write_bytes(header + gzip.compress(part.astype(part.dtype.newbyteorder(">")).tobytes()))


def write_precomputed(
    path: Path,
    data: np.ndarray,
    resolution: Sequence[float] = (4, 6, 40),
    voxel_offset: Sequence[int] = (0, 0, 0),
    encoding: str = "raw",
    sharded: bool = False,
) -> None:
    """A level of a precomputed volume of (z, y, x) voxels; vectors are x, y, z."""
    scale: dict[str, Any] = {
        "size": list(data.shape[::-1]),
        "encoding": encoding,
        "chunk_size": [16, 16, 8],
        "resolution": list(resolution),
        "voxel_offset": list(voxel_offset),
    }
    if sharded:
        scale["sharding"] = {
            "@type": "neuroglancer_uint64_sharded_v1",
            "preshift_bits": 1,
            "hash": "identity",
            "minishard_bits": 1,
            "shard_bits": 1,
        }
    kind = "segmentation" if data.dtype.itemsize > 2 else "image"
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": str(path)},
        "multiscale_metadata": {"type": kind, "data_type": data.dtype.name, "num_channels": 1},
        "scale_metadata": scale,
    }
    store = ts.open(spec, create=True).result()
    store[ts.d["channel"][0]].write(data.T).result()


def ngff(
    levels: Mapping[str, Sequence[Mapping[str, Any]]],
    axes: str = "zyx",
    unit: str | None = "micrometer",
    whole: Sequence[Mapping[str, Any]] | None = None,
    version: str = "0.4",
) -> dict[str, Any]:
    """Attributes of a group that is an OME-NGFF pyramid: transformations of each level, and of all."""
    kinds = {"c": "channel", "t": "time"}
    named = [
        {"name": axis, "type": kinds.get(axis, "space"), **({"unit": unit} if unit and axis in "zyx" else {})}
        for axis in axes
    ]
    multiscale: dict[str, Any] = {
        "axes": named,
        "datasets": [{"path": path, "coordinateTransformations": list(told)} for path, told in levels.items()],
    }
    if whole is not None:
        multiscale["coordinateTransformations"] = list(whole)
    if version == "0.5":
        return {"ome": {"version": "0.5", "multiscales": [multiscale]}}
    return {"multiscales": [{"version": version, **multiscale}]}


def scale(*values: float) -> dict[str, Any]:
    """A scale of an OME-NGFF level."""
    return {"type": "scale", "scale": list(values)}


def translation(*values: float) -> dict[str, Any]:
    """A translation of an OME-NGFF level."""
    return {"type": "translation", "translation": list(values)}


def write_ngff(path: Path, data: np.ndarray, *place: dict[str, Any]) -> None:
    """An image of OME-NGFF in nanometres."""
    write_group(path, ngff({"0": place}, unit="nanometer"))
    write_zarr(path / "0", data)
