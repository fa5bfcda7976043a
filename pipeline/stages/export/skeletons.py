"""Skeletons of all segments above a size: TEASAR in every block, joined at points that neighbours have in common.

Sato, Bitter, Bender, Kaufman and Nakajima, "TEASAR: tree-structure extraction algorithm for accurate and robust
skeletons", 2000. A block has one voxel more on its high sides, where it shares a plane with the next block. Both find
the same points in it, one in each patch of a segment, and lead their skeletons there. `centre_lines.py` makes one of
all.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from typing_extensions import override

from ...engine.blocks.grid import Block
from ...volumes import Box
from ...volumes.locations import Location
from .centre_lines import Skeleton, whole_skeleton
from .piece_files import Piece
from .pieces import PiecesTask
from .segments import SegmentedVolume
from .wholes import Packed, WholesTask

SCALE = 1.0
"""In a block, a branch makes others needless within SCALE times its distance from the surface and no farther: what is
near a face may be a tip, which only the whole skeleton tells."""
SWC_FOLDER = "swc"


def skeleton_pieces(
    segments: np.ndarray, begin: Sequence[int], open_faces: list[tuple[int, str]], voxel_size: Sequence[float]
) -> dict[int, Skeleton]:
    """The skeletons in a block.

    Args:
        segments: (z, y, x) uint64 of the block, with one voxel more on its high sides where the volume goes on.
        begin: position of the first voxel, z, y, x.
        open_faces: axes and `low` or `high`: faces where the volume goes on.
        voxel_size: nanometres.

    Returns:
        By id; vertices int64, positions of voxels.
    """
    from bioimage_cpp.skeleton import distributed  # an extra

    segments, spacing = np.ascontiguousarray(segments), tuple(map(float, voxel_size))
    place: dict[str, Any] = {"origin": tuple(map(int, begin)), "spacing": spacing}
    targets = distributed.block_border_targets_labels(segments, open_faces, **place) if open_faces else None
    found = distributed.block_teasar_labels(
        segments, open_faces=open_faces, required_targets=targets, scale=SCALE, constant=0.0, **place
    )
    return {int(segment): Skeleton(*parts) for segment, parts in found.items()}


def encoded(skeleton: Skeleton) -> bytes:
    """A skeleton as neuroglancer reads it; vertices in nanometres."""
    vertices = np.ascontiguousarray(skeleton.vertices[:, ::-1], "<f4")
    edges, radii = np.ascontiguousarray(skeleton.edges, "<u4"), np.ascontiguousarray(skeleton.radii, "<f4")
    return struct.pack("<II", len(vertices), len(edges)) + vertices.tobytes() + edges.tobytes() + radii.tobytes()


def swc(skeleton: Skeleton, about: str) -> str:
    """A skeleton as SWC: a row per vertex with number, type (0), x, y, z, radius, and number of its parent (-1: none).

    Args:
        skeleton: vertices in nanometres.
        about: a line of comment.
    """
    order, parents = _from_the_roots(skeleton)
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(1, len(order) + 1)
    lines = [f"# {about}", "# nanometres"]
    for vertex in order.tolist():
        z, y, x = skeleton.vertices[vertex]
        parent = int(number[parents[vertex]]) if parents[vertex] >= 0 else -1
        lines.append(f"{number[vertex]} 0 {x:.10g} {y:.10g} {z:.10g} {skeleton.radii[vertex]:.6g} {parent}")
    return "\n".join(lines) + "\n"


def _from_the_roots(skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """Vertices so that parents come before children, and the parent of each; -1 of a root, the first of its tree."""
    count = len(skeleton.vertices)
    neighbours: list[list[int]] = [[] for _ in range(count)]
    for a, b in skeleton.edges.tolist():
        neighbours[a].append(b)
        neighbours[b].append(a)
    parents, order, seen = np.full(count, -1, np.int64), [], np.zeros(count, bool)
    for root in range(count):
        waiting = [] if seen[root] else [root]
        seen[root] = True
        while waiting:
            vertex = waiting.pop()
            order.append(vertex)
            for other in sorted(neighbours[vertex], reverse=True):
                if not seen[other]:
                    seen[other], parents[other] = True, vertex
                    waiting.append(other)
    return np.array(order, np.int64), parents


@dataclass(frozen=True)
class SkeletonPieces(PiecesTask):
    """The skeletons of segments in every block."""

    stage = "skeleton_pieces"
    version = 2
    together = "skeleton pieces"
    libraries = ("bioimage_cpp",)
    widths = (4, 2)

    @override
    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "voxel_size": list(self.grid.voxel_size)}

    @override
    def pieces_of(self, volume: SegmentedVolume, block: Block) -> dict[int, Piece]:
        box, open_faces = with_next_planes(block.box, self.grid.box)
        segments = volume.read(box)
        found = skeleton_pieces(segments, box.begin, open_faces, self.grid.voxel_size) if segments.any() else {}
        return {segment: _as_piece(skeleton) for segment, skeleton in found.items()}


def with_next_planes(box: Box, whole: Box) -> tuple[Box, list[tuple[int, str]]]:
    """A block with the planes that it shares with the next ones, and its faces where the volume goes on."""
    open_faces = [(axis, "low") for axis in range(3) if box.begin[axis] > whole.begin[axis]]
    open_faces += [(axis, "high") for axis in range(3) if box.end[axis] < whole.end[axis]]
    return box.grow((0, 0, 0), (1, 1, 1)).intersect(whole), open_faces


def _as_piece(skeleton: Skeleton) -> Piece:
    radii = np.ascontiguousarray(skeleton.radii, np.float32).view(np.int32)
    return Piece(np.column_stack([skeleton.vertices.astype(np.int32), radii]), skeleton.edges.astype(np.int32))


def _as_skeleton(piece: Piece) -> Skeleton:
    radii = np.ascontiguousarray(piece.points[:, 3]).view(np.float32)
    return Skeleton(piece.points[:, :3].astype(np.int64), piece.links.astype(np.uint64), radii)


@dataclass(frozen=True)
class SkeletonShards(WholesTask):
    """The skeletons in neuroglancer's format, and each as SWC."""

    stage = "skeleton_shards"
    version = 2
    together = "skeleton shards"
    place = "skeletons"
    own_folders = (SWC_FOLDER,)
    pieces_class = SkeletonPieces

    @override
    def info(self) -> dict[str, Any]:
        z, y, x = (move or 0 for move in self.moved)  # 0 as the whole number that it is
        return {
            "@type": "neuroglancer_skeletons",
            "transform": [1, 0, 0, x, 0, 1, 0, y, 0, 0, 1, z],
            "vertex_attributes": [{"id": "radius", "data_type": "float32", "num_components": 1}],
        }

    @override
    def packed(self, segment: int, pieces: Iterator[Piece]) -> Packed:
        grid = self.pieces.grid
        skeleton = whole_skeleton([_as_skeleton(piece) for piece in pieces], grid.voxel_size)
        centres = (skeleton.vertices + 0.5) * np.array(grid.voxel_size) + np.array(grid.offset)
        skeleton = skeleton._replace(vertices=centres.astype(np.float32))  # in both formats the same numbers
        return Packed(b"", encoded(skeleton), swc(skeleton, f"segment {segment}").encode())

    @override
    def own_file(self, segment: int) -> tuple[Location, str]:
        return Location.of(self.to).child("segmentation").child(SWC_FOLDER), f"{segment}.swc"
