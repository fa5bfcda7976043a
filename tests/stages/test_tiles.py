"""Prediction in tiles of several chunks: less to compute, the same affinities, and chunks looked after one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from funlib.geometry import Coordinate
from run_files import shard_of
from voronoi_run import make_run

from pipeline.config import NEAREST_NEIGHBOURS, SectionUnetConfig
from pipeline.engine.audit.arrays import Damage
from pipeline.engine.audit.requeue import blocks_to_redo, requeue
from pipeline.engine.blocks.grid import BlockGrid
from pipeline.networks import build_network
from pipeline.run import Run
from pipeline.stages.auditing import audit
from pipeline.stages.by_script import predict, run_chain, segment
from pipeline.stages.fragments import FragmentsTask
from pipeline.stages.inference import Predictor
from pipeline.stages.predict import PredictTask
from pipeline.stages.tiles import TILES_PER_WORKER, tile_blocks
from pipeline.volumes import Box, RunVolume, open_volume

BLOCK = (4, 16, 16)
TILES = [BLOCK, (8, 16, 32), (4, 40, 35), (8, 48, 48)]


def context_of(margin: Coordinate, pooling: Coordinate) -> Callable[[Box], Box]:
    """What a U-Net reads: a margin, from one multiple of its pooling to another."""

    def read(box: Box) -> Box:
        begin, end = box.begin - margin, box.end + margin
        return Box(begin - begin % pooling, end + (pooling - end % pooling) % pooling)

    return read


def computed(grid: BlockGrid, read: Callable[[Box], Box]) -> int:
    return sum(read(grid.to_source(block.box)).size for block in grid)


READ = context_of(Coordinate(3, 44, 44), Coordinate(1, 16, 16))


def make_grid(shape: tuple[int, int, int], block: tuple[int, int, int]) -> BlockGrid:
    region = Box(Coordinate(2, 5, 7), Coordinate(2, 5, 7) + Coordinate(shape))
    return BlockGrid(region, Coordinate(block), Coordinate(1, 1, 1), Coordinate(0, 0, 0))


def voxels_read(read: Coordinate, shape: Coordinate) -> int:
    return math.prod(read)


def test_the_tile_has_the_least_to_compute_of_those_that_fit() -> None:
    grid = make_grid((64, 500, 450), (32, 50, 50))
    room = 40 * 320 * 320
    chosen = tile_blocks(grid, READ, voxels_read, room, workers=1)
    costs = {}
    for count in itertools.product(*(range(1, extent + 1) for extent in grid.shape)):
        tiles = grid.merged(Coordinate(count))
        largest = max(READ(tiles.to_source(block.box)).size for block in tiles)
        if len(tiles) >= TILES_PER_WORKER and largest <= room:
            costs[count] = computed(tiles, READ)
    assert costs[tuple(chosen)] <= 1.03 * min(costs.values())
    assert computed(grid, READ) > 3 * costs[tuple(chosen)]


def test_there_are_tiles_for_all_workers() -> None:
    grid = make_grid((64, 500, 450), (32, 50, 50))
    for workers in (1, 3, 10):
        tiles = grid.merged(tile_blocks(grid, READ, voxels_read, 1 << 40, workers))
        assert len(tiles) >= TILES_PER_WORKER * workers
        assert len(tiles) % workers == 0 or len(tiles) > 5 * workers


def test_without_room_a_tile_is_a_block() -> None:
    assert tile_blocks(make_grid((8, 90, 90), (4, 30, 30)), READ, voxels_read, 0, 1) == Coordinate(1, 1, 1)


def test_a_petavoxel_is_planned_from_a_few_boxes() -> None:
    grid = make_grid((50_000, 150_000, 150_000), (64, 128, 128))
    asked: list[Box] = []

    def read(box: Box) -> Box:
        asked.append(box)
        return READ(box)

    tile_blocks(grid, read, voxels_read, 1 << 30, 100)
    assert len(asked) < 1000


def predicted(directory: Path, tile: Any, **predict_section: Any) -> tuple[Run, RunVolume]:
    run = make_run(directory, predict={"tile_size": tile, **predict_section})
    assert predict(run)
    return run, open_volume(run.volume, "affinities")


def test_affinities_do_not_depend_on_the_tile(tmp_path: Path) -> None:
    _, expected = predicted(tmp_path / "blocks", list(BLOCK))
    for tile in [*map(list, TILES[1:]), "auto"]:
        run, given = predicted(tmp_path / str(tile), tile)
        assert len(PredictTask(run).grid) < len(FragmentsTask(run).grid)
        assert given.array.chunks == expected.array.chunks
        assert np.array_equal(given.read(given.box), expected.read(expected.box))


@pytest.mark.parametrize("depth", [1, 5, 8, 20, 21])
def test_no_bit_depends_on_the_depth_of_a_tile(depth: int) -> None:
    torch.manual_seed(0)
    network = build_network(SectionUnetConfig(name="section_unet", sections=3, widths=(4, 6))).eval()
    predictor = Predictor(network, NEAREST_NEIGHBOURS)
    raw = np.random.default_rng(0).integers(0, 256, (64, 96, 96), dtype=np.uint8)
    begin, end = Coordinate(20, 30, 30), Coordinate(41, 60, 62)

    def affinities(box: Box) -> np.ndarray:
        return predictor.affinities(raw[predictor.read_box(box).slices], box)

    slabs = [
        affinities(Box(Coordinate(z, *begin[1:]), Coordinate(min(z + depth, end[0]), *end[1:])))
        for z in range(begin[0], end[0], depth)
    ]
    assert np.array_equal(np.concatenate(slabs, axis=1), affinities(Box(begin, end)))


def test_empty_chunks_of_a_tile_stay_empty(tmp_path: Path) -> None:
    tiled = make_run(tmp_path / "tiled", predict={"tile_size": [8, 48, 48]})
    plain = make_run(tmp_path / "plain")
    stored = []
    for run in (tiled, plain):
        raw = open_volume(run.volume, "raw", "r+")
        values = raw.read(raw.box)
        values[:5, :18, :19] = 9
        raw.write(raw.box, values)
        assert predict(run)
        assert FragmentsTask(run).empty[0, 0, 0]
        affinities = PredictTask(run).open_complete()
        stored.append(affinities.read(affinities.box).astype(int))
    assert not stored[0][:, :4, :16, :16].any() and stored[0].any()
    assert np.abs(stored[0] - stored[1]).max() <= 1


def test_a_run_goes_on_with_the_tiles_that_it_was_begun_with(tmp_path: Path) -> None:
    run, before = predicted(tmp_path, [8, 16, 32])
    tiles = PredictTask(run).grid.shape
    again = make_run(tmp_path, predict={"tile_size": list(BLOCK)})
    assert PredictTask(again).grid.shape == tiles
    assert PredictTask(again).key == PredictTask(run).key
    assert predict(again)
    assert again.summary.read_text() and before.shape == (8, 40, 35)


def test_a_lost_chunk_costs_its_tile_and_the_blocks_that_read_it(tmp_path: Path) -> None:
    run = make_run(tmp_path, predict={"tile_size": [4, 16, 32]}, fragments={"context": [1, 2, 2]})
    assert run_chain(run) and segment(run)
    affinities = open_volume(run.volume, "affinities")
    expected = affinities.read(affinities.box)
    shard_of(run, "affinities", 1, 2, 1).unlink()
    findings = audit(run)
    assert findings[0].count(Damage.MISSING) == 1
    redo = blocks_to_redo(findings)
    assert np.argwhere(redo["predict"]).tolist() == [[1, 2, 0]]
    again = np.argwhere(redo["fragments"]).tolist()  # rows 1 and 2, all columns: the tile has two, context reaches one
    assert again == [[z, y, x] for z in (0, 1) for y in (1, 2) for x in (0, 1, 2)]
    requeue(findings)
    assert run_chain(run) and segment(run)
    np.testing.assert_array_equal(affinities.read(affinities.box), expected)
    assert all(found.sound for found in audit(run))
