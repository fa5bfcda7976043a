"""Block tasks that are quick and can be told to fail, hang or die: for what the engine promises about any task."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from funlib.geometry import Coordinate

from pipeline.blockwise import Block, Stage, VolumeTask
from pipeline.blockwise.stage import BlockFunction
from pipeline.config import parse_config
from pipeline.run import Run
from pipeline.volumes import create_volume, open_volume


def make_run(directory: Path, shape: tuple[int, int, int] = (9, 10, 11), **sections: Any) -> Run:
    """A run with random raw voxels, a shifted region and small blocks."""
    document = {
        "run_directory": str(directory),
        "volumes": {
            "sources": {"toy": {"kind": "phantom"}},
            "segment": {"source": "toy", "begin": [1, 2, 1], "end": list(shape)},
        },
        "student": {"network": {"name": "section_unet"}, "distillation": None},
        "predict": {"block_size": [4, 4, 4]},
        "cluster": {"executor": "serial", "workers": 2, "retries": 1},
    }
    for name, values in sections.items():
        document[name] = {**document.get(name, {}), **values}
    run = Run(parse_config(document))
    raw = create_volume(run.volume, "raw", shape, "uint8", voxel_size=(40, 8, 8), offset=(80, 0, 16), chunks=(4, 4, 4))
    raw.write(raw.box, np.random.default_rng(0).integers(1, 100, shape, dtype=np.uint8))
    return run


@dataclass(frozen=True)
class Doubled(VolumeTask):
    """Twice the raw value. In a block listed in a file `raise`, `die`, `sleep` of the run directory: trouble."""

    stage = "doubled"
    version = 1
    script = "doubled.py"
    next_script = "summed.py"
    factor: int = 2

    @property
    def dataset(self) -> str:
        return "doubled"

    def settings(self) -> dict[str, Any]:
        return {"toy.factor": self.factor}

    @contextmanager
    def process(self) -> Iterator[BlockFunction]:
        raw, output = self.run.open_raw("toy"), self.open("r+")

        def process_block(block: Block) -> None:
            make_trouble(self.run.directory, block)
            output.write(block.box, raw.read(self.grid.to_source(block.box)).astype(np.uint64) * self.factor)

        yield process_block


@dataclass(frozen=True)
class Summed(VolumeTask):
    """Sum of the doubled values up to one voxel away on the low side of each axis."""

    stage = "summed"
    version = 1
    script = "summed.py"
    next_script = "nothing.py"
    factor: int = 2

    @property
    def dataset(self) -> str:
        return "summed"

    @cached_property
    def upstream(self) -> tuple[Stage, ...]:
        return (Doubled(self.run, self.factor),)

    @property
    def context(self) -> Coordinate:
        return Coordinate(1, 1, 1)

    def settings(self) -> dict[str, Any]:
        return {}

    @contextmanager
    def process(self) -> Iterator[BlockFunction]:
        doubled, output = open_volume(self.run.volume, "doubled"), self.open("r+")

        def process_block(block: Block) -> None:
            around = self.grid.with_context(block.box, self.context, Coordinate(0, 0, 0))
            values = doubled.read(around)
            assert (values > 0).all(), "a block ran before its upstream blocks"
            pad = [(int(b == 0), 0) for b in block.box.begin]
            padded = np.pad(values, pad)
            output.write(
                block.box, padded[1:, 1:, 1:] + padded[:-1, 1:, 1:] + padded[1:, :-1, 1:] + padded[1:, 1:, :-1]
            )

        yield process_block


def expected_sums(run: Run, factor: int = 2) -> np.ndarray:
    """What `Summed` must give, computed on the whole region."""
    region = Doubled(run).grid.region
    padded = np.pad(run.open_raw("toy").read(region).astype(np.uint64) * factor, [(1, 0)] * 3)
    return padded[1:, 1:, 1:] + padded[:-1, 1:, 1:] + padded[1:, :-1, 1:] + padded[1:, 1:, :-1]


def make_trouble(directory: Path, block: Block) -> None:
    """What the files in the run directory ask for."""
    (directory / "visited").mkdir(exist_ok=True)
    with (directory / "visited" / str(block.index)).open("a") as visits:
        visits.write("x")
    if block.index in _listed(directory / "raise"):
        raise ValueError(f"block {block.index} was told to fail")
    if block.index in _listed(directory / "die_once") and _visits(directory, block.index) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if block.index in _listed(directory / "hang_once") and _visits(directory, block.index) == 1:
        time.sleep(60)
    if (directory / "slow").exists():
        time.sleep(0.1)


def visits(directory: Path) -> dict[int, int]:
    """How often each block was computed."""
    return {int(path.name): path.stat().st_size for path in (directory / "visited").glob("*")}


def _visits(directory: Path, index: int) -> int:
    return (directory / "visited" / str(index)).stat().st_size


def _listed(path: Path) -> list[int]:
    return [int(word) for word in path.read_text().split()] if path.exists() else []
