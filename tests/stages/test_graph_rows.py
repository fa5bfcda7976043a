"""A graph that is not what the blocks wrote is never used: real databases, damaged behind the back of the engine."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import psycopg
import pymongo
import pytest
from graph_stores import STORES, Stores
from killed_runs import driver_in_the_middle_of, finish, kill_with_workers, prepared
from voronoi_run import assert_same, everything, make_run, store_affinities

from pipeline.engine.audit.requeue import requeue
from pipeline.engine.blocks.checksums import BlockRecords
from pipeline.errors import UserError
from pipeline.rag import EdgeTable, NodeTable, open_rag
from pipeline.rag.files import ENDING
from pipeline.run import Run
from pipeline.stages.agglomerate import agglomeration
from pipeline.stages.auditing import audit, require_graph
from pipeline.stages.by_script import agglomerate, extract_fragments, segment
from pipeline.stages.graph_rows import earlier_node_checksums, edge_checksums, read_graph, score_records
from pipeline.stages.region_graph import RagTask, open_graph

AUDIT = r"audit\.py .*--requeue has them made again"
SECTIONS = {
    "fragments": {"context": [1, 6, 6], "seed_distance": 3, "boundary_threshold": 0.7},
    "segment": {"thresholds": [0.6]},
}


def scored_run(directory: Path, url: str = "sqlite:///rag.sqlite") -> Run:
    """A run whose graph is scored and not segmented yet."""
    run = make_run(directory, rag={"url": url}, **SECTIONS)
    store_affinities(run)
    assert extract_fragments(run) and agglomerate(run)
    return run


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return scored_run(tmp_path_factory.mktemp("scored"))


def copy_of(run: Run, directory: Path) -> Run:
    shutil.copytree(run.directory, directory, dirs_exist_ok=True)
    return Run(run.config.model_copy(update={"run_directory": str(directory)}))


def whole_graph(run: Run) -> tuple[NodeTable, EdgeTable]:
    with open_graph(run) as store:
        return read_graph(store, RagTask(run), agglomeration(run))


def flip(path: Path, place: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def test_a_flipped_bit_of_a_score_is_found_by_who_reads_it_and_mended(tmp_path: Path, scored: Run) -> None:
    """The lowest bit of one score, in the file of the database: any larger change is easier to see."""
    expected = copy_of(scored, tmp_path / "sound")
    assert segment(expected)
    run = copy_of(scored, tmp_path / "damaged")
    _, edges = whole_graph(run)
    path = run.directory / "rag.sqlite"
    flip(path, path.read_bytes().rindex(edges.score[len(edges) // 2].tobytes()), 0)
    for use in (segment, require_graph):
        with pytest.raises(UserError, match=rf"merge scores of 1 block are lost or have changed .*{AUDIT}"):
            use(run)
    findings = audit(run)
    assert [found.unsound for found in findings if found.unsound] == ["the scores of 1 block have another checksum"]
    requeue(findings)
    with pytest.raises(UserError, match="agglomerate is not complete"):
        require_graph(run)
    assert agglomerate(run) and segment(run)
    assert all(found.sound for found in audit(run))
    assert_same(everything(run), everything(expected))


@pytest.mark.parametrize("table", ["edge_records", "node_records", "blocks"])
def test_deleted_rows_are_found_before_scores_are_made_of_the_rest(tmp_path: Path, scored: Run, table: str) -> None:
    run = copy_of(scored, tmp_path)
    key = "block" if table == "blocks" else "part"
    with sqlite3.connect(tmp_path / "rag.sqlite") as connection:
        connection.execute(f"DELETE FROM {table} WHERE {key} = (SELECT max({key}) FROM {table})")
        connection.execute("DELETE FROM notes WHERE name = 'agglomerate'")
    with pytest.raises(UserError, match=rf"lost or changed rows of 1 block .*{AUDIT}"):
        agglomerate(run)
    requeue(audit(run))
    assert agglomerate(run)
    assert_same(columns(whole_graph(run)), columns(whole_graph(scored)))


def columns(graph: tuple[NodeTable, EdgeTable]) -> dict[str, np.ndarray]:
    nodes, edges = graph
    return {
        f"{kind}.{name}": value for kind, table in (("n", nodes), ("e", edges)) for name, value in vars(table).items()
    }


def test_a_kill_that_costs_half_of_the_write_ahead_log_costs_no_result(tmp_path: Path) -> None:
    """The markers say that blocks are done which the database has lost."""
    undisturbed = prepared(tmp_path / "undisturbed", "serial")
    assert finish(undisturbed)
    run = prepared(tmp_path / "run")
    (run.directory / "graph").touch()
    driver, _ = driver_in_the_middle_of(run, 13)
    kill_with_workers(driver)  # a connection that lives on would hold the index of the log
    log = run.directory / "rag.sqlite-wal"
    content = log.read_bytes()
    log.write_bytes(content[: len(content) // 2])
    run = Run(run.config.model_copy(update={"cluster": undisturbed.config.cluster}))  # here, without workers
    with pytest.raises(UserError, match=rf"lost or changed rows of \d+ blocks .*{AUDIT}"):
        finish(run)
    requeue(audit(run))
    assert finish(run)
    assert_same(everything(run), everything(undisturbed))


def test_a_database_that_lost_its_write_ahead_log_is_not_believed(tmp_path: Path, scored: Run) -> None:
    """The rows of a block were wrong and have been made again; without the log, the file still has the wrong ones."""
    run = copy_of(scored, tmp_path / "run")
    with open_graph(run) as store:
        nodes, edges = next(store._read_nodes([4])), next(store._read_edges([4]))
        store.write_block(4, nodes, replace(edges, affinity_sum=edges.affinity_sum + 1))
    requeue(audit(run))
    with closing(sqlite3.connect(run.directory / "rag.sqlite")) as other:
        other.execute("SELECT count(*) FROM blocks").fetchone()  # whoever is connected keeps the log from being moved
        assert agglomerate(run)
        assert_same(columns(whole_graph(run)), columns(whole_graph(scored)))
        shutil.copytree(run.directory, tmp_path / "copy", ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    copy = Run(run.config.model_copy(update={"run_directory": str(tmp_path / "copy")}))
    with pytest.raises(UserError, match=rf"lost or changed rows of 1 block .*{AUDIT}"):
        segment(copy)


@pytest.mark.parametrize("kind", ["sqlite", "files"])
def test_no_flipped_bit_of_a_store_reaches_a_result(tmp_path: Path, kind: str) -> None:
    run = scored_run(tmp_path, {"sqlite": "sqlite:///rag.sqlite", "files": "files:///rag"}[kind])
    sound = columns(whole_graph(run))
    files = [tmp_path / "rag.sqlite"] if kind == "sqlite" else sorted((tmp_path / "rag").rglob(f"*{ENDING}"))
    places, refused = random.Random(kind), 0
    for _ in range({"sqlite": 120, "files": 50}[kind]):
        path = places.choice(files)
        content = path.read_bytes()
        flip(path, places.randrange(len(content)), places.randrange(8))
        try:
            assert_same(columns(whole_graph(run)), sound)
        except UserError as error:
            assert "\n" not in str(error) and ("audit.py" in str(error) or "anew" in str(error)), error
            refused += 1
        path.write_bytes(content)
    assert refused > 15


def without_graph(url: str) -> tuple[str, str]:
    """The URL of the database, and the name of the graph in it, which comes last."""
    head, _, name = url.rpartition("schema=")
    return head.rstrip("?&"), name


def change_in_postgres(url: str) -> None:
    address, schema = without_graph(url)
    with psycopg.connect(address) as connection:
        connection.execute(f"UPDATE {schema}.edge_arrays SET score[1] = score[1] + 1e-6 WHERE block = 4")


def change_in_mongo(url: str) -> None:
    address, name = without_graph(url)
    with pymongo.MongoClient[dict[str, object]](address) as client:
        edges = client.get_default_database()[f"{name}.edges"]
        score = edges.find_one({"block": 4})["score"][0]  # type: ignore[index]
        edges.update_one({"block": 4}, {"$set": {"score.0": score + 1e-6}})


CHANGES: dict[str, Callable[[str], None]] = {"postgresql": change_in_postgres, "mongodb": change_in_mongo}


@pytest.mark.parametrize("kind", STORES[2:])
def test_a_score_that_changed_in_a_server_is_found(tmp_path: Path, stores: Stores, kind: str) -> None:
    url = stores.url(kind)
    run = scored_run(tmp_path, url)
    whole_graph(run)
    CHANGES[kind](url)
    with pytest.raises(UserError, match=r"merge scores of 1 block"):
        segment(run)


def test_graphs_of_earlier_versions_stay_sound(tmp_path: Path, scored: Run) -> None:
    """Their records know less of a node, and nothing of the scores of `global`."""
    run = copy_of(scored, tmp_path)
    graph = RagTask(run)
    records, blocks = graph.records.read(), len(graph.grid)
    checksums = np.zeros(blocks, np.uint64)
    with open_rag(run.config.rag, run.directory) as store:
        for block in range(blocks):
            nodes, edges = next(store._read_nodes([block])), next(store._read_edges([block]))
            checksums[block] = np.concatenate([earlier_node_checksums(nodes), edge_checksums(edges)]).sum()
    assert (checksums != records.checksum).any()
    BlockRecords(graph.records.path, blocks).write_all(checksums)
    score_records(agglomeration(run)).path.unlink()
    assert all(found.sound for found in audit(run))
    assert segment(run)
    with open_rag(run.config.rag, run.directory) as store:
        nodes, edges = next(store._read_nodes([4])), next(store._read_edges([4]))
        store.write_block(4, replace(nodes, size=nodes.size + 1), edges)
    with pytest.raises(UserError, match=r"lost or changed rows of 1 block .* block 4;"):
        whole_graph(run)
