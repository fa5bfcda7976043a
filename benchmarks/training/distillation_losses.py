"""Speed and memory of the graph relation distillation loss against plain loops, and what it adds to a training step.

The loops read the paper literally: a mask and a mean per instance, a cosine per pair of instances, a shift and a cosine
per offset, and for every memory image the pairs again and the table of all pairs of pooled positions. Before anything
is timed, both must give the same terms and the same gradient. Value and gradient are timed together, in alternation, on
the same number of threads; medians. On a CPU that is CPU time, which other load on the machine does not lengthen.
Memory is how far the peak of a fresh process grows: its resident set on a CPU, its allocations on a GPU.

    python benchmarks/training/distillation_losses.py

The last line of the output is one JSON object of ratios: `speedup` (the least over the sizes), `memory_ratio` (the
largest over the sizes), and `distillation_overhead`, the time of the loss over that of the networks in a training step
(teacher forward, student forward and backward). `distillation_overhead_of` says which pair of networks that is.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from side_by_side import WEIGHTS, alternate, distillation, neurites
from step_overhead import step_overheads

from pipeline.config import TargetsConfig

BATCH, CHANNELS, REMEMBERED = 2, 16, 12
OFFSETS_3D = TargetsConfig().offsets
OFFSETS_2D = [(-step, 0) for step in (1, 3, 5, 9, 27)] + [(0, -step) for step in (1, 3, 5, 9, 27)]
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Size:
    """What is embedded, the offsets of the affinity graph, the pooling between images, and neurites per image."""

    shape: tuple[int, ...]
    offsets: Sequence[Sequence[int]]
    pooling: Callable[..., torch.Tensor]
    window: tuple[int, ...]
    instances: tuple[int, int] = (30, 60)


SIZES = {
    "3d_25x56x56": Size((25, 56, 56), OFFSETS_3D, F.avg_pool3d, (3, 7, 7)),
    "2d_544x544": Size((544, 544), OFFSETS_2D, F.avg_pool2d, (7, 7)),
}
TINY = Size((32, 32), [(-1, 0), (0, -1)], F.avg_pool2d, (7, 7), (2, 3))


@dataclass(frozen=True)
class Problem:
    """A batch: embeddings (B, D, *shape), labels (B, *shape), and the same of the images remembered."""

    size: Size
    student: torch.Tensor
    teacher: torch.Tensor
    labels: torch.Tensor
    remembered: torch.Tensor
    remembered_labels: torch.Tensor


def make_problem(size: Size, remembered: int, device: torch.device) -> Problem:
    """Embeddings, labels and memory images of a size, from a fixed seed."""
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)

    def embeddings(images: int) -> torch.Tensor:
        return torch.randn(images, CHANNELS, *size.shape, generator=generator).to(device)

    def labels(images: int) -> torch.Tensor:
        return torch.stack([neurites(size.shape, size.instances, rng) for _ in range(images)]).to(device)

    student = embeddings(BATCH).requires_grad_()
    return Problem(size, student, embeddings(BATCH), labels(BATCH), embeddings(remembered), labels(remembered))


class PlainLoops:
    """The paper, line by line. The memory holds what the teacher made of each image: its nodes and its full map."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.memory = [
            (nodes_of(embedding, labels), embedding)
            for embedding, labels in zip(problem.remembered, problem.remembered_labels, strict=True)
        ]

    def terms(self, names: Collection[str]) -> dict[str, torch.Tensor]:
        """The terms, each a mean over images, or over pairs of a current and a memory image."""
        problem, terms = self.problem, defaultdict(list)
        for student, teacher, labels in zip(problem.student, problem.teacher, problem.labels, strict=True):
            if {"node", "edge", "inter_edge"} & set(names):
                learnt, taught = nodes_of(student, labels), nodes_of(teacher, labels)
            if "node" in names:
                distances = [(s - t).square().sum() for s, t in zip(learnt, taught, strict=True)]
                terms["node"].append(torch.stack(distances).mean())
            if "edge" in names:
                terms["edge"].append(mean_square(cosines(learnt, learnt), cosines(taught, taught)))
            if "affinity" in names:
                terms["affinity"].append(self._affinity(student, teacher))
            if "inter_edge" in names:
                for nodes, _ in self.memory:
                    terms["inter_edge"].append(mean_square(cosines(learnt, nodes), cosines(taught, nodes)))
            if "inter_affinity" in names:
                here, here_taught = self._pooled(student), self._pooled(teacher)
                for _, embedding in self.memory:
                    there = self._pooled(embedding)
                    terms["inter_affinity"].append(mean_square(here.T @ there, here_taught.T @ there))
        return {name: torch.stack(values).mean() for name, values in terms.items()}

    def _affinity(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        squares, pairs = [], 0
        for offset in self.problem.size.offsets:
            difference = shifted_cosine(student, offset) - shifted_cosine(teacher, offset)
            squares.append(difference.square().sum())
            pairs += difference.numel()
        return torch.stack(squares).sum() / pairs

    def _pooled(self, embedding: torch.Tensor) -> torch.Tensor:
        """(D, positions) of one image."""
        size = self.problem.size
        return size.pooling(F.normalize(embedding, dim=0)[None], size.window, ceil_mode=True)[0].flatten(1)


def nodes_of(embedding: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
    """The mean embedding of each instance of an image."""
    return [embedding[:, labels == i].mean(1) for i in labels.unique() if i > 0]


def cosines(nodes: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> torch.Tensor:
    """The cosine of every pair."""
    return torch.stack([F.cosine_similarity(a, b, dim=0) for a, b in product(nodes, others)])


def shifted_cosine(embedding: torch.Tensor, offset: Sequence[int]) -> torch.Tensor:
    """The cosine of every voxel of an image with its partner, where that lies inside; no offset is positive."""
    here = embedding[:, *(slice(-step, None) for step in offset)]
    there = embedding[:, *(slice(0, extent + step) for extent, step in zip(embedding.shape[1:], offset, strict=True))]
    return F.cosine_similarity(here, there, dim=0)


def mean_square(learnt: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
    """The mean squared difference."""
    return (learnt - taught).square().mean()


Variant = Callable[[], tuple[dict[str, float], torch.Tensor]]


def variants(problem: Problem, names: Collection[str] = tuple(WEIGHTS)) -> dict[str, Variant]:
    """Both ways to compute terms and gradient, each with its memory filled."""
    module = distillation(problem.size.offsets, len(problem.remembered), names)
    for embedding, labels in zip(problem.remembered.split(1), problem.remembered_labels.split(1), strict=True):
        module.memory.enqueue(embedding, labels)

    def ours() -> tuple[dict[str, float], torch.Tensor]:
        total, terms = module(problem.student, problem.teacher, problem.labels)
        (gradient,) = torch.autograd.grad(total, problem.student)
        return {name: float(value) for name, value in terms.items()}, gradient

    def loops() -> tuple[dict[str, float], torch.Tensor]:
        terms = plain.terms(names)
        total = torch.stack([WEIGHTS[name] * value for name, value in terms.items()]).sum()
        (gradient,) = torch.autograd.grad(total, problem.student)
        return {name: float(value.detach()) for name, value in terms.items()}, gradient

    plain = PlainLoops(problem)
    return {"loops": loops, "ours": ours}


def check_agreement(both: dict[str, Variant]) -> None:
    """Raise an AssertionError unless both give the same terms and gradient."""
    (expected, expected_gradient), (terms, gradient) = both["loops"](), both["ours"]()
    for name, value in expected.items():
        assert abs(terms[name] - value) <= TOLERANCE * abs(value), f"{name}: {terms[name]}, loops give {value}"
    error = float((gradient - expected_gradient).norm() / expected_gradient.norm())
    assert error <= TOLERANCE, f"gradients differ by {error}"


def compare(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Both ways at one size: seconds, mebibytes, and their ratios."""
    device, size = torch.device(options.device), SIZES[name]
    problem = make_problem(size, options.remembered, device)
    both = variants(problem)
    check_agreement(both)
    taken = alternate(both, options.repeats, device)
    grown = {variant: memory_in_fresh_process(name, variant, options) for variant in both}
    result: dict[str, Any] = {
        "instances": [int(labels.max()) for labels in problem.labels],
        "seconds": taken,
        "mebibytes": grown,
        "speedup": taken["loops"] / taken["ours"],
        "memory_ratio": grown["ours"] / grown["loops"],
    }
    if not options.quick:
        for term in WEIGHTS:
            alone = alternate(variants(problem, (term,)), 1, device)
            result.setdefault("speedup_of_term", {})[term] = alone["loops"] / alone["ours"]
    return result


def memory_in_fresh_process(size: str, variant: str, options: argparse.Namespace) -> float:
    """Mebibytes by which the peak of a process of its own grows. Large blocks go back to the system when they are
    freed, so that the resident set is what is in use.
    """
    command = [sys.executable, __file__, "--measure-memory", size, variant]
    command += ["--threads", str(options.threads), "--device", options.device, "--remembered", str(options.remembered)]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


def memory_growth(size: str, variant: str, remembered: int, device: torch.device) -> float:
    """Mebibytes by which this process's peak grows from the inputs on; a tiny problem has warmed it up."""
    variants(make_problem(TINY, 2, device))[variant]()
    work = variants(make_problem(SIZES[size], remembered, device))[variant]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - allocated) / 2**20
    peak, before = resident_set("VmHWM"), resident_set("VmRSS")
    work()
    assert resident_set("VmHWM") > peak, "the inputs took more memory than the loss: this peak is not the loss's"
    return resident_set("VmHWM") - before


def resident_set(field: str) -> float:
    """Mebibytes that Linux counts for this process: now (VmRSS) or at most so far (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 2**10


def main() -> None:
    """Compare, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one repeat, 4 memory images, no MALA")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--remembered", type=int, default=REMEMBERED, help="memory images")
    parser.add_argument("--measure-memory", nargs=2, metavar=("SIZE", "VARIANT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure_memory:
        size, variant = options.measure_memory
        print(memory_growth(size, variant, options.remembered, torch.device(options.device)))
        return
    if options.quick:
        options.repeats, options.remembered = 1, 4

    sizes = {}
    for name in SIZES:
        sizes[name] = result = compare(name, options)
        taken, grown = result["seconds"], result["mebibytes"]
        print(
            f"{name:14} loops {taken['loops']:8.3f} s {grown['loops']:7.0f} MiB   ours {taken['ours']:7.3f} s "
            f"{grown['ours']:5.0f} MiB   {result['speedup']:6.1f} times faster, memory {result['memory_ratio']:.3f}"
        )
        for term, speedup in result.get("speedup_of_term", {}).items():
            print(f"    {term:16} {speedup:8.1f} times faster")
    overheads = step_overheads(options.quick, options.repeats, torch.device(options.device))
    for name, taken in overheads.items():
        print(
            f"{name:16} networks {taken['networks']:8.3f} s, distillation {taken['distillation']:7.3f} s: "
            f"{taken['ratio']:.3f}, beside supervision {taken['ratio_beside_supervision']:.3f}"
        )
    reported = "fib25_float32" if options.quick else "mala_float32"
    print(
        json.dumps(
            {
                "quick": options.quick,
                "device": options.device,
                "threads": options.threads,
                "memory_images": options.remembered,
                "speedup": min(result["speedup"] for result in sizes.values()),
                "memory_ratio": max(result["memory_ratio"] for result in sizes.values()),
                "distillation_overhead": overheads[reported]["ratio"],
                "distillation_overhead_of": reported,
                "sizes": sizes,
                "overheads": overheads,
            }
        )
    )


if __name__ == "__main__":
    main()
