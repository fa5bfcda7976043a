from __future__ import annotations

import itertools
from collections import defaultdict

import numpy as np
import pytest

from pipeline.segmentation import RegionGraph, merge_graphs, region_graph, region_graph_statistics

NEAREST = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
LONG = (*NEAREST, (-2, 0, 0), (0, 3, -1), (0, 0, 4))


def random_volume(
    shape: tuple[int, int, int] = (9, 13, 11), channels: int = 3, dtype: type = np.float32, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    fragments = np.kron(rng.integers(0, 12, tuple(-(-s // 3) for s in shape)), np.ones((3, 3, 3), int))
    fragments = fragments[tuple(slice(s) for s in shape)].astype(np.uint64)
    affinities = rng.random((channels, *shape))
    return (affinities * 255).astype(np.uint8) if dtype == np.uint8 else affinities.astype(dtype), fragments


def plain_loop(
    affinities: np.ndarray, fragments: np.ndarray, offsets: tuple[tuple[int, int, int], ...]
) -> dict[tuple[int, int], list[float]]:
    contacts = defaultdict(list)
    for channel, offset in enumerate(offsets):
        for p in np.ndindex(fragments.shape):
            q = tuple(np.add(p, offset))
            if all(0 <= i < extent for i, extent in zip(q, fragments.shape, strict=True)):
                u, v = sorted((int(fragments[p]), int(fragments[q])))
                if u not in (0, v):
                    contacts[u, v].append(float(affinities[(channel, *p)]))
    return contacts


@pytest.mark.parametrize("offsets", [NEAREST, LONG])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_edges_equal_a_plain_loop(offsets: tuple[tuple[int, int, int], ...], dtype: type) -> None:
    affinities, fragments = random_volume(channels=len(offsets), dtype=dtype)
    expected = plain_loop(affinities, fragments, offsets)
    edges, count, mean = region_graph(affinities, fragments, offsets)
    assert edges.dtype == np.uint64
    assert mean.dtype == np.float64
    assert [tuple(edge) for edge in edges.tolist()] == sorted(expected)
    scale = 255 if dtype == np.uint8 else 1
    assert count.tolist() == [len(expected[u, v]) for u, v in edges.tolist()]
    np.testing.assert_allclose(mean, [np.mean(expected[u, v]) / scale for u, v in edges.tolist()], atol=1e-7)


def test_a_contact_worked_by_hand() -> None:
    fragments = np.array([[[7, 7, 3]]], np.uint64)
    affinities = np.zeros((3, 1, 1, 3), np.float32)
    affinities[2, 0, 0] = [0.9, 0.8, 0.25]  # the last is between voxel 2 and voxel 1
    edges, count, mean = region_graph(affinities, fragments, NEAREST)
    assert (edges.tolist(), count.tolist(), mean.tolist()) == ([[3, 7]], [1], [0.25])


@pytest.mark.parametrize("block", [(1, 1, 1), (4, 5, 3), (9, 13, 11), (2, 13, 7), (100, 100, 100)])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_blocks_add_up_to_the_volume_to_the_last_bit(block: tuple[int, int, int], dtype: type) -> None:
    affinities, fragments = random_volume(channels=len(LONG), dtype=dtype)
    whole = region_graph_statistics(affinities, fragments, LONG)
    parts = [
        region_graph_statistics(
            affinities, fragments, LONG, tuple(slice(b, b + s) for b, s in zip(begin, block, strict=True))
        )
        for begin in itertools.product(*(range(0, e, s) for e, s in zip(fragments.shape, block, strict=True)))
    ]
    np.random.default_rng(0).shuffle(parts)
    total = merge_graphs(parts)
    assert np.array_equal(total.edges, whole.edges)
    assert np.array_equal(total.count, whole.count)
    assert np.array_equal(total.affinity_sum, whole.affinity_sum)


def test_a_block_sees_its_pairs_from_one_voxel_of_context() -> None:
    affinities, fragments = random_volume()
    cut = (slice(2, 7), slice(4, 9), slice(0, 6))
    around = tuple(slice(max(0, s.start - 1), s.stop) for s in cut)
    inner = tuple(slice(s.start - a.start, s.stop - a.start) for s, a in zip(cut, around, strict=True))
    seen = region_graph_statistics(affinities[(slice(None), *around)], fragments[around], NEAREST, inner)
    full = region_graph_statistics(affinities, fragments, NEAREST, cut)
    assert np.array_equal(seen.edges, full.edges)
    assert np.array_equal(seen.affinity_sum, full.affinity_sum)


def test_ids_from_the_far_end_of_a_huge_volume() -> None:
    affinities, fragments = random_volume()
    edges, count, _ = region_graph(affinities, fragments, NEAREST)
    far = np.where(fragments % 2 == 0, fragments, fragments + np.uint64(2**61)) * (fragments > 0)
    far_edges, far_count, _ = region_graph(affinities, far, NEAREST)
    assert far_edges.max() > 2**61
    assert sorted(far_count.tolist()) == sorted(count.tolist())
    back = np.sort(np.where(far_edges > 2**60, far_edges - np.uint64(2**61), far_edges), axis=1)
    assert np.array_equal(back[np.lexsort(back.T[::-1])], edges)


@pytest.mark.parametrize("shape", [(1, 1, 1), (0, 3, 3), (3, 3, 3)])
def test_volumes_without_contacts_have_an_empty_graph(shape: tuple[int, int, int]) -> None:
    edges, count, mean = region_graph(np.ones((3, *shape), np.float32), np.ones(shape, np.uint64), NEAREST)
    assert edges.shape == (0, 2)
    assert edges.dtype == np.uint64
    assert len(count) == len(mean) == 0
    assert isinstance(merge_graphs([]), RegionGraph)


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    affinities, fragments = random_volume()
    with pytest.raises(ValueError, match="do not cover"):
        region_graph(affinities[:, 1:], fragments, NEAREST)
    with pytest.raises(ValueError, match="3 affinity channels, but 6 offsets"):
        region_graph(affinities, fragments, LONG)
