"""What the block-wise engine costs besides the work: blocks that do nothing, resuming, and writing so that it survives.

    python benchmarks/engine.py --quick

Seconds are those of the machine it runs on; the ratios travel. The last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from pipeline.config import parse_config
from pipeline.engine.blocks.stage import BlockFunction, BlockTask, Stage
from pipeline.engine.chain import run_stages
from pipeline.engine.tracking.markers import unmark_blocks
from pipeline.engine.tracking.progress import begin, write_record
from pipeline.run import Run, read_json, write_json
from pipeline.stages.fragments import FragmentsTask
from pipeline.volumes import create_volume

REPEATS = 5


@dataclass(frozen=True)
class Nothing(BlockTask):
    """A task whose blocks do nothing; its output is a file that holds its key."""

    keeps_records = False
    stage = "nothing"
    version = 1
    script = "nothing.py"

    @override
    @property
    def output(self) -> str:
        return str(self.run.directory / "nothing.json")

    @override
    def settings(self) -> dict[str, Any]:
        return {}

    @override
    def stored_key(self) -> str | None:
        return read_json(Path(self.output)).get("key")

    @override
    def prepare(self) -> None:
        write_json(Path(self.output), {"key": self.key})

    @override
    def drop(self) -> None:
        Path(self.output).unlink(missing_ok=True)

    @override
    @contextmanager
    def process(self) -> Iterator[BlockFunction]:
        yield lambda block: None


def make_run(directory: Path, shape: tuple[int, int, int], block: tuple[int, int, int], **cluster: Any) -> Run:
    """A run with an empty raw volume that nothing looks at."""
    run = Run(
        parse_config(
            {
                "run_directory": str(directory),
                "volumes": {"sources": {"a": {"kind": "phantom"}}, "segment": {"source": "a"}},
                "student": {"network": {"name": "section_unet"}, "distillation": None},
                "predict": {"block_size": list(block), "skip_empty": False},
                "cluster": cluster,
            }
        )
    )
    create_volume(run.volume, "raw", shape, "uint8", voxel_size=(8, 8, 8), chunks=(64, 64, 64))
    return run


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def scheduling(directory: Path, blocks_per_side: int) -> dict[str, float]:
    """Seconds of a cube of blocks that do nothing: computed, found done, and resumed for a single block."""
    shape = (2 * blocks_per_side,) * 3
    run = make_run(directory, shape, (2, 2, 2), executor="serial")
    task = Nothing(run)
    times = {"blocks": float(len(task.grid)), "first_run": seconds(lambda: run_stages(run, [Nothing(run)], False))}
    times["done_run"] = statistics.median(
        seconds(lambda: run_stages(run, [Nothing(run)], False)) for _ in range(REPEATS)
    )
    one = np.zeros(task.grid.shape, dtype=bool)
    one[0, 0, 0] = True
    resumed = []
    for _ in range(REPEATS):
        unmark_blocks(task, one)
        write_record(task, complete=False)
        resumed.append(seconds(lambda: run_stages(run, [Nothing(run)], False)))
    times["resumed_run"] = statistics.median(resumed)
    return times


def writing(directory: Path) -> dict[str, float]:
    """Seconds per block of fragments: written and flushed, and read back and recorded besides."""
    run = make_run(directory, (128, 512, 512), (32, 256, 256), executor="serial")
    write_json(run.tracking / "note.json", {})
    task = FragmentsOfNothing(run)
    begin(task)
    block = task.grid.block(0)
    data = np.random.default_rng(0).integers(0, 2000, (4, 32, 32)).repeat(8, 0).repeat(8, 1).repeat(8, 2)
    plain, output = task.open("r+"), task.open_output()
    times: dict[str, list[float]] = {"zarr": [], "committed": []}
    for _ in range(REPEATS * 2):
        times["zarr"].append(seconds(lambda: plain.write(block.box, data.astype(np.uint64))))
        times["committed"].append(seconds(lambda: output.write(block, data)))
    size = plain.array.file(next(plain.array.shards_in(block.box))[0]).stat().st_size
    return {**{name: statistics.median(values) for name, values in times.items()}, "chunk_bytes": float(size)}


@dataclass(frozen=True)
class FragmentsOfNothing(FragmentsTask):
    """The array of the fragments without the stages before it."""

    @override
    @cached_property
    def upstream(self) -> tuple[Stage, ...]:
        return ()


def main() -> None:
    """Print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20,000 blocks in place of 100,000")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        schedule = scheduling(Path(folder) / "schedule", 27 if options.quick else 47)
        write = writing(Path(folder) / "write")
    for name, value in {**schedule, **write}.items():
        print(f"{name:>14}  {value:12.4f}")
    ratios = {
        "done_run / first_run": schedule["done_run"] / schedule["first_run"],
        "resumed_run / first_run": schedule["resumed_run"] / schedule["first_run"],
        "committed / zarr": write["committed"] / write["zarr"],
    }
    print(json.dumps({"quick": options.quick, **schedule, **write, **ratios}))


if __name__ == "__main__":
    main()
