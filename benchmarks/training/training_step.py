"""Where the time of a training step goes: the teacher, a student alone, and a student that is distilled.

    python benchmarks/training/training_step.py

Networks, patches, batches and losses are those of a config, the batches come from its data; the teacher is untrained,
which changes no cost. The split is the one that a training tells of itself
(pipeline/training/objective/step_clock.py), on a CPU in CPU time, which other load on the machine does not lengthen,
with the networks taking turns on the same batches. How long training waits for its data is measured afterwards, by
the clock on the wall, with each network by itself and a loader at work beside it.

The last line of the output is one JSON object: `data_wait_share`, the largest over networks and precisions, and
`distillation_overhead` by precision: what distillation adds to a step of the student alone, as a share of that step,
without the forward pass of the teacher, of which `teacher_forward` is the share.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gunpowder as gp
import torch

from pipeline.config import load_config
from pipeline.networks import build_network, save_checkpoint
from pipeline.run import Run
from pipeline.stages.importing import ensure_imported
from pipeline.training.objective.step_clock import DATA, PARTS, REST, TEACHER, Split, StepClock
from pipeline.training.sampling.loader import BatchLoader
from pipeline.training.sampling.samples import Arrays, SampleMaker, Sampling
from pipeline.training.steps.step import LoaderSource, TrainStep, whole_batch_request
from pipeline.training.steps.training_setup import Training

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = ("teacher", "student alone", "student distilled")
BATCHES = 4
"""On which the networks take turns."""


@dataclass
class Trainee:
    """A network in training.

    Attributes:
        name: of `NETWORKS`.
        precision: float32, or the reduced one of the device.
        sampling: what its batches look like.
        step: the training node.
    """

    name: str
    precision: str
    sampling: Sampling
    step: TrainStep


class Kept(BatchLoader):
    """A loader of batches that are made already."""

    def __init__(self, sampling: Sampling, batches: Sequence[Arrays]) -> None:
        super().__init__(sampling, 0)
        self.batches = batches

    def next(self) -> Arrays:
        """One after another, again and again."""
        self.iteration += 1
        return self.batches[self.iteration % len(self.batches)]


def make_trainee(directory: Path, name: str, autocast: str, options: argparse.Namespace) -> Trainee:
    """A network of the config, on its data."""
    role = name.split()[0]
    settings: dict[str, Any] = {
        "run_directory": str(directory),
        "teacher.checkpoint": str(directory / "untrained_teacher.pt"),
        f"{role}.training.autocast": autocast,
        f"{role}.training.device": options.device,
        "student.distillation.warm_up": 0,
    }
    overrides = [*options.overrides, *(f"{key}={json.dumps(value)}" for key, value in settings.items())]
    if name == "student alone":
        overrides.append("student.distillation=null")
    run = Run(load_config(options.config, overrides))
    ensure_imported(run)
    checkpoint = directory / "untrained_teacher.pt"
    if not checkpoint.exists():
        assert run.config.network_teacher is not None
        torch.manual_seed(0)
        save_checkpoint(checkpoint, build_network(run.config.network_teacher.network), 1, {})
    training = Training(run, role, checkpoint if name == "student distilled" else None)
    network, schedule = training.build_network(), training.section.training
    sampling, objective = training.sampling(network), training.objective(network)
    step = TrainStep(network.to(training.device), objective, schedule, training.autocast, sampling.keys)
    precision = str(training.autocast or torch.float32).removeprefix("torch.")
    return Trainee(name, precision, sampling, step)


@contextmanager
def built(trainee: Trainee, loader: BatchLoader, clock: StepClock) -> Iterator[gp.Pipeline]:
    """The network's pipeline, watched by a clock."""
    trainee.step.clock = clock
    with gp.build(LoaderSource(loader, clock) + trainee.step) as pipeline:
        yield pipeline


