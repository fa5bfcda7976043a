"""How well certainty ranks blocks: against plain arrays, block by block."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from funlib.geometry import Coordinate
from scipy.stats import spearmanr
from voronoi_run import make_run

from pipeline.engine.blocks.grid import BlockGrid
from pipeline.evaluation import variation_of_information
from pipeline.evaluation.certainty import StoredCertainty, rank_blocks, spearman
from pipeline.evaluation.overlaps import InMemory, LabelRules, prepare_labels
from pipeline.volumes import Box

RULES = LabelRules(relabel=True, minimum_size=40)
REGION = Box(Coordinate(1, 5, 3), Coordinate(9, 42, 30))
"""Begins and ends within blocks."""


def test_blocks_are_ranked_by_the_voi_of_their_own_voxels(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    grid = BlockGrid.of_run(run)
    random = np.random.default_rng(4)
    z, y, x = np.indices((9, 42, 38))
    labels = (1 + (y // 9) + 10 * (x // 13) * (z > 3)).astype(np.uint64)
    labels[:, 20:23] = 0
    inside = labels[grid.region.slices]
    wrong = random.uniform(size=inside.shape) < 0.5 * (x / 38)[grid.region.slices]
    segments = np.where(wrong, random.integers(90, 95, inside.shape), inside).astype(np.uint64)
    values = random.uniform(0.1, 0.9, grid.shape).astype(np.float32)
    values[0, 0, 0] = 0  # nothing is there
    found = rank_blocks(run, StoredCertainty(0.5, values), InMemory(segments), InMemory(labels), REGION, RULES)
    objects = np.zeros_like(labels)
    objects[REGION.slices] = prepare_labels(labels[REGION.slices], RULES)
    expected = []
    for block in grid:
        truth = objects[grid.to_source(block.box).slices]
        if np.count_nonzero(truth) >= 0.25 * block.box.size and values.ravel()[block.index] > 0:
            voi = variation_of_information(segments[block.box.slices], truth)
            expected.append((values.ravel()[block.index], sum(voi)))
    assert found is not None
    assert found["blocks"] == len(expected) > 8
    assert found["spearman"] == pytest.approx(spearmanr(*np.transpose(expected))[0], abs=1e-4)
    assert found["threshold"] == 0.5
    kept = np.flatnonzero(values)[:4]
    few = np.zeros_like(values)
    few.ravel()[kept] = values.ravel()[kept]
    ranked = rank_blocks(run, StoredCertainty(0.5, few), InMemory(segments), InMemory(labels), REGION, RULES)
    assert ranked is not None and ranked["blocks"] <= 4 and ranked["spearman"] is None
    others = StoredCertainty(0.5, values[:1])
    assert rank_blocks(run, others, InMemory(segments), InMemory(labels), REGION, RULES) is None


def test_rank_correlation_knows_ties_and_says_when_there_is_none() -> None:
    one, other = np.array([1.0, 2, 2, 3, 5]), np.array([9.0, 9, 4, 3, 1])
    assert spearman(one, other) == pytest.approx(spearmanr(one, other)[0], abs=1e-4)
    assert spearman(one, -one) == -1
    assert spearman(one, np.ones(5)) is None
    assert spearman(one[:1], other[:1]) is None
