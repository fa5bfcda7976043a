"""The classic way from affinities to a segmentation, as many scripts go it: SciPy, scikit-image, waterz.

Blocks with context, in a pool of processes: seeds at the maxima of the distance to boundaries, scikit-image's
watershed, connected parts; then waterz on each block with context, its scores on the edges of a graph in memory;
connected components; relabelling. Nothing is recorded or checked, and a run that breaks off begins anew.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs import Blosc
from scipy import ndimage
from skimage.measure import label
from skimage.segmentation import watershed

from pipeline.segmentation import connected_components, waterz_edge_scores

SEED_WINDOW = 10
"""Edge in voxels of the window in which a seed is the largest; the default of the LSD scripts."""

Region = tuple[slice, ...]
Scored = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Ids (N,), edges (E, 2) and their scores (E,)."""


class ClassicChain:
    """A run in a folder of its own.

    Args:
        affinities: path of a zarr array, (3, z, y, x) uint8.
        out: a new container for fragments and segments.
        block: voxels of a block.
        context: voxels around it along z, y, x.
        workers: processes.
    """

    def __init__(self, affinities: Path, out: Path, block: Sequence[int], context: Sequence[int], workers: int) -> None:
        self.affinities, self.out, self.block, self.context, self.workers = affinities, out, block, context, workers
        self.shape = zarr.open_array(str(affinities), mode="r").shape[1:]

    def run(self, threshold: float) -> Scored:
        """Write fragments and the segments of a threshold; the graph."""
        group = zarr.open_group(str(self.out), mode="w")
        codec = Blosc(cname="zstd", clevel=3, shuffle=Blosc.SHUFFLE)
        for name in ("fragments", "segments"):
            group.create_dataset(name, shape=self.shape, chunks=tuple(self.block), dtype=np.uint64, compressor=codec)
        with multiprocessing.get_context("spawn").Pool(self.workers) as pool:
            self._map(pool, fragment_block)
            parts = self._map(pool, score_block)
            nodes, edges, scores = (np.concatenate(columns) for columns in zip(*parts, strict=True))
            self._map(pool, partial(relabel_block, lut=connected_components(nodes, edges, scores, threshold)))
        return nodes, edges, scores

    def _map(self, pool: Any, work: Callable[..., Any]) -> list[Any]:
        blocks = list(np.ndindex(*(-(-extent // size) for extent, size in zip(self.shape, self.block, strict=True))))
        return list(pool.starmap(work, [(self, number, block) for number, block in enumerate(blocks)], chunksize=1))

    def regions(self, position: Sequence[int]) -> tuple[Region, Region, Region]:
        """A block, the block with its context, and the block within this."""
        ranges = [
            (at * size, min((at + 1) * size, extent))
            for at, size, extent in zip(position, self.block, self.shape, strict=True)
        ]
        around = [
            (max(0, low - context), min(extent, high + context))
            for (low, high), context, extent in zip(ranges, self.context, self.shape, strict=True)
        ]
        inner = tuple(slice(low - a, high - a) for (low, high), (a, _) in zip(ranges, around, strict=True))
        return tuple(slice(*r) for r in ranges), tuple(slice(*a) for a in around), inner


def fragment_block(chain: ClassicChain, number: int, position: Sequence[int]) -> None:
    """Over-segment a block."""
    region, around, inner = chain.regions(position)
    affinities = zarr.open_array(str(chain.affinities), mode="r")[(slice(0, 3), *around)]
    boundary = affinities.mean(axis=0, dtype=np.float32) > 127.5
    distance = ndimage.distance_transform_edt(boundary)
    maxima = ndimage.maximum_filter(distance, SEED_WINDOW) == distance
    seeds, _ = ndimage.label(maxima & boundary)
    fragments = label(watershed(distance.max() - distance, seeds)[inner], connectivity=1).astype(np.uint64)
    fragments[fragments > 0] += np.uint64(number * np.prod(chain.block))
    zarr.open_array(str(chain.out / "fragments"), mode="r+")[region] = fragments


def score_block(chain: ClassicChain, number: int, position: Sequence[int]) -> Scored:
    """Agglomerate a block with its context; its own ids, and the edges of its own fragments with smaller ids."""
    _, around, inner = chain.regions(position)
    fragments = zarr.open_array(str(chain.out / "fragments"), mode="r")[around]
    edges, scores = waterz_edge_scores(
        zarr.open_array(str(chain.affinities), mode="r")[(slice(0, 3), *around)], fragments
    )
    ids = np.unique(fragments[inner])
    own = np.isin(edges[:, 1], ids)
    return ids[ids > 0], edges[own], scores[own]


def relabel_block(chain: ClassicChain, number: int, position: Sequence[int], lut: np.ndarray) -> None:
    """Write a block's segments."""
    region, _, _ = chain.regions(position)
    fragments = zarr.open_array(str(chain.out / "fragments"), mode="r")[region]
    found = np.minimum(np.searchsorted(lut[:, 0], fragments), len(lut) - 1)
    segments = np.where(fragments > 0, lut[found, 1], 0)
    zarr.open_array(str(chain.out / "segments"), mode="r+")[region] = segments
