from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from pipeline.segmentation import (
    agglomerate_global,
    agglomerate_waterz,
    connected_components,
    region_graph,
    relabel,
    seeded_watershed,
    waterz_edge_scores,
)

NEAREST = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
THRESHOLDS = [0.46, 0.48, 0.5]


@pytest.fixture(scope="module")
def block() -> tuple[np.ndarray, np.ndarray]:
    affinities = np.random.default_rng(0).random((3, 16, 24, 24), np.float32)
    return affinities, seeded_watershed(affinities, seed_distance=2)


def test_its_mean_linkage_is_our_average_linkage(block: tuple[np.ndarray, np.ndarray]) -> None:
    affinities, fragments = block
    edges, count, mean = region_graph(affinities, fragments, NEAREST)
    luts = agglomerate_global(edges, mean, count, THRESHOLDS)
    segmentations = agglomerate_waterz(affinities, fragments, THRESHOLDS)
    for threshold in THRESHOLDS:
        ours = relabel(fragments, luts[threshold][:, 0], luts[threshold][:, 1])
        assert np.array_equal(segmentations[threshold], ours)


def test_each_threshold_gets_its_own_array(block: tuple[np.ndarray, np.ndarray]) -> None:
    segmentations = agglomerate_waterz(*block, THRESHOLDS)
    sizes = [len(np.unique(segmentations[threshold])) for threshold in THRESHOLDS]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3


@pytest.mark.parametrize("merge_function", ["mean", "hist_quant_25", "hist_quant_50", "hist_quant_75"])
def test_edge_scores_reproduce_its_segmentations(block: tuple[np.ndarray, np.ndarray], merge_function: str) -> None:
    affinities, fragments = block
    edges, scores = waterz_edge_scores(affinities, fragments, merge_function)
    assert np.array_equal(edges, region_graph(affinities, fragments, NEAREST)[0])
    segmentations = agglomerate_waterz(affinities, fragments, THRESHOLDS, merge_function)
    for threshold in THRESHOLDS:
        lut = connected_components(np.unique(fragments), edges, scores, threshold)
        assert np.array_equal(relabel(fragments, lut[:, 0], lut[:, 1]), segmentations[threshold])


def test_the_arrays_given_are_not_changed_and_bytes_are_welcome(block: tuple[np.ndarray, np.ndarray]) -> None:
    affinities, fragments = (array.copy() for array in block)
    agglomerate_waterz(np.asfortranarray(affinities), fragments, [0.5])
    assert np.array_equal(affinities, block[0])
    assert np.array_equal(fragments, block[1])
    stored = np.round(affinities * 255).astype(np.uint8)
    as_float = stored.astype(np.float32) / np.float32(255)
    assert np.array_equal(waterz_edge_scores(stored, fragments)[1], waterz_edge_scores(as_float, fragments)[1])


def test_ids_from_deep_in_a_volume_cost_no_memory_and_background_stays(block: tuple[np.ndarray, np.ndarray]) -> None:
    affinities, fragments = block
    here = np.where(fragments == 3, 0, fragments).astype(np.uint64)
    deep = np.where(here > 0, here + np.uint64(10**15), here)
    segmentation = agglomerate_waterz(affinities, deep, [0.48])[0.48]
    assert np.array_equal(segmentation == 0, here == 0)
    shallow = agglomerate_waterz(affinities, here, [0.48])[0.48]
    assert np.array_equal(np.where(shallow > 0, shallow + np.uint64(10**15), shallow), segmentation)
    edges, _ = waterz_edge_scores(affinities, deep)
    assert edges.min() > 10**15


@pytest.mark.parametrize("shape", [(1, 1, 1), (0, 2, 2), (2, 2, 2)])
def test_blocks_without_edges(shape: tuple[int, int, int]) -> None:
    affinities, fragments = np.ones((3, *shape), np.float32), np.full(shape, 5, np.uint64)
    assert np.array_equal(agglomerate_waterz(affinities, fragments, [0.5])[0.5], fragments)
    edges, scores = waterz_edge_scores(affinities, fragments)
    assert (edges.shape, scores.shape) == ((0, 2), (0,))


def test_an_unknown_merge_function_is_refused_with_the_known_ones(block: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="hist_quant_50"):
        agglomerate_waterz(*block, [0.5], "median")


SCRIPT = """
import numpy as np
from pipeline.segmentation import agglomerate_waterz, waterz_edge_scores
affinities = np.random.default_rng(0).random((3, 8, 16, 16), np.float32)
fragments = np.arange(1, 2049, dtype=np.uint64).reshape(8, 16, 16)
print("before")
for _ in range(3):
    agglomerate_waterz(affinities, fragments, [0.1, 0.3])
    waterz_edge_scores(affinities, fragments)
print("after")
"""


def test_waterz_prints_nothing_and_the_rest_of_the_program_is_heard() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=500)
    assert done.stdout == "before\nafter\n"
