"""What the benchmarks of the losses share: the loss as published, labels like those of EM, and a clock for variants
that run in alternation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy.spatial import KDTree

from pipeline.distillation import GraphRelationDistillation

WEIGHTS = {"node": 0.1, "edge": 0.1, "affinity": 10.0, "inter_edge": 1.0, "inter_affinity": 1.0}


def distillation(
    offsets: Sequence[Sequence[int]], images: int, terms: Collection[str] = tuple(WEIGHTS)
) -> GraphRelationDistillation:
    """The loss with the published weights of some terms, and a memory of so many images that meets them all."""
    return GraphRelationDistillation(
        offsets,
        node_weight=WEIGHTS["node"] if "node" in terms else 0,
        edge_weight=WEIGHTS["edge"] if "edge" in terms else 0,
        affinity_weight=WEIGHTS["affinity"] if "affinity" in terms else 0,
        inter_edge_weight=WEIGHTS["inter_edge"] if "inter_edge" in terms else 0,
        inter_affinity_weight=WEIGHTS["inter_affinity"] if "inter_affinity" in terms else 0,
        memory_size=images,
        memory_sample=images,
    )


def neurites(shape: Sequence[int], instances: tuple[int, int], rng: np.random.Generator) -> torch.Tensor:
    """Labels (*shape): about as many Voronoi cells as a patch of EM has neurites, background between them."""
    centres = rng.random((rng.integers(*instances, endpoint=True), len(shape)))
    voxels = np.moveaxis(np.indices(shape), 0, -1) / np.asarray(shape)
    distances, nearest = KDTree(centres).query(voxels, k=2)
    return torch.from_numpy(np.where(distances[..., 1] - distances[..., 0] < 0.03, 0, nearest[..., 0] + 1))


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """CPU time of this process, or the time until the GPU is done."""
    if device.type == "cpu":
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def alternate(works: dict[str, Callable[[], Any]], repeats: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each, in alternation."""
    taken = [{name: seconds(work, device) for name, work in works.items()} for _ in range(repeats)]
    return {name: median(one[name] for one in taken) for name in works}
