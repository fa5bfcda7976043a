"""Positions find the voxels they lie in, and no more than a block is read for it."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation import (
    Skeletons,
)
from pipeline.evaluation.overlaps import InMemory
from pipeline.evaluation.placed_ids import PlacedIds
from pipeline.volumes import Box


@pytest.mark.parametrize("block", [(64, 256, 256), (2, 3, 4), (1, 1, 1)])
def test_positions_find_their_voxel_for_any_block_offset_and_fractional_size(block: tuple[int, int, int]) -> None:
    ids = np.arange(1, 5 * 7 * 6 + 1, dtype=np.uint64).reshape(5, 7, 6)
    size, offset = np.array([0.1, 4.7, 33.3]), np.array([-0.3, 1e6, 12.5])
    voxels = np.argwhere(ids > 0)
    volume = PlacedIds(InMemory(ids), "ids", ids.shape, size.tolist(), offset.tolist())
    for inside in (0.0, 0.5, 0.999):
        nodes = np.zeros(len(voxels), np.int64)
        skeletons = Skeletons.of(("a",), nodes, offset + (voxels + inside) * size, np.zeros((0, 2)))
        assert volume.at(skeletons, block).tolist() == ids[tuple(voxels.T)].tolist()
        moved = Skeletons.of(("a",), nodes, offset + (voxels - [0, 0, 1] + inside) * size, np.zeros((0, 2)))
        assert volume.at(moved, block).tolist() == np.where(voxels[:, 2] == 0, 0, ids[tuple(voxels.T)] - 1).tolist()


class Counting(InMemory):
    """Notes what is read."""

    largest = 0

    def read(self, box: Box) -> np.ndarray:
        Counting.largest = max(Counting.largest, box.size)
        return super().read(box)


def test_no_more_than_a_block_is_read_at_once() -> None:
    volume = PlacedIds(Counting(np.ones((20, 20, 20), np.uint64)), "ids", (20, 20, 20), (1, 1, 1), (0, 0, 0))
    positions = np.argwhere(np.ones((20, 20, 20), bool)) + 0.5
    skeletons = Skeletons.of(("a",), np.zeros(len(positions)), positions, np.zeros((0, 2)))
    assert (volume.at(skeletons, (4, 5, 6)) == 1).all()
    assert Counting.largest == 4 * 5 * 6
