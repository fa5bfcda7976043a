"""Surfaces of segments, piece by piece: marching cubes in every block, and one closed mesh of what the blocks give.

A cube of marching cubes has its corners in the centres of 2 x 2 x 2 voxels. Each cube belongs to the block of its
lowest voxel, so that a block needs one voxel more on its high sides, and the pieces of all blocks are the surface in
the whole volume, no triangle twice. Vertices lie half-way between two voxels: counted in half voxels they are whole
numbers, the same in each block that has them, so that pieces are joined exactly. Outside the region there is nothing,
which closes every surface.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ...volumes import Box


class Surface(NamedTuple):
    """Triangles.

    Attributes:
        vertices: (N, 3), order x, y, z.
        faces: (F, 3) whole numbers, indices of vertices; counter-clockwise as seen from outside.
    """

    vertices: np.ndarray
    faces: np.ndarray


def cubes_of(box: Box, whole: Box) -> Box:
    """The voxels that the marching cubes of a block need: one more on its high sides, and one on its low sides where
    the volume begins; they may lie outside.
    """
    low = [int(begin == first) for begin, first in zip(box.begin, whole.begin, strict=True)]
    return box.grow(low, (1, 1, 1))


def surfaces(segments: np.ndarray, begin: Iterable[int]) -> dict[int, Surface]:
    """The surfaces of all segments between the centres of the outermost voxels, where they stay open.

    Args:
        segments: (z, y, x) uint64; 0 is none.
        begin: position of the first voxel, z, y, x.

    Returns:
        By id; vertices int32 in half voxels, where voxel (0, 0, 0) reaches from 0 to 2 along each axis.
    """
    import zmesh  # an extra; slow to import

    mesher = zmesh.Mesher((1, 1, 1))
    mesher.mesh(np.asfortranarray(segments.T), close=False)
    shift = 2 * np.array([*begin], np.int64)[::-1]
    found = {}
    for segment in sorted(mesher.ids()):
        mesh = mesher.get(segment, normals=False, reduction_factor=0, voxel_centered=True)
        vertices = (np.rint(2 * mesh.vertices).astype(np.int64) + shift).astype(np.int32)
        found[int(segment)] = Surface(vertices, np.asarray(mesh.faces, np.uint32))
        mesher.erase(segment)
    return found


def joined(pieces: Iterable[Surface]) -> Surface:
    """One surface of pieces whose common vertices are the same whole numbers."""
    pieces = list(pieces)
    counts = np.cumsum([0, *(len(piece.vertices) for piece in pieces)])
    vertices = np.concatenate([piece.vertices for piece in pieces])
    faces = np.concatenate([piece.faces.astype(np.int64) + n for piece, n in zip(pieces, counts[:-1], strict=True)])
    return welded(vertices, faces)


def welded(vertices: np.ndarray, faces: np.ndarray) -> Surface:
    """The surface with every vertex once, and without triangles that have no area.

    Args:
        vertices: (N, 3) whole numbers.
        faces: (F, 3) indices.
    """
    unique, place = np.unique(vertices, axis=0, return_inverse=True)
    faces = place.reshape(-1)[faces]
    flat = (faces[:, 0] == faces[:, 1]) | (faces[:, 1] == faces[:, 2]) | (faces[:, 2] == faces[:, 0])
    return Surface(unique, faces[~flat])
