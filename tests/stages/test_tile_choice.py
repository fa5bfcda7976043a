"""Prediction on GPUs: how many workers, which tiles, and the same answer from any number of workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from funlib.geometry import Coordinate
from voronoi_run import make_run, stored

from pipeline.engine.blocks.process import GIGABYTE, WORKER, worker_number
from pipeline.networks import choose_device
from pipeline.run import Run
from pipeline.stages.by_script import predict
from pipeline.stages.predict import PredictTask

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says that it has three GPUs of 24 GB, on which other programs have taken more and more."""
    free = iter(range(20, 0, -1))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (next(free) * GIGABYTE, 24 * GIGABYTE))


def with_workers(directory: Path, workers: int, **predict_section: Any) -> Run:
    cluster = {"executor": "local", "workers": workers}
    return make_run(directory, cluster=cluster, predict={"tile_size": "auto", **predict_section})


@pytest.mark.parametrize(
    ("settings", "workers"),
    [
        ({}, 3),
        ({"workers_per_gpu": 2}, 6),
        ({"device": "cuda:1"}, 1),
        ({"device": "cpu"}, 16),
        ({"engine": "openvino"}, 16),
    ],
)
def test_no_more_workers_share_a_gpu_than_configured(
    tmp_path: Path, three_gpus: None, settings: dict[str, Any], workers: int
) -> None:
    assert PredictTask(with_workers(tmp_path, 16, **settings)).workers == workers
    assert PredictTask(with_workers(tmp_path, 1, **settings)).workers == 1


def test_neither_workers_nor_free_memory_decide_the_tile_on_a_gpu(tmp_path: Path, three_gpus: None) -> None:
    tiles = {PredictTask(with_workers(tmp_path / str(count), count)).grid.block_size for count in (1, 4, 16)}
    assert len(tiles) == 1 and tiles != {Coordinate(4, 16, 16)}


@pytest.mark.parametrize(("name", "gpu"), [("0", 0), ("4", 1), ("added-some-host-2-815-5", 2), (None, 0)])
def test_workers_get_the_gpus_in_turn_also_those_that_join_later(
    monkeypatch: pytest.MonkeyPatch, three_gpus: None, name: str | None, gpu: int
) -> None:
    if name is not None:
        monkeypatch.setenv(WORKER, name)
    assert choose_device("auto", "predict.device", worker_number()).index == gpu


@needs_gpu
def test_a_gpu_gives_the_same_from_any_number_of_workers(tmp_path: Path) -> None:
    given = []
    for workers in (1, 2, 4):
        run = with_workers(tmp_path / str(workers), workers, workers_per_gpu=4)
        assert predict(run)
        given.append(stored(run, "affinities"))
    for other in given[1:]:
        np.testing.assert_array_equal(given[0], other)


@needs_gpu
def test_a_gpu_agrees_with_the_cpu_within_rounding(tmp_path: Path) -> None:
    given = []
    for device in ("cpu", "cuda"):
        run = with_workers(tmp_path / device, 1, device=device)
        assert predict(run)
        given.append(stored(run, "affinities").astype(int))
    levels = np.abs(given[0] - given[1])
    assert levels.max() <= 2
    assert (levels > 0).mean() < 0.03  # convolutions in TF32
