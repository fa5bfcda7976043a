"""Neuroglancer's precomputed skeletons: a folder with `info`, and a file per segment or shards of many."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorstore as ts

from ..errors import UserError
from ..small_files import understanding
from ..volumes.locations import Location
from ..volumes.storage import DATA_WAIT, context, kvstore_spec, list_keys, open_store, read_files, wait
from .skeletons import Skeletons

KIND = "neuroglancer_skeletons"
HEADER = 8
"""Bytes before the vertices: numbers of vertices and of edges."""


def is_precomputed(location: Location) -> bool:
    """Whether a folder holds precomputed skeletons, or a precomputed segmentation."""
    return bool(read_files(location, ["info"]))


def read_precomputed(location: Location) -> Skeletons:
    """All skeletons of a folder, one per segment, in the order of ids.

    Args:
        location: of the skeletons, or of the segmentation whose `info` says where they are.

    Raises:
        StorageUnavailable: the server does not answer.
        UserError: there are none, or a file is not what it should be.
    """
    info = _info(location)
    if info.get("@type") != KIND:
        place = info.get("skeletons")
        if not isinstance(place, str):
            raise UserError(f"info is not that of skeletons (@type {KIND}), and names none", location.name)
        location = location.child(place)
        info = _info(location)
    if location.scheme in ("http", "https"):
        raise UserError("a web server cannot list its skeletons; give a folder or a bucket", location.name)
    with understanding(f"{location.name}/info"):
        transform = np.array(info.get("transform", np.eye(3, 4).ravel()), np.float64).reshape(3, 4)
    sharding = info.get("sharding")
    files = _files(location) if sharding is None else _shards(location, sharding)
    parts = []
    for segment in sorted(files):
        with understanding(f"{location.name}, skeleton {segment}"):
            parts.append(_decoded(str(segment), files[segment], transform))
    return Skeletons.joined(parts)


def _info(location: Location) -> Mapping[str, Any]:
    found = read_files(location, ["info"])
    if not found:
        raise UserError("there is no file `info`; expected a folder of precomputed skeletons", location.name)
    with understanding(f"{location.name}/info"):
        info = json.loads(found["info"])
        if not isinstance(info, dict):
            raise ValueError("it is no JSON object")
    return info


def _files(location: Location) -> dict[int, bytes]:
    """Skeletons by segment, of a folder with a file for each."""
    names = [name for name in list_keys(location) if name.isdecimal()]
    return {int(name): content for name, content in read_files(location, names).items()} if names else {}


def _shards(location: Location, sharding: Mapping[str, Any]) -> dict[int, bytes]:
    """Skeletons by segment, of shards."""
    base = kvstore_spec(location)
    spec = {"driver": "neuroglancer_uint64_sharded", "metadata": sharding, "base": base}
    open_store(location)  # tells what is wrong with the place itself
    with understanding(f"{location.name}/info"):
        opening = ts.KvStore.open(spec, context=context())
    store = wait(opening, location, DATA_WAIT, "opened")
    keys = wait(store.list(), location, DATA_WAIT, "listed")
    reading = [store.read(key) for key in keys]
    found = [wait(future, location, DATA_WAIT, "read") for future in reading]
    return {int.from_bytes(key, "big"): bytes(result.value) for key, result in zip(keys, found, strict=True)}


def _decoded(name: str, content: bytes, transform: np.ndarray) -> Skeletons:
    """A skeleton in nanometres, z, y, x."""
    count, edges = np.frombuffer(content, "<u4", 2).tolist()
    vertices = np.frombuffer(content, "<f4", 3 * count, HEADER).reshape(-1, 3).astype(np.float64)
    pairs = np.frombuffer(content, "<u4", 2 * edges, HEADER + 12 * count).reshape(-1, 2).astype(np.int64)
    if pairs.max(initial=-1) >= count:
        raise ValueError("an edge names a vertex that is not there")
    positions = vertices @ transform[:, :3].T + transform[:, 3]
    return Skeletons.of((name,), np.zeros(count), positions[:, ::-1], pairs)
