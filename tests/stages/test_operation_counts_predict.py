"""What prediction computes, reads and writes per voxel, counted and not timed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from funlib.geometry import Coordinate
from storage_counts import count_chunks, dataset_of
from voronoi_run import make_run

from pipeline.config import NEAREST_NEIGHBOURS, SectionUnetConfig, load_config
from pipeline.engine.blocks.grid import BlockGrid
from pipeline.networks import Engine, TorchEngine, build_network, sections_at_once
from pipeline.stages.by_script import predict
from pipeline.stages.inference import Predictor, read_box, working_bytes
from pipeline.stages.predict import PredictTask
from pipeline.stages.tiles import tile_blocks
from pipeline.volumes import Box, StoredArray

CONFIGS = Path(__file__).parents[2] / "configs"
GIGABYTE = 1 << 30


class Counting(Engine):
    """torch, with the windows counted that it embeds."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.sections, self.passes = engine, 0, 0

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        self.sections += len(windows)
        self.passes += 1
        return self.engine(windows)


def test_a_section_is_embedded_once_however_deep_the_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_network(SectionUnetConfig(sections=3, widths=(4, 6))).eval()
    offsets = ((-2, 0, 0), (0, -1, 0), (0, 0, -1), (1, 0, 0))
    engine = Counting(TorchEngine(network, None))
    predictor = Predictor(network, offsets, engine)
    box = Box(Coordinate(0, 0, 0), Coordinate(50, 20, 20))
    read = predictor.read_box(box)
    predictor.quantised(np.zeros(read.shape, np.uint8), box)
    assert engine.sections == 50 + 2 + 1  # and those that the first and last ones are compared with
    at_once = sections_at_once(read.shape[1:], torch.device("cpu"))
    assert engine.passes <= -(-engine.sections // at_once) + 1


@pytest.mark.parametrize(
    ("config", "block", "least", "most"),
    [
        ("fib25.json", (50, 125, 125), 3.0, 1.9),
        pytest.param("mala_ac4.json", (56, 56, 56), 34.0, 7.0, marks=pytest.mark.slow),
    ],
    ids=["sections", "published"],
)
def test_what_is_computed_per_voxel_kept(config: str, block: tuple[int, int, int], least: float, most: float) -> None:
    """In the middle of a large volume, with four gigabytes; a published tile is 34 times what it gives."""
    student = load_config(CONFIGS / config).student
    network = build_network(student.network)
    grid = BlockGrid(
        Box(Coordinate(0, 0, 0), Coordinate(2000, 10_000, 10_000)),
        Coordinate(block),
        Coordinate(8, 8, 8),
        Coordinate(0, 0, 0),
    )

    def read(box: Box) -> Box:
        return read_box(network, box, NEAREST_NEIGHBOURS)

    def bytes_of(read_shape: Coordinate, shape: Coordinate) -> int:
        return working_bytes(network, read_shape, shape, NEAREST_NEIGHBOURS, "cpu")

    tiles = grid.merged(tile_blocks(grid, read, bytes_of, 4 * GIGABYTE, workers=8))

    def computed_per_voxel(grid: BlockGrid) -> float:
        box = grid.block(0).box
        return read(box).size / box.size

    assert computed_per_voxel(grid) > least
    assert computed_per_voxel(tiles) < most


def test_raw_is_decoded_once_per_tile_and_affinities_are_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, predict={"tile_size": [8, 48, 48]})
    task = PredictTask(run)
    assert len(task.grid) == 1
    _ = task.empty  # empty blocks are sought before
    written: Counter[str] = Counter()
    write = StoredArray.write

    def counted_write(array: StoredArray, box: Box, data: np.ndarray) -> None:
        assert len(list(array.shards_in(box))) == 1
        written[dataset_of(array)] += 1
        write(array, box, data)

    monkeypatch.setattr(StoredArray, "write", counted_write)
    decoded = count_chunks(monkeypatch)
    assert predict(run)
    assert written == {"affinities": len(task.chunk_grid)}
    assert decoded == {"raw": 3 * 3 * 3, "affinities": len(task.chunk_grid)}
