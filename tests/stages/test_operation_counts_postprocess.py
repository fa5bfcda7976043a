"""What stages 03 to 05 do per block, counted: counts do not depend on the machine, and they cannot creep up unseen."""

from __future__ import annotations

import math
import os
import sqlite3
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from funlib.geometry import Coordinate
from storage_counts import WRITES, count_chunks, counted
from voronoi_run import make_run, store_affinities, voronoi_affinities

from pipeline.config import FragmentsConfig, load_config
from pipeline.engine.blocks.grid import Block, BlockGrid
from pipeline.engine.chain import run_stages
from pipeline.run import Run
from pipeline.stages.by_script import agglomerate, extract_fragments, segment
from pipeline.stages.certainty import certainty_stages
from pipeline.stages.fragments import FragmentsTask, fragment_block
from pipeline.volumes import Box, StoredArray, chunk_inside, create_volume

CONFIGS = Path(__file__).parents[2] / "configs"
THRESHOLD = 0.5
AFFINITIES, FRAGMENTS, SEGMENTATION = "affinities", "fragments", f"segmentation/{THRESHOLD:.2f}"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """18 blocks with affinities, nothing else; computed in this process, without the map of certainty."""
    run = make_run(tmp_path, segment={"thresholds": [THRESHOLD], "certainty": False})
    store_affinities(run)
    return run


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Chunks that are decoded, by dataset; raw, of which empty blocks are known, left out."""
    counts = count_chunks(monkeypatch)
    read = StoredArray.read

    def counting(array: StoredArray, box: Box) -> np.ndarray:
        data = read(array, box)
        counts.pop("raw", None)
        return data

    monkeypatch.setattr(StoredArray, "read", counting)
    return counts


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files and folders that are flushed to disk."""
    names: list[str] = []
    flush = os.fsync

    def counted(file: Any) -> None:
        number = file if isinstance(file, int) else file.fileno()
        names.append(Path(f"/proc/self/fd/{number}").readlink().name)
        flush(file)

    monkeypatch.setattr(os, "fsync", counted)
    return names


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """SQL that is executed, statement by statement."""
    seen: list[str] = []
    connect = sqlite3.connect

    def traced(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **options)
        connection.set_trace_callback(seen.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    return seen


def blocks_of(run: Run) -> list[Block]:
    return list(BlockGrid.of_run(run))


def touched_blocks(run: Run, block: Block, context: Coordinate) -> int:
    """Blocks that a block with its context overlaps, itself included."""
    grid = BlockGrid.of_run(run)
    around = grid.with_context(block.box, context, context)
    return sum(other.box.intersect(around).size > 0 for other in grid)


def low_faces(block: Block) -> int:
    """Faces towards blocks on the low side."""
    return sum(begin > 0 for begin in block.box.begin)


def test_fragments_read_each_chunk_in_sight_once(run: Run, chunks: Counter[str]) -> None:
    assert extract_fragments(run)
    context = FragmentsTask(run).context
    in_sight = sum(touched_blocks(run, block, context) for block in blocks_of(run))
    assert chunks == {AFFINITIES: in_sight, FRAGMENTS: len(blocks_of(run))}  # its own, to see that it is there


def test_the_graph_reads_its_affinities_and_the_fragments_at_its_faces(run: Run, chunks: Counter[str]) -> None:
    assert extract_fragments(run)
    chunks.clear()
    assert agglomerate(run)
    blocks = blocks_of(run)
    assert chunks == {AFFINITIES: len(blocks), FRAGMENTS: len(blocks) + sum(map(low_faces, blocks))}


def test_the_segmentation_reads_fragments_once_and_itself_once(run: Run, chunks: Counter[str]) -> None:
    assert extract_fragments(run)
    assert agglomerate(run)
    chunks.clear()
    assert segment(run)
    assert chunks == {FRAGMENTS: len(blocks_of(run)), SEGMENTATION: len(blocks_of(run))}


@pytest.mark.parametrize("stage", [extract_fragments, segment], ids=["fragments", "segment"])
def test_a_written_block_is_one_file_and_one_record(run: Run, flushed: list[str], stage: Callable[[Run], bool]) -> None:
    """TensorStore flushes and renames each file that it writes; the array's own metadata are a few of them."""
    if stage is segment:
        assert extract_fragments(run)
        assert agglomerate(run)
    flushed.clear()
    before = counted(WRITES)
    assert stage(run)
    number = len(blocks_of(run))
    assert number < counted(WRITES) - before <= number + 4
    assert flushed.count("records") == number


def test_a_block_of_the_graph_is_one_transaction_of_few_statements(run: Run, statements: list[str]) -> None:
    assert extract_fragments(run)
    statements.clear()
    assert agglomerate(run)
    number = len(blocks_of(run))
    transactions = [statement for statement in statements if statement.startswith("BEGIN")]
    scores = sum("UPDATE blocks SET scored" in statement for statement in statements)
    assert scores <= number
    assert number <= len(transactions) - scores <= number + 8  # notes, and what an earlier graph left
    replaced = [s for s in statements if s.startswith(("DELETE FROM node", "INSERT INTO node", "INSERT OR REPLACE"))]
    assert len(replaced) <= 3 * number + 2


def test_relabelling_asks_the_database_once_per_threshold_not_per_block(run: Run, statements: list[str]) -> None:
    assert extract_fragments(run)
    assert agglomerate(run)
    statements.clear()
    assert segment(run)
    number = len(blocks_of(run))
    nodes, edges = (
        sum(f"FROM {table}" in statement for statement in statements) for table in ("node_records", "edge_records")
    )
    assert nodes <= 2 * number and edges <= number  # nodes again for the sizes of segments, which no memory holds
    assert not any(statement.startswith("BEGIN") for statement in statements)


def test_the_map_of_certainty_asks_once_for_the_rows_of_each_block(run: Run, statements: list[str]) -> None:
    assert extract_fragments(run)
    assert agglomerate(run)
    assert segment(run)
    statements.clear()
    assert run_stages(run, certainty_stages(with_certainty(run), THRESHOLD), False)
    reads = sum("FROM node_records" in statement or "FROM edge_records" in statement for statement in statements)
    assert 0 < reads <= 2 * len(blocks_of(run))


def with_certainty(run: Run) -> Run:
    section = run.config.segment.model_copy(update={"certainty": True})
    return Run(run.config.model_copy(update={"segment": section}))


def test_context_costs_the_chunks_that_it_touches_not_the_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle, a block of 128 voxels with 16 of context touches 4 chunks of 64 along each axis, not 6."""
    volume = create_volume(tmp_path / "volume.zarr", "ids", (384,) * 3, np.uint8, chunks=(128,) * 3)
    counts = count_chunks(monkeypatch)
    block = Box(Coordinate(128, 128, 128), Coordinate(256, 256, 256))
    assert volume.read(block.grow((16,) * 3, (16,) * 3)).shape == (160,) * 3
    assert counts == {"ids": 4**3}
    counts.clear()
    volume.read(block.grow((0, 0, 0), (1, 0, 0)))
    assert counts == {"ids": 3 * 2 * 2}


@pytest.mark.parametrize("name", ["fib25", "fib25_graph_flow", "slurm"])
def test_shipped_blocks_of_isotropic_data_cost_little_for_their_context(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a volume: voxels flooded per voxel kept, and voxels of affinities decoded."""
    monkeypatch.setenv("EMDISTILL_DATA", "data")
    config = load_config(CONFIGS / f"{name}.json")
    block, context = config.predict.write_block, config.fragments.context
    flooded = math.prod((size + 2 * reach) / size for size, reach in zip(block, context, strict=True))
    decoded = 1.0
    for size, reach, chunk in zip(block, context, chunk_inside(block), strict=True):
        decoded *= (size + 2 * -(-reach // chunk) * chunk) / size
    assert flooded < 1.45
    assert decoded <= 8


def test_memory_of_a_block_is_a_small_multiple_of_its_voxels() -> None:
    shape = (24, 96, 96)
    affinities = voronoi_affinities(shape)
    box = Box(Coordinate(4, 16, 16), Coordinate(20, 80, 80))
    config = FragmentsConfig(seed_distance=3)
    fragment_block(affinities, box, 1, Coordinate(10, 10, 10), config)  # compiled, imported
    tracemalloc.start()
    fragment_block(affinities, box, 1, Coordinate(10, 10, 10), config)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 * np.prod(shape)
