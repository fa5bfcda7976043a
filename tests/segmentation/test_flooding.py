"""The compiled and plane-wise loops against the plain algorithms that they replace."""

from __future__ import annotations

import heapq
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from skimage.segmentation import watershed

from pipeline.segmentation import region_graph_statistics
from pipeline.segmentation.faces import (
    ALL_FACES,
    HIGH_X,
    HIGH_Y,
    HIGH_Z,
    IN_SECTION,
    LOW_X,
    LOW_Y,
    LOW_Z,
    open_faces,
)
from pipeline.segmentation.flooding import LEVEL, flood
from pipeline.segmentation.separable import boundary_distance, smooth, window_maximum

SHAPES = [(14, 23, 31), (1, 40, 33), (30, 1, 21), (5, 4, 1)]


def heights_of(shape: tuple[int, int, int], levels: int | None, seed: int = 0) -> np.ndarray:
    """Smooth heights without ties, or with many."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 1.5)
    if levels is None:
        return (np.argsort(np.argsort(smooth.ravel())).reshape(shape) + 1).astype(np.float32)
    result: np.ndarray = np.round((smooth - smooth.min()) / np.ptp(smooth) * levels).astype(np.float32)
    return result


def seeds_of(heights: np.ndarray) -> np.ndarray:
    seeds, _ = ndimage.label(ndimage.maximum_filter(heights, 5) == heights, structure=np.ones((3, 3, 3)))
    result: np.ndarray = seeds.astype(np.int32)
    return result


STEPS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, 1), (0, 1, 0), (1, 0, 0))
BITS = (LOW_Z, LOW_Y, LOW_X, HIGH_X, HIGH_Y, HIGH_Z)


def plain_flood(heights: np.ndarray, seeds: np.ndarray, faces: np.ndarray | None = None) -> np.ndarray:
    """One priority queue over how high water comes, and then over when a voxel was reached; through open faces only."""
    faces = np.full(seeds.shape, ALL_FACES, np.uint8) if faces is None else faces
    labels, queue = seeds.copy(), list[tuple[float, int, tuple[int, ...]]]()
    for seed in np.argwhere(seeds):
        heapq.heappush(queue, (-heights[tuple(seed)], len(queue), tuple(map(int, seed))))
    age = len(queue)
    while queue:
        level, _, place = heapq.heappop(queue)
        for step, bit in zip(STEPS, BITS, strict=True):
            if not faces[place] & bit:
                continue
            other = tuple(np.add(place, step))
            if all(0 <= i < extent for i, extent in zip(other, heights.shape, strict=True)) and labels[other] == 0:
                labels[other] = labels[place]
                heapq.heappush(queue, (max(level, -heights[other]), age, other))
                age += 1
    return labels


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("levels", [None, 40, 3, 0])
def test_flooding_equals_one_priority_queue(shape: tuple[int, int, int], levels: int | None) -> None:
    heights = heights_of(shape, levels) if levels != 0 else np.zeros(shape, np.float32)
    seeds = seeds_of(heights_of(shape, None))
    np.testing.assert_array_equal(flood(heights, seeds), plain_flood(heights, seeds))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("sections_first", [False, True])
def test_closed_faces_are_crossed_last_and_breadth_first(
    shape: tuple[int, int, int], levels: int | None, sections_first: bool
) -> None:
    heights = heights_of(shape, levels)
    seeds = seeds_of(heights_of(shape, None))
    faces = open_faces(np.random.default_rng(1).random((3, *shape), np.float32), 0.6)
    expected = plain_flood(heights, seeds, faces)
    assert (expected == 0).any()
    flat = np.zeros_like(heights)
    if sections_first:
        expected = plain_flood(flat, expected, np.full(shape, IN_SECTION, np.uint8))
    expected = plain_flood(flat, expected)
    np.testing.assert_array_equal(flood(heights, seeds, faces, sections_first=sections_first), expected)


def test_flooding_equals_scikit_image_where_no_two_voxels_are_equally_high() -> None:
    heights = heights_of((30, 40, 50), None)
    seeds = seeds_of(heights)
    assert seeds.max() > 20
    np.testing.assert_array_equal(flood(heights, seeds), watershed(-heights, seeds))


def test_heights_are_rounded_down_to_levels() -> None:
    heights = heights_of((20, 30, 30), 40)
    seeds = seeds_of(heights)
    lifted = heights + np.random.default_rng(4).random(heights.shape, np.float32) * np.float32(0.99 * LEVEL)
    np.testing.assert_array_equal(flood(lifted, seeds), plain_flood(heights, seeds))


def test_one_outlier_that_squeezes_all_heights_into_one_level_leaves_a_flood_by_steps() -> None:
    heights = heights_of((20, 30, 30), None)
    seeds = seeds_of(heights)
    lifted = heights.copy()
    lifted[tuple(np.argwhere(seeds)[0])] = 1e12
    levelled = np.where(lifted == lifted.max(), np.float32(1), np.float32(0))
    np.testing.assert_array_equal(flood(lifted, seeds), plain_flood(levelled, seeds))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spacing", [(1, 1, 1), (5, 1, 1), (1, 2, 3), (12.5, 1, 1), (40 / 9, 1, 1)])
@pytest.mark.parametrize("share", [0.6, 0.999])
def test_distances_equal_those_of_scipy(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], share: float
) -> None:
    foreground = np.random.default_rng(1).random(shape) < share
    foreground[-1, 0, 0] = False
    expected = ndimage.distance_transform_edt(foreground, sampling=spacing).astype(np.float32)
    np.testing.assert_array_equal(boundary_distance(foreground, spacing), expected)


@pytest.mark.parametrize("radii", [(0, 0, 0), (1, 2, 3), (0, 4, 4), (50, 1, 60)])
def test_the_maximum_of_a_window_is_that_of_scipy(radii: tuple[int, int, int]) -> None:
    values = np.random.default_rng(2).random((9, 14, 11), np.float32)
    expected = ndimage.maximum_filter(values, [2 * radius + 1 for radius in radii], mode="nearest")
    np.testing.assert_array_equal(window_maximum(values, radii), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("deviations", [(1.0, 1.0, 1.0), (0.0, 0.7, 0.7), (0.3, 2.6, 9.0)])
def test_smoothing_is_scipys(shape: tuple[int, int, int], deviations: tuple[float, float, float]) -> None:
    values = np.random.default_rng(2).random(shape, np.float32)
    expected = ndimage.gaussian_filter(values, deviations)
    smooth(values, deviations)
    np.testing.assert_allclose(values, expected, rtol=3e-7)  # the same bits, where no compiler fuses sums and products


def test_a_graph_of_many_edges_loses_none() -> None:
    """Every voxel is a fragment, with ids far apart: the table must grow several times."""
    fragments = np.random.default_rng(3).permutation(18**3).reshape(18, 18, 18).astype(np.uint64) * np.uint64(2**40) + 1
    affinities = np.full((3, 18, 18, 18), 51, np.uint8)
    graph = region_graph_statistics(affinities, fragments, ((-1, 0, 0), (0, -1, 0), (0, 0, -1)))
    assert len(graph.edges) == 3 * 17 * 18 * 18
    assert (graph.count == 1).all()
    np.testing.assert_allclose(graph.affinity_sum, 0.2, atol=1e-7)


@pytest.mark.parametrize("home", ["writable", "read-only"])
def test_installations_that_cannot_be_written_compile_all_the_same(tmp_path: Path, home: str) -> None:
    """The folder beside the source is blocked by a file of its name, and so is the user's cache."""
    package = tmp_path / "installed"
    package.mkdir()
    (package / "__init__.py").write_text("")
    source = Path(__file__).parents[2] / "pipeline" / "segmentation" / "compiled.py"
    shutil.copy(source, package / "compiled.py")
    (package / "loops.py").write_text(
        "from .compiled import compiled\n@compiled\ndef total(n):\n    return sum(range(n))\n"
    )
    (package / "__pycache__").write_text("")
    cache = tmp_path / "cache"
    if home == "read-only":
        cache.write_text("")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA", "IPYTHON"))}
    environment |= {
        "HOME": str(cache),
        "XDG_CACHE_HOME": str(cache),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
    }
    code = "from installed.loops import total; print(total(5))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert (done.stdout.strip(), done.returncode) == ("10", 0), done.stderr
    assert (home == "writable") == any(cache.rglob("*.code"))
