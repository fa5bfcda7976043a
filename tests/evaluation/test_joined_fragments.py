"""How a graph joins a few fragments is found on the disk as in memory, and a large run is scored as a small one."""

from __future__ import annotations

import sqlite3
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cells_run import fill_run, make_run

from pipeline import disk_arrays
from pipeline.errors import UserError
from pipeline.evaluation import best_threshold, evaluate, scored_graph
from pipeline.evaluation.joined_fragments import edges_among
from pipeline.rag import EdgeTable, NodeTable, RagStore, block_index, open_rag
from pipeline.segmentation import connected_components

BLOCKS = 20


def random_graph(store: RagStore, fragments: int, seed: int) -> EdgeTable:
    """A graph whose fragments are joined through each other, in blocks; a tenth of the edges have no score."""
    rng = np.random.default_rng(seed)
    tables = []
    for block in range(BLOCKS):
        ids = np.arange(block * 10 * fragments + 1, block * 10 * fragments + fragments + 1).astype(np.uint64)
        boxes = np.zeros((fragments, 3), np.int64)
        nodes = NodeTable(ids, boxes + 0.5, np.ones(fragments, np.int64), boxes, boxes + 1)
        u = ids[rng.integers(0, fragments, fragments)] - np.uint64(10 * fragments * min(block, 1))
        pairs = np.unique(np.sort(np.stack([u, rng.permutation(ids)], axis=1), axis=1), axis=0)
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        table = EdgeTable.of(pairs, np.ones(len(pairs)), np.ones(len(pairs)))
        store.write_block(block, nodes, table)
        scores = np.where(rng.random(len(pairs)) < 0.1, np.nan, np.round(rng.random(len(pairs)), 2))
        tables.append(replace(table, score=scores))
        store.write_scores(block, tables[-1].select(~np.isnan(scores)))
    return EdgeTable.concatenate(tables)


@pytest.mark.parametrize("seed", range(3))
def test_a_few_edges_join_some_fragments_as_the_graph_does(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_arrays, "CHUNK", 7)
    with open_rag(f"sqlite:///{tmp_path}/rag.sqlite") as store:
        whole = random_graph(store, 12, seed)
        every = store.read_nodes().id
        some = np.sort(np.random.default_rng(seed).choice(every, 25, replace=False))
        few = edges_among(store, np.append(some, np.uint64(10**6)), [0.7, 0.2, 0.5, 0.2], tmp_path)
    assert np.isin(few.v, some).all()
    for threshold in (0.2, 0.5, 0.7):
        expected = connected_components(every, whole.pairs, whole.score, threshold)
        found = connected_components(some, few.pairs, few.score, threshold)
        chosen = expected[np.isin(expected[:, 0], found[:, 0])]
        assert np.array_equal(found, chosen)
        assert len(np.unique(chosen[:, 1])) < len(chosen)


def test_no_more_than_a_portion_of_the_graph_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_arrays, "CHUNK", 1000)
    monkeypatch.setattr(block_index, "GROUP_ROWS", 1000)
    iterate_nodes, iterate_edges = RagStore.iterate_nodes, RagStore.iterate_edges
    monkeypatch.setattr(RagStore, "iterate_nodes", lambda store: iterate_nodes(store, 1000))
    monkeypatch.setattr(RagStore, "iterate_edges", lambda store: iterate_edges(store, 1000))
    with open_rag(f"files:///{tmp_path}/graph") as store:
        whole = random_graph(store, 1500, 0)
        edges_among(store, whole.u[:10], [0.5], tmp_path)
        tracemalloc.start()
        edges_among(store, np.unique(whole.u[:10]), [0.3, 0.5], tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < len(whole) * 40, "less than one table of the graph"


def test_edges_of_fragments_that_are_not_there_are_told(tmp_path: Path) -> None:
    with open_rag(f"sqlite:///{tmp_path}/rag.sqlite") as store:
        edge = EdgeTable.of(np.array([[1, 2]]), np.array([1]), np.array([0.5]))
        store.write_block(0, NodeTable.empty(), edge)
        with pytest.raises(UserError, match="does not have"):
            edges_among(store, np.array([1], np.uint64), [0.5], tmp_path)


def test_more_edges_than_the_graph_says_are_told(tmp_path: Path) -> None:
    with open_rag(f"sqlite:///{tmp_path}/rag.sqlite") as store:
        random_graph(store, 12, 0)
        with sqlite3.connect(tmp_path / "rag.sqlite") as connection:
            connection.execute("UPDATE blocks SET edges = edges - 1")
        with pytest.raises(UserError, match="more edges than it says"):
            edges_among(store, np.array([1], np.uint64), [0.5], tmp_path)


@pytest.mark.parametrize("changes", [{}, {"agglomerate": {"maximum_score": 0.3}}, {"evaluate": {"relabel": True}}])
def test_a_large_graph_is_scored_as_a_small_one(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, **changes)
    fill_run(run)
    expected, errors = evaluate(run), (run.directory / "errors.csv").read_text()
    monkeypatch.setattr(scored_graph, "EDGES_IN_MEMORY", 0)
    monkeypatch.setattr(scored_graph, "scored_edges", lambda run: pytest.fail("the graph was read as a whole"))
    assert evaluate(run) == expected
    assert (run.directory / "errors.csv").read_text() == errors
    assert best_threshold(run) == expected["best"]["threshold"]
