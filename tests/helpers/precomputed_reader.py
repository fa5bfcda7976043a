"""Reads neuroglancer's meshes with TensorStore and Draco, as the format says; shares no code with what writes them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import DracoPy
import numpy as np
import tensorstore as ts

Mesh = tuple[np.ndarray, np.ndarray]
"""Vertices (N, 3) in nanometres, order x, y, z; faces (F, 3)."""


def manifest_of(folder: Path, segment: int) -> bytes | None:
    """The manifest of a segment, found by TensorStore."""
    info = json.loads((folder / "info").read_text())
    base = {"driver": "file", "path": f"{folder}/"}
    spec = {"driver": "neuroglancer_uint64_sharded", "metadata": info["sharding"], "base": base}
    found = ts.KvStore.open(spec).result().read(segment.to_bytes(8, "big")).result()
    return bytes(found.value) if found.state == "value" else None


def read_mesh(folder: Path, segment: int, level: int = 0) -> Mesh:
    """A level of detail of a mesh, its fragments joined."""
    info = json.loads((folder / "info").read_text())
    manifest = manifest_of(folder, segment)
    assert manifest is not None, segment
    file = next(path for path in folder.glob("*.shard") if manifest in path.read_bytes())
    content = file.read_bytes()
    return decoded(info, manifest, content[: content.index(manifest)], level)


def decoded(info: dict[str, object], manifest: bytes, before: bytes, level: int = 0) -> Mesh:
    """A level of detail, from the manifest and what lies before it."""
    cell = np.array(struct.unpack_from("<3f", manifest, 0))
    origin = np.array(struct.unpack_from("<3f", manifest, 12))
    (levels,) = struct.unpack_from("<I", manifest, 24)
    place = 28 + 4 * levels
    offsets = np.frombuffer(manifest, "<f4", 3 * levels, place).reshape(levels, 3)
    place += 12 * levels
    counts = np.frombuffer(manifest, "<u4", levels, place).tolist()
    place += 4 * levels
    fragments = []
    for number, count in enumerate(counts):
        positions = np.frombuffer(manifest, "<u4", 3 * count, place).reshape(3, count).T
        sizes = np.frombuffer(manifest, "<u4", count, place + 12 * count).tolist()
        place += 16 * count
        fragments += [(number, position, size) for position, size in zip(positions, sizes, strict=True)]
    assert place == len(manifest)
    data = before[len(before) - sum(size for *_, size in fragments) :]
    steps = 2 ** int(info["vertex_quantization_bits"]) - 1  # type: ignore[call-overload]
    vertices, faces, begin, known = [], [], 0, 0
    for number, position, size in fragments:
        part = DracoPy.decode(data[begin : begin + size])
        begin += size
        if number == level:
            assert part.points.dtype.kind == "u" and part.points.max() <= steps
            inside = position + part.points.astype(np.float64) / steps
            vertices.append(origin + offsets[number] + cell * 2**number * inside)
            faces.append(part.faces.astype(np.int64) + known)
            known += len(part.points)
    stored = np.concatenate(vertices)
    transform = np.array(info["transform"]).reshape(3, 4)
    return stored @ transform[:, :3].T + transform[:, 3], np.concatenate(faces)


def joined(mesh: Mesh, resolution: float) -> Mesh:
    """The mesh with vertices that are nearer than the resolution made one."""
    unique, place = np.unique(np.rint(mesh[0] / resolution), axis=0, return_inverse=True)
    faces = place.reshape(-1)[mesh[1]]
    distinct = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    return unique * resolution, faces[distinct]


def volume_of(mesh: Mesh) -> float:
    """What a closed mesh encloses; positive if its faces look outwards."""
    a, b, c = (mesh[0][mesh[1][:, corner]] for corner in range(3))
    return float(np.einsum("ij,ij->i", np.cross(a, b), c).sum() / 6)


def edges_of(mesh: Mesh) -> np.ndarray:
    """How many faces each edge has."""
    faces = mesh[1]
    pairs = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    counts: np.ndarray = np.unique(pairs, axis=0, return_counts=True)[1]
    return counts


def euler_number(mesh: Mesh) -> int:
    """Vertices - edges + faces: 2 for a ball, 0 for a torus."""
    return len(np.unique(mesh[1])) - len(edges_of(mesh)) + len(mesh[1])
