"""Stage 04, first part: fragments to the region adjacency graph. Every contact is counted by exactly one block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from funlib.geometry import Coordinate
from typing_extensions import override

from ..command_names import SCRIPTS
from ..config import NEAREST_NEIGHBOURS, Offset
from ..engine.blocks.grid import Block, BlockGrid
from ..engine.blocks.stage import BlockFunction, BlockTask, Stage
from ..rag import EdgeTable, NodeTable, RagStore, open_rag, rag_exists, rag_is_missing
from ..run import Run
from ..segmentation import fragment_statistics, region_graph_statistics
from ..volumes import ZERO, Box, RunVolume, crop
from .fragments import FragmentsTask
from .graph_rows import edge_checksums, node_checksums
from .predict import PredictTask

CONTACT_CONTEXT = Coordinate(1, 1, 1)
"""Contacts reach one voxel to the low side, where the nearest-neighbour offsets point."""


def node_table(fragments: np.ndarray, block: Block, grid: BlockGrid) -> NodeTable:
    """The fragments of a block as nodes.

    Args:
        fragments: (z, y, x) uint64, ids of this block only; 0 is none.
        block: where they lie.
        grid: gives positions.
    """
    found = fragment_statistics(fragments)
    begin = np.array(block.box.begin, dtype=np.int64)
    return NodeTable(
        id=found.id,
        centre=np.array(grid.offset) + (found.centre + 0.5 + begin) * np.array(grid.voxel_size),
        size=found.size,
        begin=found.begin + begin,
        end=found.end + begin,
    )


def edge_table(
    affinities: np.ndarray, fragments: np.ndarray, owned: Box, neighbours: Sequence[Offset] = NEAREST_NEIGHBOURS
) -> EdgeTable:
    """The contacts that a block counts: pairs of a voxel it owns and that voxel's neighbour on the low side.

    Args:
        affinities: (k, z, y, x) uint8 of the block and one voxel of context on the low side, whose values do not count.
        fragments: (z, y, x) uint64 of the same voxels.
        owned: the block, counted from the first voxel of the arrays.
        neighbours: offset of each channel, in voxels.
    """
    graph = region_graph_statistics(affinities, fragments, neighbours, owned.slices)
    return EdgeTable.of(graph.edges, graph.count, graph.affinity_sum)


def read_with_faces(volume: RunVolume, box: Box, around: Box) -> np.ndarray:
    """A box and the voxels that touch its low faces; each face lies in another chunk, and no chunk is read in vain.

    Args:
        volume: of ids.
        box: what is read.
        around: the box, on the low side with a voxel of context as far as there is any.

    Returns:
        (z, y, x) of `around`, the dtype of the volume; along its edges, where only corners of voxels touch, 0.
    """
    data = np.zeros(around.shape, volume.array.dtype)
    data[box.relative_to(around).slices] = volume.read(box)
    for axis in range(3):
        if around.begin[axis] < box.begin[axis]:
            begin, end = list(box.begin), list(box.end)
            begin[axis], end[axis] = around.begin[axis], box.begin[axis]
            face = Box(Coordinate(begin), Coordinate(end))
            data[face.relative_to(around).slices] = volume.read(face)
    return data


def open_graph(run: Run) -> RagStore:
    """The graph store of a run."""
    return open_rag(run.config.rag, run.directory)


def graph_note(run: Run, name: str) -> str | None:
    """A note of the run's graph store; None also if there is no store yet."""
    if not rag_exists(run.config.rag, run.directory):
        return None
    with open_graph(run) as store:
        return store.note(name)


@dataclass(frozen=True)
class RagTask(BlockTask):
    """Fragments to nodes and edges, block by block."""

    stage = "rag"
    version = 1
    script = SCRIPTS["agglomerate"]

    @property
    @override
    def output(self) -> str:
        return self.run.config.rag.shown

    @cached_property
    @override
    def upstream(self) -> tuple[Stage, ...]:
        fragments = FragmentsTask(self.run)
        return (fragments, *fragments.upstream)

    @property
    @override
    def context(self) -> Coordinate:
        return CONTACT_CONTEXT

    @property
    @override
    def high_context(self) -> Coordinate:
        return ZERO

    @override
    def settings(self) -> dict[str, Any]:
        return {}

    @override
    def check(self) -> None:
        rag_exists(self.run.config.rag, self.run.directory)  # refuses a URL that names no graph store

    @override
    def stored_key(self) -> str | None:
        return graph_note(self.run, self.name)

    @override
    def is_missing(self) -> bool:
        return rag_is_missing(self.run.config.rag, self.run.directory)

    @override
    def prepare(self) -> None:
        with open_graph(self.run) as store:
            store.drop()
            store.set_note(self.name, self.key)

    @override
    def drop(self) -> None:
        with open_graph(self.run) as store:
            store.set_note(self.name, None)
            store.drop()

    @contextmanager
    @override
    def process(self) -> Iterator[BlockFunction]:
        affinities, fragments = PredictTask(self.run).open_complete(), FragmentsTask(self.run).open_complete()
        neighbours = self.run.config.neighbours
        with open_graph(self.run) as store:

            def process_block(block: Block) -> None:
                around = self.grid.with_context(block.box, CONTACT_CONTEXT, ZERO)
                owned = block.box.relative_to(around)
                ids = read_with_faces(fragments, block.box, around)
                values = np.zeros((len(neighbours), *around.shape), np.uint8)  # those of others are not looked at
                crop(values, owned)[:] = affinities.read(block.box)[: len(neighbours)]
                edges = edge_table(values, ids, owned, neighbours)
                nodes = node_table(ids[owned.slices], block, self.grid)
                store.write_block(block.index, nodes, edges)
                checksum = np.concatenate([node_checksums(nodes), edge_checksums(edges)]).sum()
                self.records.write(block.index, int(checksum), int(nodes.size.sum()))

            yield process_block
