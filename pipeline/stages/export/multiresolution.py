"""neuroglancer's multi-resolution meshes: levels of detail, cut along a grid, quantised and packed with Draco.

Format: https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/meshes.md. Coordinates are voxels
of the segmented region ("stored model"), order x, y, z; `info` has the transform to nanometres.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cutting import Place, cut_into_cells
from .surfaces import Surface, joined

BITS = 16
"""Of a quantised coordinate."""
FINEST = 256
"""Voxels along the longest edge of a mesh that has a single level of detail."""
REDUCTION = 4
"""A level of detail has so many times fewer triangles than the one before."""
FEWEST = 64
"""Triangles that a level keeps at least."""


@dataclass(frozen=True)
class PackedMesh:
    """A mesh as neuroglancer reads it.

    Attributes:
        manifest: where the pieces lie.
        fragments: the pieces, one after another.
    """

    manifest: bytes
    fragments: bytes


def mesh_info(voxel_size: Sequence[float], offset: Sequence[float]) -> dict[str, Any]:
    """The `info` of a folder of meshes, besides how its files are divided.

    Args:
        voxel_size, offset: of the region in nanometres, order z, y, x.
    """
    transform = np.zeros((3, 4))
    transform[:, :3] = np.diag(voxel_size[::-1])
    transform[:, 3] = offset[::-1]
    return {
        "@type": "neuroglancer_multilod_draco",
        "vertex_quantization_bits": BITS,
        "lod_scale_multiplier": 1.0,  # levels of detail are scaled in voxels, as the coordinates
        "transform": transform.ravel().tolist(),
    }


def packed_mesh(surface: Surface) -> PackedMesh:
    """A mesh with all its levels of detail; the finest is the surface itself.

    Args:
        surface: vertices (N, 3) in half voxels, closed.
    """
    vertices = surface.vertices / 2
    origin = np.floor(vertices.min(axis=0))
    extent = np.maximum(np.ceil(vertices.max(axis=0)) - origin, 1)
    levels = 1 + max(0, int(np.ceil(np.log2(extent.max() / FINEST))))
    cell = np.ceil(extent / 2 ** (levels - 1))
    parts: list[list[tuple[Place, bytes]]] = []
    detail = Surface(vertices - origin, surface.faces)
    for level in range(levels):
        detail = detail if level == 0 else simplified(detail)
        parts.append(_cells(detail, cell, level))
    manifest = struct.pack("<3f3fI", *cell, *origin, levels)
    manifest += np.array([2.0**level for level in range(levels)], "<f4").tobytes()
    manifest += np.zeros((levels, 3), "<f4").tobytes()
    manifest += np.array([len(cells) for cells in parts], "<u4").tobytes()
    for cells in parts:
        manifest += np.array([place for place, _ in cells], "<u4").reshape(-1, 3).T.tobytes()
        manifest += np.array([len(data) for _, data in cells], "<u4").tobytes()
    return PackedMesh(manifest, b"".join(data for cells in parts for _, data in cells))


def simplified(surface: Surface) -> Surface:
    """A mesh of a fraction of the triangles, by quadric error."""
    import zmesh

    target = max(FEWEST, len(surface.faces) // REDUCTION)
    if len(surface.faces) <= target:
        return surface
    mesh = zmesh.Mesh(surface.vertices.astype(np.float32), surface.faces.astype(np.uint32), None)
    coarse = zmesh.simplify_fqmr(mesh, target_count=target)
    return Surface(np.asarray(coarse.vertices, np.float64), np.asarray(coarse.faces, np.int64))


def _cells(surface: Surface, cell: np.ndarray, level: int) -> list[tuple[Place, bytes]]:
    """The pieces of a level of detail in the cells of its grid, in Z-curve order, packed.

    No triangle crosses a cell of the finer level, too, as the format wants it.

    Args:
        surface: vertices in voxels from the grid's origin.
        cell: edges of the finest level's cells.
        level: of detail.
    """
    import DracoPy

    steps, half = 2**BITS - 1, int(level > 0)
    in_cells: dict[Place, list[Surface]] = {}
    for (x, y, z), piece in cut_into_cells(surface, cell * 2 ** (level - half)):
        in_cells.setdefault((x >> half, y >> half, z >> half), []).append(piece)
    found = []
    for place in sorted(in_cells, key=_z_curve):
        # on one grid for all cells, so that a vertex between two of them is the same in both
        scale, first = steps / (cell * 2**level), np.array(place) * steps
        whole = [Surface(np.rint(p.vertices * scale).astype(np.int64) - first, p.faces) for p in in_cells[place]]
        piece = joined(Surface(np.clip(w.vertices, 0, steps), w.faces) for w in whole)
        if len(piece.faces):
            data = DracoPy.encode(piece.vertices.astype(np.uint32), piece.faces.astype(np.uint32), compression_level=7)
            found.append((place, bytes(data)))
    return found


def _z_curve(place: Place) -> int:
    """The place of a cell along the Z-curve."""
    return sum((place[axis] >> bit & 1) << (3 * bit + axis) for bit in range(21) for axis in range(3))
