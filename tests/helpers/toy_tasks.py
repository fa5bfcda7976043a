"""Block tasks that are quick and can be told to fail, hang or die: for what the engine promises about any task."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from funlib.geometry import Coordinate

from pipeline.config import parse_config
from pipeline.engine.blocks.grid import Block
from pipeline.engine.blocks.stage import BlockFunction, Stage, VolumeTask
from pipeline.engine.chain import run_stages
from pipeline.run import Run
from pipeline.volumes import create_volume, open_volume

SLOW_SECONDS = 40.0


def make_run(directory: Path, shape: tuple[int, int, int] = (9, 10, 11), **sections: Any) -> Run:
    """A run with random raw voxels, a shifted region and small blocks."""
    document: dict[str, Any] = {
        "run_directory": str(directory),
        "volumes": {
            "sources": {"toy": {"kind": "phantom"}},
            "segment": {"source": "toy", "begin": [1, 2, 1], "end": list(shape)},
        },
        "student": {"network": {"name": "section_unet"}, "distillation": None},
        "predict": {"block_size": [4, 4, 4]},
        "cluster": {"executor": "serial", "workers": 2, "retries": 2, "passing_pause": 0.01},
    }
    for name, values in sections.items():
        document[name] = {**document.get(name, {}), **values}
    run = Run(parse_config(document))
    raw = create_volume(run.volume, "raw", shape, "uint8", voxel_size=(40, 8, 8), offset=(80, 0, 16), chunks=(4, 4, 4))
    raw.write(raw.box, np.random.default_rng(0).integers(1, 100, shape, dtype=np.uint8))
    return run


@dataclass(frozen=True)
class Doubled(VolumeTask):
    """Twice the raw value. With the trouble that `make_trouble` makes."""

    stage = "doubled"
    version = 1
    script = "doubled.py"
    factor: int = 2

    @property
    def dataset(self) -> str:
        return "doubled"

    def settings(self) -> dict[str, Any]:
        return {"toy.factor": self.factor}

    @contextmanager
    def process(self) -> Iterator[BlockFunction]:
        raw, output = self.run.open_raw("toy"), self.open_output()

        def process_block(block: Block) -> None:
            make_trouble(self.run.directory, block)
            output.write(block, raw.read(self.grid.to_source(block.box)).astype(np.uint64) * self.factor)

        yield process_block


@dataclass(frozen=True)
class Summed(VolumeTask):
    """Sum of the doubled values up to one voxel away on the low side of each axis."""

    stage = "summed"
    version = 1
    script = "summed.py"
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
        doubled, output = Doubled(self.run, self.factor).open_complete(), self.open_output()

        def process_block(block: Block) -> None:
            around = self.grid.with_context(block.box, self.context, Coordinate(0, 0, 0))
            values = doubled.read(around)
            assert (values > 0).all(), "a block ran before its upstream blocks"
            pad = [(int(b == 0), 0) for b in block.box.begin]
            padded = np.pad(values, pad)
            output.write(block, padded[1:, 1:, 1:] + padded[:-1, 1:, 1:] + padded[1:, :-1, 1:] + padded[1:, 1:, :-1])

        yield process_block


def expected_sums(run: Run, factor: int = 2) -> np.ndarray:
    """What `Summed` must give, computed on the whole region."""
    region = Doubled(run).grid.region
    padded = np.pad(run.open_raw("toy").read(region).astype(np.uint64) * factor, [(1, 0)] * 3)
    return padded[1:, 1:, 1:] + padded[:-1, 1:, 1:] + padded[1:, :-1, 1:] + padded[1:, 1:, :-1]


def make_trouble(directory: Path, block: Block) -> None:
    """What the files in the run directory ask for, each of which lists blocks.

    `raise`: always an error of the data; `reset_twice`: a lost connection at the first two visits; `fail_twice`: an
    error of no known kind instead; `die`, `die_once`: the worker dies; `hang_once`, `hang`: a minute of silence;
    `slow`: it takes `SLOW_SECONDS`; `wait`: the worker says where it is, and goes on when there is a file `go`;
    `hog`: it takes a gigabyte of memory; `fill_disk`: no room is left on the disk.
    """
    (directory / "visited").mkdir(exist_ok=True)
    with (directory / "visited" / str(block.index)).open("a") as visits:
        visits.write("x")
    visit = _visits(directory, block.index)

    def listed(name: str) -> bool:
        path = directory / name
        return path.exists() and block.index in [int(word) for word in path.read_text().split()]

    if listed("raise"):
        raise ValueError(f"block {block.index} was told to fail")
    if listed("reset_twice") and visit <= 2:
        raise ConnectionResetError(f"block {block.index} lost its connection")
    if listed("fail_twice") and visit <= 2:
        raise RuntimeError(f"block {block.index} was told to fail twice")
    if listed("die") or (listed("die_once") and visit == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if listed("hang") or (listed("hang_once") and visit == 1):
        time.sleep(60)
    if listed("slow"):
        time.sleep(SLOW_SECONDS)
    if listed("wait") and visit == 1:
        (directory / "waiting").write_text(str(os.getpid()))
        wait_until((directory / "go").exists)
    if listed("hog"):
        np.ones(1 << 30, dtype=np.uint8)
    if listed("fill_disk") and not (directory / "ballast").exists():
        fill_disk(directory / "ballast")


def fill_disk(path: Path) -> None:
    """Write until nothing more fits."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def wait_until(condition: Callable[[], object], seconds: float = 400.0) -> None:
    """Wait for a state that another process brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def visits(directory: Path) -> dict[int, int]:
    """How often each block was computed."""
    return {int(path.name): path.stat().st_size for path in (directory / "visited").glob("*")}


def _visits(directory: Path, index: int) -> int:
    return (directory / "visited" / str(index)).stat().st_size


BLOCKS = 2 * 2 * 3
"""Of `toy_chain`'s stages."""


def toy_chain(run: Run, factor: int = 2, overwrite: bool = False) -> bool:
    return run_stages(run, [Doubled(run, factor), Summed(run, factor)], overwrite)


def result(run: Run) -> np.ndarray:
    summed = open_volume(run.volume, "summed")
    return summed.read(summed.box)
