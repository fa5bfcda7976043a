"""Every graph store keeps exactly what blocks wrote, however often and by however many processes."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from funlib.geometry import Roi
from graph_stores import STORES, Stores
from graphs import VOXELS_PER_BLOCK, assert_same, make_edges, make_nodes, random_graph, write

from pipeline.errors import UserError
from pipeline.rag import EdgeTable, NodeTable, RagStore, block_index, open_rag, rag_exists

processes = multiprocessing.get_context("fork")
"""Children open stores of their own, and parents only when they are done."""


@pytest.fixture
def store(url: str) -> Iterator[RagStore]:
    with open_rag(url) as opened:
        yield opened


def test_a_store_exists_once_it_was_opened(url: str) -> None:
    assert not rag_exists(url)
    open_rag(url).close()
    assert rag_exists(url)


def test_what_was_written_comes_back_exactly(store: RagStore, url: str) -> None:
    nodes, edges = make_nodes(3, 10), make_edges(3, 10)
    nodes = replace(nodes, centre=nodes.centre * (1 + 1e-15) / 3)
    edges = replace(edges, affinity_sum=edges.affinity_sum / 3, score=np.linspace(0, 1, 9) / 3)
    store.write_block(3, nodes, edges)
    with open_rag(url) as other:
        assert_same(other.read_nodes(), nodes)
        assert_same(other.read_edges(), edges)


def test_the_largest_ids_come_back_and_larger_ones_are_refused(store: RagStore) -> None:
    nodes = replace(make_nodes(0, 2), id=np.array([1, 2**63 - 1], dtype=np.uint64))
    edges = EdgeTable.of(nodes.id[None], np.array([1]), np.array([0.5]))
    store.write_block(0, nodes, edges)
    assert_same(store.read_nodes(), nodes)
    assert_same(store.read_edges(), edges)
    with pytest.raises(UserError, match="2\\^63"):
        store.write_block(0, replace(nodes, id=np.array([1, 2**63], dtype=np.uint64)), edges)
    assert_same(store.read_nodes(), nodes)


def test_replaying_a_block_replaces_its_rows(store: RagStore) -> None:
    for number in (50, 20, 20):
        write(store, 0, number)
    counts = store.counts()
    assert (counts.blocks, counts.nodes, counts.edges) == (1, 20, 19)
    assert_same(store.read_edges(), make_edges(0, 20))


def test_portions_of_an_edge_are_summed_over_blocks(store: RagStore) -> None:
    pair = np.array([[1, 2]])
    store.write_block(0, make_nodes(0, 2), EdgeTable.of(pair, np.array([3]), np.array([1.5])))
    store.write_block(1, NodeTable.empty(), EdgeTable.of(pair, np.array([1]), np.array([0.5])))
    edges = store.read_edges()
    assert edges.count.tolist() == [4]
    assert edges.mean_affinity.tolist() == [0.5]


def test_the_order_of_blocks_changes_no_bit(stores: Stores, kind: str) -> None:
    summands = [1e16, 1.0, -1e16, 3.0, 1e-3]
    sums = []
    for order in ([0, 1, 2, 3, 4], [3, 1, 4, 0, 2]):
        with open_rag(stores.url(kind)) as store:
            for block in order:
                edge = EdgeTable.of(np.array([[1, 2]]), np.array([1]), np.array([summands[block]]))
                store.write_block(block, NodeTable.empty(), edge)
            sums.append(store.read_edges().affinity_sum.tolist())
    assert sums[0] == sums[1]


def test_an_edge_that_is_there_twice_is_refused_and_the_old_block_stays(store: RagStore) -> None:
    write(store, 0, 5)
    doubled = EdgeTable.concatenate([make_edges(0, 9), make_edges(0, 9)])
    with pytest.raises(ValueError, match="twice"):
        store.write_block(0, make_nodes(0, 9), doubled)
    assert store.counts().nodes == 5
    assert store.counts().edges == 4


MOMENTS = [
    ("sqlite", "pipeline.rag.sqlite", "_replace_entry", 5),
    ("files", "pipeline.rag.files", "edge_records", 5),
    ("postgresql", "psycopg", "Copy.write", 5),
    ("mongodb", "pymongo.collection", "Collection.find_one_and_update", 5),
    ("mongodb", "pipeline.rag.mongo", "MongoRag._delete", 9),
]
"""Kind of store, where a writer of a block with 5 nodes dies while it writes 9, and how many are left."""


def die_while_writing(url: str, module: str, name: str) -> None:
    """Kill this process, as `kill -9` does, when a function is reached."""
    owner = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    with open_rag(url) as store:
        setattr(owner, last, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        write(store, 0, 9)


@pytest.mark.parametrize(("kind", "module", "name", "left"), MOMENTS, ids=[f"{m[0]}-{m[2]}" for m in MOMENTS])
def test_a_writer_that_is_killed_leaves_the_old_or_the_new_block(url: str, module: str, name: str, left: int) -> None:
    with open_rag(url) as store:
        write(store, 0, 5)
    writer = processes.Process(target=die_while_writing, args=(url, module, name))
    writer.start()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL
    with open_rag(url) as store:
        assert_same(store.read_nodes(), make_nodes(0, left))
        assert_same(store.read_edges(), make_edges(0, left))
        assert (store.counts().nodes, store.counts().edges) == (left, left - 1)
        write(store, 0, 9)
        assert_same(store.read_nodes(), make_nodes(0, 9))
        assert_same(store.read_edges(), make_edges(0, 9))


def write_blocks(url: str, blocks: list[int]) -> None:
    with open_rag(url) as store:
        for block in blocks:
            write(store, block, 20)


def test_four_writers_lose_nothing_and_double_nothing(url: str) -> None:
    shared = 99
    shares = [[*range(first, 24, 4), shared, first, shared] for first in range(4)]
    writers = [processes.Process(target=write_blocks, args=(url, share)) for share in shares]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    with open_rag(url) as store:
        counts = store.counts()
        assert (counts.blocks, counts.nodes, counts.edges) == (25, 25 * 20, 25 * 19)
        blocks = [*range(24), shared]
        assert_same(store.read_nodes(), NodeTable.concatenate(make_nodes(block, 20) for block in blocks))
        assert_same(store.read_edges(), EdgeTable.concatenate(make_edges(block, 20) for block in blocks))


def test_a_region_gives_what_a_look_at_all_rows_gives(store: RagStore) -> None:
    nodes, written = random_graph(store, blocks=8, seed=3)
    for begin, shape in (((-60, -60, -60), (100, 120, 110)), ((0, -100, -30), (90, 90, 130)), ((500, 0, 0), (9, 9, 9))):
        roi = Roi(begin, shape)
        inside = [all(roi.begin[a] <= c[a] < roi.end[a] for a in range(3)) for c in nodes.centre.tolist()]
        assert_same(store.read_nodes(roi), nodes.select(np.array(inside)))
        ids = set(nodes.id[inside].tolist())
        both = [u in ids and v in ids for u, v in written.pairs.tolist()]
        assert_same(store.read_edges(roi), written.select(np.array(both)).summed())
    assert_same(store.read_edges(), written.summed())
    assert_same(EdgeTable.concatenate(store.iterate_edges()), written)


def test_a_few_blocks_are_read_alone(store: RagStore) -> None:
    for block in (4, 1, 9):
        write(store, block, 5 + block)
    rows = list(store.read_block_rows([9, 3, 4]))
    assert [block for block, _, _ in rows] == [4, 9]
    for block, nodes, edges in rows:
        assert_same(nodes, make_nodes(block, 5 + block))
        assert_same(edges, make_edges(block, 5 + block))
    assert_same(store.read_block_edges([1, 2]), make_edges(1, 6))
    assert (store.count_edges([9, 3, 4]), store.count_edges([3])) == (13 + 8, 0)
    blocks, numbers = store.edges_per_block()
    assert (blocks.tolist(), numbers.tolist()) == ([1, 4, 9], [5, 8, 13])
    assert list(store.read_block_rows([])) == []


def test_files_of_other_blocks_are_not_looked_at(tmp_path: Path) -> None:
    with open_rag(f"files:///{tmp_path}/graph") as store:
        for block in (1, 2):
            write(store, block, 5)
    (tmp_path / "graph" / "blocks" / "0" / "2.rag").write_bytes(b"damaged")
    with open_rag(f"files:///{tmp_path}/graph") as store:
        assert_same(store.read_block_edges([1]), make_edges(1, 5))
        assert [block for block, _, _ in store.read_block_rows([1])] == [1]
        with pytest.raises(UserError, match="damaged"):
            list(store.iterate_edges())


def test_a_graph_of_networkx_has_the_attributes(store: RagStore) -> None:
    for block in range(4):
        write(store, block, 50)
    graph = store.to_networkx(Roi((10, 0, 0), (11, 10, 10)))
    assert (graph.number_of_nodes(), graph.number_of_edges()) == (20, 18)
    assert graph.edges[1001, 1002]["count"] == 4
    assert graph.nodes[VOXELS_PER_BLOCK + 1]["centre"] == (10.5, 0.5, 0.5)


def test_scores_belong_to_their_block_and_can_be_replayed(store: RagStore) -> None:
    write(store, 0, 5)
    write(store, 1, 5)
    edges = make_edges(0, 5)
    scored = replace(edges, score=np.array([0.1, 0.2, 0.3, 0.4]))
    elsewhere = make_edges(7, 3)
    store.write_scores(0, scored)
    store.write_scores(0, EdgeTable.concatenate([elsewhere, scored.select(np.array([2, 0]))]))
    np.testing.assert_array_equal(store.read_edges().score, [0.1, np.nan, 0.3, np.nan, *[np.nan] * 4])
    assert store.counts().scored_edges == 2
    store.write_scores(44, scored)
    assert store.counts().blocks == 2
    store.clear_scores()
    assert store.counts().scored_edges == 0
    assert_same(store.read_edges(), EdgeTable.concatenate([edges, make_edges(1, 5)]))


def test_streams_are_cut_into_small_tables_without_loss(store: RagStore) -> None:
    for block in (2, 0, 1):
        write(store, block, 50)
    tables = list(store.iterate_edges(rows=40))
    assert [len(table) for table in tables] == [40, 40, 40, 27]
    assert_same(EdgeTable.concatenate(tables), EdgeTable.concatenate(make_edges(block, 50) for block in range(3)))
    assert_same(NodeTable.concatenate(store.iterate_nodes(rows=7)), store.read_nodes())


def test_a_stream_holds_a_small_part_of_the_graph(store: RagStore, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks, number = (12, 200) if kind == "mongodb" else (60, 1000)
    monkeypatch.setattr(block_index, "GROUP_ROWS", 2 * number)
    for block in range(blocks):
        write(store, block, number)
    tracemalloc.start()
    rows = sum(len(table) for table in store.iterate_edges(rows=number))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == blocks * (number - 1)
    assert peak < rows * 40 / 2 + 300_000


def test_drop_leaves_an_empty_store_that_can_be_written(store: RagStore) -> None:
    write(store, 0, 5)
    store.set_note("key", "abc")
    store.drop()
    assert store.counts().nodes == 0
    assert store.note("key") is None
    write(store, 0, 5)
    assert store.counts().nodes == 5


def test_notes_are_kept_replaced_and_removed(store: RagStore, url: str) -> None:
    store.set_note("rag", "first")
    store.set_note("rag", "sécond\n")
    store.set_note("segment_0.50/a", "x")
    store.set_note("gone", "x")
    store.set_note("gone", None)
    with open_rag(url) as other:
        assert other.notes() == {"rag": "sécond\n", "segment_0.50/a": "x"}
        assert other.note("gone") is None


def test_a_block_without_anything_counts_as_written(store: RagStore) -> None:
    store.write_block(7, NodeTable.empty(), EdgeTable.empty())
    assert store.blocks().tolist() == [7]
    assert len(store.read_nodes()) == len(store.read_edges()) == 0


@pytest.mark.parametrize("target", STORES)
def test_a_copy_preserves_everything(stores: Stores, kind: str, target: str) -> None:
    with open_rag(stores.url(kind)) as source, open_rag(stores.url(target)) as copy:
        nodes, edges = random_graph(source, blocks=3, seed=1)
        source.write_block(9, NodeTable.empty(), EdgeTable.empty())
        source.set_note("rag", "key")
        source.copy_to(copy)
        assert_same(copy.read_nodes(), nodes)
        assert_same(EdgeTable.concatenate(copy.iterate_edges()), edges)
        assert copy.blocks().tolist() == [0, 1, 2, 9]
        assert (copy.notes(), copy.counts()) == (source.notes(), source.counts())
        with pytest.raises(UserError, match="not empty"):
            source.copy_to(copy)