def splits(trainees: Sequence[Trainee], steps: int) -> list[Split]:
    """The split of each network, without the wait for data, in turns."""
    clocks, works = [], []
    with ExitStack() as stack:
        for trainee in trainees:
            device = trainee.step.device
            clocks.append(StepClock(device, gpu_every=1, now=_clock_of(device)))
            with SampleMaker(trainee.sampling) as maker:
                batches = [maker.batch(iteration) for iteration in range(BATCHES)]
            kept = Kept(trainee.sampling, batches)
            works.append((stack.enter_context(built(trainee, kept, clocks[-1])), whole_batch_request(trainee.sampling)))
        for _ in range(steps):
            for clock, (pipeline, request) in zip(clocks, works, strict=True):
                with clock.step():
                    pipeline.request_batch(request)
    return [split for clock in clocks if (split := clock.total()) is not None]


def _clock_of(device: torch.device) -> Any:
    return time.process_time if device.type == "cpu" else time.perf_counter


def waiting(trainee: Trainee, steps: int) -> Split:
    """The split with a loader beside it, by the clock on the wall."""
    clock = StepClock(trainee.step.device)
    with BatchLoader(trainee.sampling, 0) as loader, built(trainee, loader, clock) as pipeline:
        for _ in range(steps):
            with clock.step():
                pipeline.request_batch(whole_batch_request(trainee.sampling))
    split = clock.total()
    assert split is not None
    return split


def table(trainees: Sequence[Trainee], measured: Sequence[Split], waits: Sequence[Split]) -> str:
    """Markdown: milliseconds of each part of each network's step."""
    parts = [name for name in (*PARTS, REST) if name != DATA and any(name in split.parts for split in measured)]
    lines = ["| | " + " | ".join(f"{trainee.name}, {trainee.precision}" for trainee in trainees) + " |"]
    lines.append("| --- |" + " --- |" * len(trainees))
    for name in parts:
        cells = [f"{1e3 * split.parts[name]:.1f}" if name in split.parts else "" for split in measured]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("| **a step** | " + " | ".join(f"**{1e3 * _seconds(split):.1f} ms**" for split in measured) + " |")
    lines.append(f"| {DATA} | " + " | ".join(f"{split.waiting:.1%}" for split in waits) + " |")
    return "\n".join(lines)


def _seconds(split: Split) -> float:
    """Of a step without the wait for data."""
    return split.seconds - split.parts.get(DATA, 0.0)


def overheads(trainees: Sequence[Trainee], measured: Sequence[Split]) -> dict[str, dict[str, float]]:
    """By precision, what distillation and the teacher add to a step of the student alone, as shares of it."""
    by_name = {(t.name, t.precision): split for t, split in zip(trainees, measured, strict=True)}
    shares = {}
    for precision in dict.fromkeys(trainee.precision for trainee in trainees):
        alone, distilled = by_name["student alone", precision], by_name["student distilled", precision]
        teacher = distilled.parts[TEACHER]
        added = _seconds(distilled) - teacher - _seconds(alone)
        shares[precision] = {
            "distillation": round(added / _seconds(alone), 4),
            "teacher_forward": round(teacher / _seconds(alone), 4),
        }
    return shares


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "fib25.json")
    parser.add_argument(
        "--steps", type=int, default=30, help="of each network for the split; twice as many for the wait"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE", help="in the config"
    )
    parser.add_argument("--quick", action="store_true", help="10 steps of each")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    steps = 10 if options.quick else options.steps

    with tempfile.TemporaryDirectory() as directory:
        trainees = [
            make_trainee(Path(directory), name, autocast, options) for autocast in ("off", "auto") for name in NETWORKS
        ]
        if trainees[0].precision == trainees[-1].precision:  # this device has no reduced precision
            trainees = trainees[: len(NETWORKS)]
        measured = splits(trainees, steps)
        waits = [waiting(trainee, 2 * steps) for trainee in trainees]
    print(table(trainees, measured, waits))
    shares = overheads(trainees, measured)
    print(
        json.dumps(
            {
                "quick": options.quick,
                "device": trainees[0].step.device.type,
                "threads": options.threads,
                "data_wait_share": round(max(split.waiting for split in waits), 4),
                "distillation_overhead": {name: share["distillation"] for name, share in shares.items()},
                "teacher_forward": {name: share["teacher_forward"] for name, share in shares.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
