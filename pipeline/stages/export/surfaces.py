"""Surfaces of segments, piece by piece: marching cubes in every block, and one closed mesh of what the blocks give.

A cube of marching cubes has its corners in the centres of 2 x 2 x 2 voxels. Each cube belongs to the block of its
lowest voxel, so that a block needs one voxel more on its high sides, and the pieces of all blocks are the surface in
the whole volume, no triangle twice. Vertices lie half-way between two voxels: counted in half voxels they are whole
numbers, the same in each block that has them, so that pieces are joined exactly. Outside the region there is nothing,
which closes every surface.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...errors import UserError
from ...run import replaced_file
from ...volumes import Box

INSTALL = 'pip install "emdistill[export]"'


class Surface(NamedTuple):
    """Triangles.

    Attributes:
        vertices: (N, 3), order x, y, z.
        faces: (F, 3) whole numbers, indices of vertices; counter-clockwise as seen from outside.
    """

    vertices: np.ndarray
    faces: np.ndarray


def require_mesh_libraries() -> None:
    """Make sure that what makes and packs meshes is installed.

    Raises:
        UserError: it is not.
    """
    try:
        import DracoPy  # noqa: F401
        import zmesh  # noqa: F401
    except ImportError as error:
        raise UserError(f"meshes need zmesh and DracoPy: {INSTALL} ({error})", "--meshes") from None


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


@dataclass(frozen=True)
class PieceFile:
    """The surfaces of a block in a file: a header of whole numbers, then vertices and faces, read where needed."""

    path: Path

    def write(self, pieces: dict[int, Surface]) -> np.ndarray:
        """Store pieces in one step; what the file holds, for a checksum.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        ids = sorted(pieces)
        vertices = np.cumsum([0, *(len(pieces[i].vertices) for i in ids)])
        faces = np.cumsum([0, *(len(pieces[i].faces) for i in ids)])
        header = np.array([len(ids), *ids, *vertices, *faces], np.int64)
        parts = [np.ascontiguousarray(pieces[i].vertices, np.int32).tobytes() for i in ids]
        parts += [np.ascontiguousarray(pieces[i].faces, np.uint32).tobytes() for i in ids]
        content = header.tobytes() + b"".join(parts)
        with replaced_file(self.path) as file:
            file.write(content)
        return np.frombuffer(content, np.uint8)

    def open(self) -> OpenPieces:
        """The file, mapped into memory.

        Raises:
            UserError: it is gone or damaged.
        """
        try:
            content = np.memmap(self.path, np.uint8, "r")
        except (OSError, ValueError) as error:
            raise UserError(
                f"cannot be read ({error}); run the same command with --overwrite", str(self.path)
            ) from error
        count = int(content[:8].view(np.int64)[0])
        header = content[8 : 8 * (3 + 3 * count)].view(np.int64)
        ids, vertices, faces = header[:count], header[count : 2 * count + 1], header[2 * count + 1 :]
        return OpenPieces(content, ids.astype(np.uint64), vertices, faces)


@dataclass(frozen=True)
class OpenPieces:
    """An open `PieceFile`.

    Attributes:
        content: the whole file.
        ids: (n,) uint64, ascending.
        vertices, faces: (n + 1,) where those of each segment begin.
    """

    content: np.ndarray
    ids: np.ndarray
    vertices: np.ndarray
    faces: np.ndarray

    def get(self, segment: int) -> Surface | None:
        """The piece of a segment; None if the block has none."""
        place = int(np.searchsorted(self.ids, np.uint64(segment)))
        if place == len(self.ids) or int(self.ids[place]) != segment:
            return None
        start = 8 * (3 + 3 * len(self.ids))
        middle = start + 12 * int(self.vertices[-1])
        vertices = self._numbers(start, self.vertices[place : place + 2], np.int32)
        return Surface(vertices, self._numbers(middle, self.faces[place : place + 2], np.uint32))

    def _numbers(self, start: int, span: np.ndarray, dtype: type) -> np.ndarray:
        begin, end = (start + 12 * int(place) for place in span)
        return np.array(self.content[begin:end]).view(dtype).reshape(-1, 3)
