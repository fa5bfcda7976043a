"""A score that does not hang on one setting of the watershed.

Over some thousand fragments, a slightly other boundary threshold or distance of seeds moves the VOI of one and the same
affinities by 0.1 to 0.2 bits, as much as what is to be measured. So the benchmark scores every network under the same
few settings, each at its best merge threshold, and takes the mean.
"""

from __future__ import annotations

from itertools import product
from statistics import mean

import numpy as np

from pipeline.config import NEAREST_NEIGHBOURS, FragmentsConfig
from pipeline.evaluation import find_truth, prepare_labels
from pipeline.evaluation.contingency import Contingency, contingency_table
from pipeline.evaluation.sweep import Scores, scores_of_table
from pipeline.run import Run
from pipeline.segmentation import agglomerate_global, make_fragments, region_graph, relabel
from pipeline.volumes import open_volume

BOUNDARY_THRESHOLDS = (0.5, 0.6, 0.7)
SEEDS = ({"seed_distance": 3, "seed_smoothing": 0.5}, {"seed_distance": 5, "seed_smoothing": 1.0})


def mean_over_watersheds(run: Run) -> Scores:
    """VOI and adapted Rand error of a finished run, mean over the watershed settings, each at its best threshold.

    Args:
        run: its segmented region is its validation region and fits into memory.
    """
    truth = find_truth(run)
    labels = prepare_labels(truth.read(truth.region), truth.rules)
    affinities = open_volume(run.volume, "affinities")
    voxels = affinities.read(affinities.box)
    best = []
    for boundary_threshold, seeds in product(BOUNDARY_THRESHOLDS, SEEDS):
        settings = run.config.fragments.model_copy(update={"boundary_threshold": boundary_threshold, **seeds})
        scores = _scores(voxels, labels, settings, run)
        best.append(min(scores, key=lambda score: score["voi_sum"]))
    return {name: round(mean(score[name] for score in best), 6) for name in best[0]}


def _scores(affinities: np.ndarray, labels: np.ndarray, settings: FragmentsConfig, run: Run) -> list[Scores]:
    """Scores at every threshold of the run's sweep, of affinities (k, z, y, x) uint8 against labels (z, y, x)."""
    voxel_size = run.open_raw(run.config.volumes.segment.source).voxel_size
    fragments = make_fragments(affinities[:3], NEAREST_NEIGHBOURS, voxel_size=voxel_size, **settings.method_settings())
    edges, count, affinity = region_graph(affinities[:3], fragments, NEAREST_NEIGHBOURS)
    table = contingency_table(fragments, labels)
    nodes = np.unique(fragments)
    luts = agglomerate_global(edges, affinity, count, run.config.evaluate.sweep, nodes=nodes[nodes > 0])
    return [scores_of_table(_merged(table, lut)) for lut in luts.values()]


def _merged(table: Contingency, lut: np.ndarray) -> Contingency:
    """The table of fragments after each has become the segment that a lookup table (N, 2) gives it."""
    return table.relabelled(relabel(table.segment, lut[:, 0], lut[:, 1]))
