"""Stage 04 on graphs of any size: average linkage region by region, up a tree of regions and down again.

1. `LinkageTask`, level 0: a region of some blocks reads its edges from the graph store and merges what it can be sure
   of (`segmentation/regional_linkage.py`). What is left goes into a file.
2. `LinkageTask`, level 1, 2, …: the same for regions twice as long, with what their parts have left. The last level is
   one region, which leaves nothing; it hands the scores of what came to it to its parts.
3. `MergeScoresTask` (`merge_scores.py`), the levels downwards: a region that has the scores of what it had left hands
   those of all that came to it to its parts, and on level 0 to its blocks.
4. `RegionalAgglomeration` (`agglomerate.py`): a block writes its scores into the graph store.

Nobody holds more than the edges of one region, and no more than fit into `agglomerate.memory`: a larger region is
linked from the disk (`windowed_linkage.py`). The result does not depend on the regions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from funlib.geometry import Coordinate
from typing_extensions import override

from ..command_names import SCRIPTS
from ..disk_arrays import chunks
from ..engine.blocks.empty_blocks import all_empty
from ..engine.blocks.grid import Block, BlockGrid
from ..engine.blocks.stage import BlockFunction, BlockTask, Stage
from ..engine.tracking.progress import key_of_folder
from ..errors import UserError
from ..rag import EdgeTable, NodeTable, RagStore
from ..run import Run
from ..segmentation.cluster_edges import ClusterEdges
from ..segmentation.regional_linkage import LinkedRegion, across_inner_borders, link_region
from ..volumes import ZERO
from .edges_on_disk import concatenated_on_disk
from .fragment_classes import ReadsEdges
from .graph_rows import is_as_recorded
from .region_files import RegionTable, read_region, write_parts, write_region
from .region_graph import CONTACT_CONTEXT, RagTask, open_graph
from .region_sizes import edges_of_blocks, memory_in_words
from .windowed_linkage import BYTES_PER_EDGE, link_region_on_disk

TOGETHER = "linkage"


def blocks_per_region(run: Run, grid: BlockGrid, level: int) -> Coordinate:
    """Blocks along z, y, x of a region of a level."""
    wanted = run.config.agglomerate.region_size
    return Coordinate(-(-size // block) * 2**level for size, block in zip(wanted, grid.block_size, strict=True))


def levels_of(run: Run, grid: BlockGrid) -> int:
    """Levels of regions, with the one that is one region; 1 if the first is."""
    levels = 1
    while any(blocks > per for blocks, per in zip(grid.shape, blocks_per_region(run, grid, levels - 1), strict=True)):
        levels += 1
    return levels


@dataclass(frozen=True)
class RegionTask(BlockTask):
    """What going up and coming down have in common: a block is a region of a level.

    Attributes:
        level: 0 for the smallest regions.
    """

    level: int

    version = 2
    script = SCRIPTS["agglomerate"]
    together = TOGETHER
    grid_counts = "regions"

    @property
    @override
    def name(self) -> str:
        return f"{self.stage}_{self.level}"

    @property
    def files(self) -> Path:
        """Where the files of the regions lie."""
        return self.folder / "regions"

    @property
    @override
    def output(self) -> str:
        return str(self.files)

    @cached_property
    @override
    def grid(self) -> BlockGrid:
        return self.chunk_grid.merged(blocks_per_region(self.run, self.chunk_grid, self.level))

    @cached_property
    def graph(self) -> RagTask:
        """The stage that made the graph."""
        return RagTask(self.run)

    @cached_property
    @override
    def empty(self) -> np.ndarray:
        return all_empty(self.graph.empty, self.chunk_grid, self.grid)

    @override
    def known_empty(self) -> tuple[np.ndarray, bool]:
        known, are_all = self.graph.known_empty()
        return all_empty(known, self.chunk_grid, self.grid), are_all

    @override
    def settings(self) -> dict[str, Any]:
        config = self.run.config.agglomerate
        regions = {"agglomerate.region_size": list(config.region_size)}
        return regions if config.maximum_score == 1 else {**regions, "agglomerate.maximum_score": config.maximum_score}

    @override
    def stored_key(self) -> str | None:
        return key_of_folder(self)

    @override
    def prepare(self) -> None:
        self.files.mkdir(parents=True, exist_ok=True)

    @override
    def drop(self) -> None:
        """Nothing: the files lie where the markers do, and go with them."""

    def is_lost(self, index: int) -> bool:
        """Whether what a region has written is not there as it was."""
        raise NotImplementedError


@dataclass(frozen=True)
class LinkageTask(RegionTask, ReadsEdges):
    """A level upwards: the edges of each region, merged as far as they are sure."""

    stage = "linkage"

    @cached_property
    def below(self) -> LinkageTask:
        """The level that this one continues."""
        return replace(self, level=self.level - 1)

    @cached_property
    @override
    def upstream(self) -> tuple[Stage, ...]:
        return self.edge_stages if self.level == 0 else (self.below,)

    @property
    @override
    def high_context(self) -> Coordinate:
        return CONTACT_CONTEXT if self.level == 0 else ZERO  # those who touch it from there hold the edges

    @property
    def is_last(self) -> bool:
        """Whether there is one region, which has no outside."""
        return self.level == levels_of(self.run, self.chunk_grid) - 1

    @property
    def scores(self) -> Path:
        """Where the last level puts the scores of its parts."""
        return self.folder / "scores"

    def read(self, index: int) -> RegionTable:
        """What a region has left."""
        return RegionTable.from_bytes(read_region(self.files, index, self.cure))

    @override
    def plan_details(self) -> list[tuple[str, str]]:
        if self.level > 0:
            return []
        blocks, memory = blocks_per_region(self.run, self.chunk_grid, 0), self.run.config.agglomerate.memory * 1e9
        return [("edges", memory_in_words(self.chunk_grid, blocks, edges_of_blocks(self.graph), memory))]

    @contextmanager
    @override
    def process(self) -> Iterator[BlockFunction]:
        with open_graph(self.run) as store:

            def process_region(region: Block) -> None:
                edges, seen, parts = self._from_blocks(store, region) if self.level == 0 else self._from_parts(region)
                linked = self._linked(region, edges, seen)
                checksum = write_region(self.files, region.index, RegionTable(linked, parts).pieces())
                if self.is_last:
                    write_parts(self.scores, parts, lambda rows: linked.score[rows])
                self.records.write(region.index, checksum, len(edges))

            yield process_region

    def _linked(self, region: Block, edges: ClusterEdges, seen: ClusterEdges) -> LinkedRegion:
        """What becomes of the edges of a region; from the disk if there are too many for the memory."""
        maximum = self.run.config.agglomerate.maximum_score
        if self._fits(len(edges) + len(seen)):
            return link_region(edges, ~self._contains(region, edges.u), seen, maximum)
        memory = self.run.config.agglomerate.memory * 1e9
        return link_region_on_disk(edges, lambda ids: ~self._contains(region, ids), seen, maximum, memory, self.files)

    def _fits(self, rows: int) -> bool:
        """Whether so many edges are linked in memory."""
        return rows * BYTES_PER_EDGE <= self.run.config.agglomerate.memory * 1e9

    def _from_blocks(self, store: RagStore, region: Block) -> tuple[ClusterEdges, ClusterEdges, np.ndarray]:
        """The edges of the blocks of a region, those across its border that other blocks hold, and its parts."""
        own, parts = self._own_blocks(region), list[tuple[int, int]]()
        seen = ClusterEdges.concatenate([*self._seen(store, region)])
        edges = self._together(self._edges_of(store, own, parts), store.count_edges(own), len(seen))
        missing = {index for index in set(own) - {block for block, _ in parts} if not self.graph.empty.flat[index]}
        if missing:
            raise UserError(f"the graph has lost block {min(missing)}; {self.cure}", self.graph.output)
        return edges, seen, np.array(parts, np.int64).reshape(-1, 2)

    def _own_blocks(self, region: Block) -> list[int]:
        """The blocks of a region."""
        return [block.index for block in self.chunk_grid.blocks_in(region.box)]

    def _edges_of(self, store: RagStore, blocks: list[int], parts: list[tuple[int, int]]) -> Iterator[ClusterEdges]:
        """The edges of each of some blocks that may be merged; how many there are of each is noted in `parts`."""
        for block, nodes, edges in store.read_block_rows(blocks):
            self._require_as_recorded(block, nodes, edges)
            others = self.forbidden.others(edges)
            parts.append((block, len(others)))
            yield _of_table(others)

    def _seen(self, store: RagStore, region: Block) -> Iterator[ClusterEdges]:
        """The edges across the border of a region that blocks on the high side hold, by block."""
        around = self.grid.with_context(region.box, ZERO, CONTACT_CONTEXT)
        higher = {block.index for block in self.chunk_grid.blocks_in(around)} - set(self._own_blocks(region))
        for block, nodes, edges in store.read_block_rows(sorted(higher)):
            self._require_as_recorded(block, nodes, edges)
            yield _of_table(self.forbidden.others(edges.select(self._contains(region, edges.u))))

    def _together(self, tables: Iterator[ClusterEdges], rows: int, seen: int) -> ClusterEdges:
        """All edges of several tables, at most so many rows; on the disk if they do not fit into memory with those that
        are seen.
        """
        if self._fits(rows + seen):
            return ClusterEdges.concatenate([*tables])
        return concatenated_on_disk(tables, rows, self.files)

    def _from_parts(self, region: Block) -> tuple[ClusterEdges, ClusterEdges, np.ndarray]:
        """What the parts of a region have left, the edges across its border that others hold, and the parts."""
        below = self.below
        indices = [part.index for part in below.grid.blocks_in(region.box) if not below.empty.flat[part.index]]
        tables = [below.read(index).linked for index in indices]
        parts = np.array([*zip(indices, (len(table.edges) for table in tables), strict=True)], np.int64).reshape(-1, 2)
        seen = ClusterEdges.concatenate([table.seen for table in tables])
        is_inside = self._contains(region, seen.v)
        pieces = (table.edges.select(part) for table in tables for part in chunks(len(table.edges)))
        met = (across_inner_borders(piece, seen, is_inside)[0] for piece in pieces)
        edges = self._together(met, int(parts[:, 1].sum()), len(seen))
        return edges, seen.select(~is_inside), parts

    def _require_as_recorded(self, block: int, nodes: NodeTable, edges: EdgeTable) -> None:
        if not is_as_recorded(nodes, edges, int(self._recorded[block])):
            raise UserError(
                f"the graph has lost or changed rows of block {block} since they were written; {self.cure}",
                self.graph.output,
            )

    @cached_property
    def _recorded(self) -> np.ndarray:
        """(N,) uint64, the checksums of all blocks."""
        return self.graph.records.read().checksum

    def _contains(self, region: Block, ids: np.ndarray) -> np.ndarray:
        """(N,) bool, whether fragments lie in a region."""
        blocks = ((ids - np.uint64(1)) // np.uint64(self.chunk_grid.voxels_per_block)).astype(np.int64)
        begin, end = region.box.begin, region.box.end
        inside = np.ones(len(blocks), bool)
        positions = np.unravel_index(blocks, tuple(self.chunk_grid.shape))
        for axis, (position, size) in enumerate(zip(positions, self.chunk_grid.block_size, strict=True)):
            inside &= (position * size >= begin[axis]) & (position * size < end[axis])
        return inside

    @override
    def is_lost(self, index: int) -> bool:
        try:
            table = self.read(index)
            if self.is_last:
                for part in table.parts[:, 0].tolist():
                    read_region(self.scores, part, self.cure)
        except UserError:
            return True
        return False


def _of_table(edges: EdgeTable) -> ClusterEdges:
    return ClusterEdges.of_fragments(edges.u, edges.v, edges.affinity_sum, edges.count)
