"""The block grid: which voxels each block writes, and which fragment ids it may give out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from funlib.geometry import Coordinate

from ...errors import UserError
from ...run import Run, region_box
from ...volumes import Box, Nanometres, cells_of, position_of, three_numbers


@dataclass(frozen=True)
class Block:
    """One unit of work.

    Attributes:
        index: position in the grid, C order.
        box: the voxels it writes, counted from the first voxel of the segmented region (as stored arrays count).
    """

    index: int
    box: Box


@dataclass(frozen=True)
class BlockGrid:
    """A region cut into blocks; the first begins where the region begins, those at its far faces are smaller.

    Attributes:
        region: the segmented region in voxels of its source.
        block_size: voxels of a full block, order z, y, x.
        voxel_size: nanometres, order z, y, x.
        offset: position of the region's first voxel in nanometres.
    """

    region: Box
    block_size: Coordinate
    voxel_size: Nanometres
    offset: Nanometres

    @staticmethod
    def of_run(run: Run) -> BlockGrid:
        """The grid of a run's segmented region: what its arrays have as chunks.

        Raises:
            UserError: the source is not imported, or the region is empty or too large.
        """
        segment = run.config.volumes.segment
        raw = run.open_raw(segment.source)
        region = region_box(segment, raw.shape, "volumes.segment")
        block_size = Coordinate(min(b, e) for b, e in zip(run.config.predict.write_block, region.shape, strict=True))
        grid = BlockGrid(region, block_size, raw.voxel_size, position_of(region.begin, raw.voxel_size, raw.offset))
        grid.check_ids()
        return grid

    def merged(self, blocks: Coordinate) -> BlockGrid:
        """The grid of which each block is so many of this one's along z, y, x."""
        size = Coordinate(min(b * n, e) for b, n, e in zip(self.block_size, blocks, self.region.shape, strict=True))
        return replace(self, block_size=size)

    @cached_property
    def shape(self) -> Coordinate:
        """Blocks along z, y, x."""
        return Coordinate(-(-e // b) for e, b in zip(self.region.shape, self.block_size, strict=True))

    @cached_property
    def voxels_per_block(self) -> int:
        """Voxels of a full block, and so the fragment ids that a block may give out."""
        return int(np.prod(self.block_size))

    @cached_property
    def box(self) -> Box:
        """All voxels of the stored arrays."""
        return Box.of_shape(self.region.shape)

    def __len__(self) -> int:
        return int(np.prod(self.shape))

    def __iter__(self) -> Iterator[Block]:
        return (self.block(index) for index in range(len(self)))

    def block(self, index: int) -> Block:
        """The block at a position in the grid.

        Raises:
            ValueError: the grid has no such position.
        """
        row, x = divmod(index, self.shape[2])
        z, y = divmod(row, self.shape[1])
        if not 0 <= z < self.shape[0]:
            raise ValueError(f"there is no block {index} in a grid of {len(self)}")
        begin = Coordinate(z, y, x) * self.block_size
        return Block(index, Box(begin, Coordinate(map(min, begin + self.block_size, self.region.shape))))

    def downsampled(self, factors: Sequence[int]) -> BlockGrid:
        """The same blocks in voxels of which each is `factors` of this grid's; the region counts from its beginning."""
        size = three_numbers(size * factor for size, factor in zip(self.voxel_size, factors, strict=True))
        block_size = Box.of_shape(self.block_size).downsampled(factors).shape
        return BlockGrid(self.box.downsampled(factors), block_size, size, self.offset)

    def position(self, voxel: Sequence[float]) -> Nanometres:
        """The position in nanometres of a stored voxel's first corner."""
        return position_of(voxel, self.voxel_size, self.offset)

    def blocks_in(self, box: Box) -> Iterator[Block]:
        """The blocks that share voxels with a box, in C order."""
        for position in cells_of(box, self.block_size):
            yield self.block(int(np.ravel_multi_index(position, tuple(self.shape))))

    def index_of(self, begin: Sequence[int]) -> int:
        """The index of the block whose first voxel is `begin`, counted as in `Block.box`.

        Raises:
            ValueError: no block begins there.
        """
        index = 0
        for first, size, blocks in zip(begin, self.block_size, self.shape, strict=True):
            position, rest = divmod(first, size)
            if rest or not 0 <= position < blocks:
                raise ValueError(f"no block begins at voxel {tuple(begin)}")
            index = index * blocks + position
        return int(index)

    def to_source(self, box: Box) -> Box:
        """A box of stored voxels, counted from the first voxel of the source."""
        return Box(box.begin + self.region.begin, box.end + self.region.begin)

    def with_context(self, box: Box, low: Coordinate, high: Coordinate) -> Box:
        """A box with its context, as far as the region reaches."""
        return box.grow(low, high).intersect(self.box)

    def fragment_ids(self, block: Block) -> tuple[int, int]:
        """First fragment id of a block, and one past its last: index * voxels_per_block + (1 .. voxels_per_block)."""
        first = block.index * self.voxels_per_block + 1
        return first, first + self.voxels_per_block

    def check_ids(self) -> None:
        """Make sure that all fragment ids fit into signed 64-bit integers, as databases store them.

        Raises:
            UserError: there are too many voxels.
        """
        if len(self) * self.voxels_per_block >= 2**63:
            raise UserError("the region has more voxels than there are fragment ids", "volumes.segment")
