"""Meshes of all segments above a size: the surfaces in every block, then whole meshes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from typing_extensions import override

from ...engine.blocks.grid import Block
from .multiresolution import mesh_info, packed_mesh
from .piece_files import Piece
from .pieces import PiecesTask
from .segments import SegmentedVolume
from .surfaces import Surface, cubes_of, joined, surfaces
from .wholes import Packed, WholesTask


@dataclass(frozen=True)
class MeshPieces(PiecesTask):
    """The surfaces of segments in every block."""

    stage = "mesh_pieces"
    version = 2
    together = "mesh pieces"
    libraries = ("zmesh", "DracoPy")
    widths = (3, 3)

    @override
    def pieces_of(self, volume: SegmentedVolume, block: Block) -> dict[int, Piece]:
        around = cubes_of(block.box, self.grid.box)
        inside = around.intersect(self.grid.box)
        segments = np.zeros(around.shape, np.uint64)
        segments[inside.relative_to(around).slices] = volume.read(inside)
        found = surfaces(segments, around.begin) if segments.any() else {}
        return {segment: Piece(surface.vertices, surface.faces) for segment, surface in found.items()}


@dataclass(frozen=True)
class MeshShards(WholesTask):
    """The meshes with levels of detail, in neuroglancer's format."""

    stage = "mesh_shards"
    version = 1
    together = "mesh shards"
    place = "mesh"
    pieces_class = MeshPieces

    @override
    def info(self) -> dict[str, Any]:
        grid = self.pieces.grid
        return mesh_info(grid.voxel_size, [o + d for o, d in zip(grid.offset, self.moved, strict=True)])

    @override
    def packed(self, segment: int, pieces: Iterator[Piece]) -> Packed:
        mesh = packed_mesh(joined(Surface(piece.points, piece.links) for piece in pieces))
        return Packed(mesh.fragments, mesh.manifest)
