"""Stores without a server: files and their places, SQL, many blocks, and the commands."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from graphs import make_nodes, random_graph, write

from pipeline.errors import UserError
from pipeline.rag import EdgeTable, NodeTable, open_rag, rag_exists
from pipeline.rag.__main__ import main

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers")])}


@pytest.mark.parametrize("url", ["sqlite:///graph.sqlite", "files:///graph"])
def test_a_relative_file_lies_in_the_given_directory(url: str, tmp_path: Path) -> None:
    open_rag(url, tmp_path).close()
    assert (tmp_path / url.partition(":///")[2]).exists()


@pytest.mark.parametrize("url", ["oracle://somewhere", "rag.sqlite", "sqlite://rag.sqlite", "sqlite:///", "files://a"])
def test_unknown_stores_are_refused_in_one_line(url: str, tmp_path: Path) -> None:
    for function in (open_rag, rag_exists):
        with pytest.raises(UserError, match=r"rag\.url"):
            function(url, tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rag.sqlite").write_text("this is not a database" * 100)
    with pytest.raises(UserError, match="SQLite"):
        open_rag("sqlite:///rag.sqlite", tmp_path)


def test_a_database_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "rag.sqlite") as connection:
        connection.execute("CREATE TABLE nodes (id INTEGER)")
    with pytest.raises(UserError, match="of another kind or of an earlier version"):
        open_rag("sqlite:///rag.sqlite", tmp_path)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rag").write_text("")
    with pytest.raises(UserError, match="cannot be opened as a graph of files"):
        open_rag("files:///rag", tmp_path)


@pytest.mark.parametrize("store", ["sqlite:///graph.sqlite", "files:///graph"])
def test_a_graph_that_cannot_be_written_can_be_read(store: str, open_place: Path) -> None:
    """On an archive, or in the folder of a colleague."""
    read = """if True:
        import sys
        from pathlib import Path
        from pipeline.rag import open_rag
        from stranger import become_somebody_else

        open_rag(sys.argv[1], Path(sys.argv[2])).close()  # imports what somebody else may not be able to read
        become_somebody_else()
        with open_rag(sys.argv[1], Path(sys.argv[2])) as store:
            print(store.counts().nodes, sum(len(edges) for edges in store.iterate_edges()))
    """
    with open_rag(store, open_place) as graph:
        write(graph, 0, 5)
    open_place.chmod(0o555)
    command = [sys.executable, "-c", read, store, str(open_place)]
    try:
        seen = subprocess.check_output(command, env=ENVIRONMENT, text=True)
        assert seen.split() == ["5", "4"]
        assert len(list(open_place.iterdir())) == 1
    finally:
        open_place.chmod(0o755)


def test_sql_shows_the_very_numbers(tmp_path: Path) -> None:
    with open_rag("sqlite:///rag.sqlite", tmp_path) as store:
        nodes, edges = random_graph(store, blocks=5, seed=2)
        write(store, 7, 120)
        edges = EdgeTable.concatenate(store.iterate_edges())
        nodes = store.read_nodes()
    connection = sqlite3.connect(tmp_path / "rag.sqlite")
    rows = np.array(connection.execute("SELECT u, v, count, affinity_sum, score FROM edges").fetchall(), dtype=object)
    for column, name in enumerate(("u", "v", "count", "affinity_sum", "score")):
        np.testing.assert_array_equal(rows[:, column].astype(float), getattr(edges, name).astype(float))
    rows = np.array(connection.execute("SELECT id, z, y, x, size, end_x FROM nodes ORDER BY id").fetchall())
    np.testing.assert_array_equal(rows[:, 1:4], nodes.centre)
    np.testing.assert_array_equal(rows[:, [0, 4, 5]], np.stack([nodes.id, nodes.size, nodes.end[:, 2]], axis=1))
    assert connection.execute("SELECT count(*) FROM nodes WHERE block = 7").fetchone() == (120,)


def test_folders_of_files_stay_small(tmp_path: Path) -> None:
    with open_rag("files:///rag", tmp_path) as store:
        for block in (0, 999, 1000, 123_456):
            store.write_block(block, make_nodes(block, 1), EdgeTable.empty())
        assert store.blocks().tolist() == [0, 999, 1000, 123_456]
    assert sorted(path.name for path in (tmp_path / "rag" / "blocks").iterdir()) == ["0", "1", "123"]


def test_what_a_killed_writer_left_behind_is_no_block(tmp_path: Path) -> None:
    with open_rag("files:///rag", tmp_path) as store:
        write(store, 3, 5)
        (tmp_path / "rag" / "blocks" / "0" / ".3.rag.host.17").write_bytes(b"half")
        assert store.counts().nodes == 5


def test_a_reader_of_files_sees_a_block_that_was_replaced(tmp_path: Path) -> None:
    with open_rag("files:///rag", tmp_path) as reader, open_rag("files:///rag", tmp_path) as writer:
        write(writer, 0, 5)
        assert reader.counts().nodes == 5
        write(writer, 0, 9)
        assert reader.counts().nodes == 9
        writer.drop()
        assert len(reader.read_nodes()) == 0


def test_the_commands_copy_count_and_drop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_rag("sqlite:///rag.sqlite", tmp_path) as store:
        write(store, 0, 5)
    run = ["--run", str(tmp_path)]
    assert main([*run, "copy", "sqlite:///rag.sqlite", "files:///copy"]) == 0
    assert main([*run, "drop", "sqlite:///rag.sqlite"]) == 0
    assert main([*run, "counts", "files:///copy"]) == 0
    assert capsys.readouterr().out.endswith("files:///copy: 1 block, 5 nodes, 4 edges (0 with a score)\n")
    assert main([*run, "copy", "files:///copy", "files:///copy"]) == 2
    assert main([*run, "copy", "files:///none", "files:///other"]) == 2
    assert "there is no graph at files:///none" in capsys.readouterr().err
    with open_rag("files:///copy", tmp_path) as copy:
        assert NodeTable.concatenate(copy.iterate_nodes()).id.tolist() == [1, 2, 3, 4, 5]
