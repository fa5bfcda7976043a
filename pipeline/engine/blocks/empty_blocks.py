"""Which blocks hold nothing: no voxel of the mask, or raw voxels that are all the same. They are not computed.

The answer is found once per raw volume and grid, in threads of the driver, and lies in a file of one byte per block
with a checksum at its end; an interrupted search goes on where it was.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from funlib.geometry import Coordinate

from ...config import config_hash
from ...errors import UserError
from ...run import Run
from ...small_files import checked, read_npy, unchecked, write_npy
from ...volumes import Box
from .grid import Block, BlockGrid
from .parallel import in_threads
from .storage import mask_identity, open_raw, raw_identity

UNKNOWN, EMPTY, OCCUPIED = 0, 1, 2
SAVE_EVERY = 4096
"""Blocks after which the answers so far are written down."""


def empty_blocks(run: Run, grid: BlockGrid) -> np.ndarray:
    """The blocks that are not computed, and whose outputs are 0.

    Returns:
        (z, y, x) bool over the block grid.

    Raises:
        UserError: raw or mask cannot be read.
    """
    if not run.config.predict.skip_empty:
        return np.zeros(grid.shape, dtype=bool)
    known = _read(_path(run, grid), len(grid))
    if (known == UNKNOWN).any():
        _look(run, grid, known)
    empty: np.ndarray = known == EMPTY
    return empty.reshape(grid.shape)


def known_empty_blocks(run: Run, grid: BlockGrid) -> tuple[np.ndarray, bool]:
    """What has been found out about empty blocks so far; raw is not read.

    Returns:
        (z, y, x) bool over the block grid, the blocks that are known to be empty; and whether all are known.
    """
    if not run.config.predict.skip_empty:
        return np.zeros(grid.shape, dtype=bool), True
    known = _read(_path(run, grid), len(grid))
    return (known == EMPTY).reshape(grid.shape), bool((known != UNKNOWN).all())


def _look(run: Run, grid: BlockGrid, known: np.ndarray) -> None:
    """Fill in what is unknown, and write it down."""
    source = run.config.volumes.segment.source
    raw, mask = open_raw(run), run.open_mask(source)

    def occupied(block: Block) -> tuple[int, bool]:
        if mask is not None and not mask.read(grid.to_source(block.box)).any():
            return block.index, False
        intensities = raw.read(grid.to_source(full_box(grid, block)))
        return block.index, bool(intensities.min() != intensities.max())

    unknown = np.flatnonzero(known == UNKNOWN).tolist()
    blocks = (grid.block(index) for index in unknown)
    answers = in_threads(occupied, blocks, run.config.cluster.workers, len(unknown), "empty blocks")
    for done, (index, is_occupied) in enumerate(answers, start=1):
        known[index] = OCCUPIED if is_occupied else EMPTY
        if done % SAVE_EVERY == 0:
            _write(_path(run, grid), known)
    _write(_path(run, grid), known)


def all_empty(empty: np.ndarray, grid: BlockGrid, merged: BlockGrid) -> np.ndarray:
    """Which blocks of a grid are made of empty blocks of a finer one alone.

    Args:
        empty: (z, y, x) bool over the blocks of the finer grid.
        grid: the finer grid.
        merged: each block of which is so many of the finer one's along each axis.

    Returns:
        (z, y, x) bool over the blocks of `merged`.
    """
    for axis, (large, small) in enumerate(zip(merged.block_size, grid.block_size, strict=True)):
        first = np.arange(0, grid.shape[axis], -(-large // small))
        empty = np.logical_and.reduceat(empty, first, axis=axis)
    return empty


def full_box(grid: BlockGrid, block: Block) -> Box:
    """The block, or where the region cuts it, a full one that ends where it ends: a few voxels are easily the same."""
    begin = Coordinate(min(b, e - s) for b, e, s in zip(block.box.begin, block.box.end, grid.block_size, strict=True))
    return Box(begin, block.box.end)


def _path(run: Run, grid: BlockGrid) -> Path:
    """The file of this raw volume, mask and grid; others are left alone."""
    identity: dict[str, Any] = {
        "raw": raw_identity(run),
        "region": [list(grid.region.begin), list(grid.region.end)],
        "block_size": list(grid.block_size),
    }
    mask = mask_identity(run)
    if mask is not None:
        identity["mask"] = mask
    return run.tracking / "empty_blocks" / f"{config_hash(json.dumps(identity))}.npy"


def _read(path: Path, blocks: int) -> np.ndarray:
    """(N,) uint8; unknown where nothing sound is stored: of a file without its checksum, nothing is believed."""
    try:
        known = unchecked(read_npy(path))
    except (FileNotFoundError, UserError):
        known = None
    return known if known is not None and len(known) == blocks else np.full(blocks, UNKNOWN, dtype=np.uint8)


def _write(path: Path, known: np.ndarray) -> None:
    write_npy(path, checked(known))
