"""The graph store keeps exactly what blocks wrote, however often and by however many processes."""

from __future__ import annotations

import multiprocessing
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from funlib.geometry import Roi

from pipeline.errors import UserError
from pipeline.rag import EdgeTable, NodeTable, RagStore, open_rag

VOXELS_PER_BLOCK = 1000


def make_nodes(block: int, number: int) -> NodeTable:
    local = np.arange(1, number + 1, dtype=np.uint64)
    begin = np.stack([np.full(number, block * 10), np.arange(number), np.arange(number)], axis=1)
    return NodeTable(
        id=np.uint64(block * VOXELS_PER_BLOCK) + local,
        centre=begin + 0.5,
        size=np.arange(1, number + 1),
        begin=begin,
        end=begin + 1,
    )


def make_edges(block: int, number: int) -> EdgeTable:
    ids = make_nodes(block, number).id
    return EdgeTable.of(
        np.stack([ids[:-1], ids[1:]], axis=1), np.full(number - 1, 4), np.linspace(0.0, 4.0, number - 1)
    )


def write_blocks(url: str, blocks: list[int]) -> None:
    with open_rag(url) as store:
        for block in blocks:
            store.write_block(block, make_nodes(block, 50), make_edges(block, 50))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'rag.sqlite'}"


@pytest.fixture
def store(url: str) -> RagStore:
    return open_rag(url)


def test_what_was_written_comes_back_exactly(store: RagStore) -> None:
    nodes, edges = make_nodes(3, 10), make_edges(3, 10)
    store.write_block(3, nodes, edges)
    read = store.read_nodes()
    for column in ("id", "centre", "size", "begin", "end"):
        np.testing.assert_array_equal(getattr(read, column), getattr(nodes, column))
        assert getattr(read, column).dtype == getattr(nodes, column).dtype
    stored = store.read_edges()
    for column in ("u", "v", "count", "affinity_sum", "score"):
        np.testing.assert_array_equal(getattr(stored, column), getattr(edges, column))


def test_replaying_a_block_replaces_its_rows(store: RagStore) -> None:
    store.write_block(0, make_nodes(0, 50), make_edges(0, 50))
    store.write_block(0, make_nodes(0, 20), make_edges(0, 20))
    counts = store.counts()
    assert (counts.blocks, counts.nodes, counts.edges) == (1, 20, 19)


def test_portions_of_an_edge_are_summed_over_blocks(store: RagStore) -> None:
    pair = np.array([[1, 2]])
    store.write_block(0, make_nodes(0, 2), EdgeTable.of(pair, np.array([3]), np.array([1.5])))
    store.write_block(1, NodeTable.empty(), EdgeTable.of(pair, np.array([1]), np.array([0.5])))
    edges = store.read_edges()
    assert edges.count.tolist() == [4]
    assert edges.mean_affinity.tolist() == [0.5]


def test_a_block_that_dies_while_writing_leaves_the_old_rows(store: RagStore) -> None:
    store.write_block(0, make_nodes(0, 5), make_edges(0, 5))
    doubled = EdgeTable.concatenate([make_edges(0, 9), make_edges(0, 9)])
    with pytest.raises(sqlite3.IntegrityError):
        store.write_block(0, make_nodes(0, 9), doubled)
    assert store.counts().nodes == 5
    assert store.counts().edges == 4


def test_writers_in_several_processes_lose_nothing(url: str, store: RagStore) -> None:
    context = multiprocessing.get_context("spawn")
    shares = [list(range(first, 40, 2)) for first in (0, 1)]
    processes = [context.Process(target=write_blocks, args=(url, share)) for share in shares]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    counts = store.counts()
    assert (counts.blocks, counts.nodes, counts.edges) == (40, 40 * 50, 40 * 49)


def test_a_region_gives_its_nodes_and_the_edges_between_them(store: RagStore) -> None:
    for block in range(4):
        store.write_block(block, make_nodes(block, 50), make_edges(block, 50))
    roi = Roi((10, 0, 0), (11, 10, 10))
    nodes, edges = store.read_nodes(roi), store.read_edges(roi)
    assert nodes.id.tolist() == [b * VOXELS_PER_BLOCK + i for b in (1, 2) for i in range(1, 11)]
    assert np.isin(edges.pairs, nodes.id).all()
    assert len(edges) == 18
    graph = store.to_networkx(roi)
    assert (graph.number_of_nodes(), graph.number_of_edges()) == (20, 18)
    assert graph.edges[1001, 1002]["count"] == 4


def test_scores_belong_to_their_block_and_can_be_replayed(store: RagStore) -> None:
    store.write_block(0, make_nodes(0, 5), make_edges(0, 5))
    edges = store.read_edges()
    scored = EdgeTable(edges.u, edges.v, edges.count, edges.affinity_sum, np.array([0.1, 0.2, 0.3, 0.4]))
    store.write_scores(0, scored)
    store.write_scores(0, scored.select(np.array([0, 2])))
    np.testing.assert_array_equal(store.read_edges().score, [0.1, np.nan, 0.3, np.nan])
    store.clear_scores()
    assert store.counts().scored_edges == 0


def test_streams_are_cut_into_small_tables_without_loss(store: RagStore) -> None:
    for block in range(3):
        store.write_block(block, make_nodes(block, 50), make_edges(block, 50))
    tables = list(store.iterate_edges(rows=40))
    assert max(len(table) for table in tables) == 40
    assert len(EdgeTable.concatenate(tables)) == 3 * 49
    assert NodeTable.concatenate(store.iterate_nodes(rows=40)).id.tolist() == store.read_nodes().id.tolist()


def test_drop_leaves_an_empty_store_that_can_be_written(store: RagStore) -> None:
    store.write_block(0, make_nodes(0, 5), make_edges(0, 5))
    store.set_note("key", "abc")
    store.drop()
    assert store.counts().nodes == 0
    assert store.note("key") is None
    store.write_block(0, make_nodes(0, 5), make_edges(0, 5))
    assert store.counts().nodes == 5


def test_a_relative_file_lies_in_the_given_directory(tmp_path: Path) -> None:
    open_rag("sqlite:///graph.sqlite", tmp_path).close()
    assert (tmp_path / "graph.sqlite").exists()


@pytest.mark.parametrize("url", ["oracle://somewhere", "rag.sqlite", "sqlite://rag.sqlite", "sqlite:///"])
def test_unknown_stores_are_refused_in_one_line(url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rag\.url"):
        open_rag(url, tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rag.sqlite").write_text("this is not a database" * 100)
    with pytest.raises(UserError, match="SQLite"):
        open_rag("sqlite:///rag.sqlite", tmp_path)
