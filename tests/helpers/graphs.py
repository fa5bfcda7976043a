"""Small graphs for the tests of the stores."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from pipeline.rag import EdgeTable, NodeTable, RagStore

VOXELS_PER_BLOCK = 1000


def make_nodes(block: int, number: int) -> NodeTable:
    """Nodes on a diagonal."""
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
    """A chain through the nodes, without scores."""
    ids = make_nodes(block, number).id
    return EdgeTable.of(
        np.stack([ids[:-1], ids[1:]], axis=1), np.full(number - 1, 4), np.linspace(0.0, 4.0, number - 1)
    )


def write(store: RagStore, block: int, number: int) -> None:
    """A block of `number` nodes."""
    store.write_block(block, make_nodes(block, number), make_edges(block, number))


def random_graph(store: RagStore, blocks: int, seed: int) -> tuple[NodeTable, EdgeTable]:
    """Write nodes anywhere, and edges between any of them in any block, some in several, some with a score.

    Returns:
        All nodes, and all edges as they were written.
    """
    rng = np.random.default_rng(seed)
    nodes = []
    for block in range(blocks):
        table = make_nodes(block, 9)
        nodes.append(replace(table, centre=rng.uniform(-100, 100, (9, 3)), size=rng.integers(1, 10**12, 9)))
    ids = np.concatenate([table.id for table in nodes])
    edges = []
    for block, table in enumerate(nodes):
        pairs = np.unique(np.sort(rng.choice(ids, (12, 2)), axis=1), axis=0)
        pairs = pairs[pairs[:, 0] < pairs[:, 1]]
        made = EdgeTable.of(pairs, rng.integers(1, 50, len(pairs)), rng.uniform(0, 1, len(pairs)))
        score = np.where(rng.random(len(pairs)) < 0.5, rng.uniform(0, 1, len(pairs)), np.nan)
        edges.append(replace(made, score=score))
        store.write_block(block, table, edges[-1])
    return NodeTable.concatenate(nodes), EdgeTable.concatenate(edges)


def assert_same(first: NodeTable | EdgeTable, second: NodeTable | EdgeTable) -> None:
    """Bit by bit, types included."""
    for field in fields(first):
        one, other = getattr(first, field.name), getattr(second, field.name)
        np.testing.assert_array_equal(one, other, err_msg=field.name)
        assert one.dtype == other.dtype, field.name
