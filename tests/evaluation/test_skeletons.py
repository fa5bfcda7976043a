from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

from pipeline.evaluation import expected_run_length


def chain(length: int, y: float = 0, first: int = 0) -> nx.Graph:
    """A skeleton along x with nodes 10 nm apart."""
    graph = nx.path_graph(range(first, first + length + 1))
    for node in graph:
        graph.nodes[node]["position"] = (0, y, 10 * (node - first))
    return graph


def test_a_perfect_segmentation_runs_along_whole_neurites() -> None:
    skeletons = [chain(4), chain(2, first=10)]
    segments = {node: index + 1 for index, graph in enumerate(skeletons) for node in graph}
    assert expected_run_length(skeletons, segments) == pytest.approx((40**2 + 20**2) / 60)


def test_a_split_loses_its_edge_and_shortens_the_runs() -> None:
    segments = {0: 1, 1: 1, 2: 2, 3: 2, 4: 2}
    assert expected_run_length([chain(4)], segments) == pytest.approx((10**2 + 20**2) / 40)


def test_a_merger_ends_every_run_of_its_segment() -> None:
    skeletons = [chain(4), chain(2, first=10)]
    segments = {0: 1, 1: 1, 2: 1, 3: 2, 4: 2, 10: 1, 11: 3, 12: 3}
    assert expected_run_length(skeletons, segments) == pytest.approx((10**2 + 10**2) / 60)
    assert expected_run_length(skeletons, segments, merge_nodes=2) == pytest.approx((20**2 + 10**2 + 10**2) / 60)


def test_background_is_no_run() -> None:
    assert expected_run_length([chain(3)], dict.fromkeys(range(4), 0)) == 0


def test_positions_are_looked_up_in_the_segmentation() -> None:
    segmentation = np.ones((1, 2, 5), np.uint64)
    segmentation[:, 1, :] = 2
    segmentation[0, 0, 3:] = 0
    skeletons = [chain(4), chain(4, y=10)]
    kwargs: dict[str, Any] = {"voxel_size": (40, 10, 10), "offset": (0, 0, 0)}
    assert expected_run_length(skeletons, segmentation, **kwargs) == pytest.approx((20**2 + 40**2) / 80)
    shifted: dict[str, Any] = {"voxel_size": (40, 10, 10), "offset": (0, 0, 20)}  # the first two nodes lie outside
    assert expected_run_length([chain(4)], segmentation, **shifted) == pytest.approx(20**2 / 40)


def test_one_graph_of_several_neurites_equals_a_list_of_them() -> None:
    skeletons = [chain(4), chain(2, first=10)]
    segments = {0: 1, 1: 1, 2: 1, 3: 2, 4: 2, 10: 1, 11: 3, 12: 3}
    together = nx.compose(*skeletons)
    assert expected_run_length(together, segments) == expected_run_length(skeletons, segments)


def test_skeletons_without_length() -> None:
    assert expected_run_length([], {}) == 0
    assert expected_run_length([chain(0)], {0: 1}) == 0


def test_missing_positions_and_segments_are_named() -> None:
    graph = chain(2)
    with pytest.raises(ValueError, match="node 2"):
        expected_run_length([graph], {0: 1, 1: 1})
    del graph.nodes[1]["position"]
    with pytest.raises(ValueError, match="node 1 has no position"):
        expected_run_length([graph], dict.fromkeys(range(3), 1))
