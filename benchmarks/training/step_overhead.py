"""What graph relation distillation adds to a training step of two networks, for `distillation_losses.py`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from side_by_side import alternate, distillation, neurites

from pipeline.config import TargetsConfig
from pipeline.distillation import EmbeddedPatch, SupervisedAffinityLoss
from pipeline.networks import EmbeddingNetwork, build_network, choose_autocast

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "fib25.json"
REMEMBERED = 12


@dataclass(frozen=True)
class Pair:
    """A teacher, its student, and the raw (B, 1, Z, Y, X) that both see in a step."""

    teacher: EmbeddingNetwork
    student: EmbeddingNetwork
    raw: torch.Tensor


def fib25() -> Pair:
    """Networks, batch and patch of configs/fib25.json."""
    config = json.loads(CONFIG.read_text())
    teacher, student = (build_network(config[role]["network"]) for role in ("teacher", "student"))
    training = config["student"]["training"]
    return Pair(teacher, student, torch.randn(training["batch_size"], 1, *training["patch_shape"]))


def published() -> Pair:
    """The published networks for volumes."""
    return Pair(build_network("mala"), build_network("mala_tiny"), torch.randn(2, 1, 53, 268, 268))


def step_overhead(pair: Pair, autocast: torch.dtype | None, repeats: int, device: torch.device) -> dict[str, float]:
    """Seconds of a training step's parts, and ratios.

    Returns:
        networks: teacher forward, student forward and backward.
        distillation: the loss alone, from and to the student's embedding; `ratio` is this over `networks`.
        supervision: the same of the supervised loss.
        both: of their sum, as in training, where they share what they derive from the embedding;
            `ratio_beside_supervision` is what distillation adds to `supervision`, over `networks`.
    """
    teacher, student, raw = pair.teacher.eval().to(device), pair.student.train().to(device), pair.raw.to(device)

    def embed(network: EmbeddingNetwork) -> torch.Tensor:
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            embedding: torch.Tensor = network(raw)
        return embedding.float()

    def networks() -> None:
        with torch.no_grad():
            embed(teacher)
        embed(student).backward(gradient)

    def distillation_alone() -> None:
        learnt.grad = None
        distilled(learnt, taught, labels)[0].backward()

    def supervision() -> None:
        learnt.grad = None
        supervised(learnt, affinities, mask).backward()

    def both() -> None:
        learnt.grad = None
        patch = EmbeddedPatch(learnt)
        (supervised(patch, affinities, mask) + distilled(patch, taught, labels)[0]).backward()

    with torch.no_grad():
        taught = embed(teacher)
    learnt = embed(student).detach().requires_grad_()
    gradient, rng = torch.randn_like(learnt), np.random.default_rng(0)
    labels = torch.stack([neurites(learnt.shape[2:], (30, 60), rng) for _ in learnt]).to(device)
    offsets = TargetsConfig().offsets
    affinities, mask = torch.randint(
        0, 2, (2, len(labels), len(offsets), *labels.shape[1:]), dtype=torch.uint8, device=device
    )
    supervised, distilled = SupervisedAffinityLoss(offsets), distillation(offsets, REMEMBERED)
    while len(distilled.memory) < REMEMBERED:
        distilled.memory.enqueue(taught, labels)
    both()
    works = {"networks": networks, "distillation": distillation_alone, "supervision": supervision, "both": both}
    taken = alternate(works, repeats, device)
    return taken | {
        "ratio": taken["distillation"] / taken["networks"],
        "ratio_beside_supervision": (taken["both"] - taken["supervision"]) / taken["networks"],
    }


def step_overheads(quick: bool, repeats: int, device: torch.device) -> dict[str, dict[str, float]]:
    """By pair of networks and precision: float32, and what `autocast: auto` takes on this device, if that is another.

    Without `mala` if it has to be quick.
    """
    reduced = choose_autocast("auto", device)
    pairs: dict[str, tuple[Callable[[], Pair], int]] = {"fib25": (fib25, 5 * repeats)}
    if not quick:
        pairs["mala"] = (published, repeats)
    return {
        f"{name}_{str(precision or torch.float32).removeprefix('torch.')}": step_overhead(
            make(), precision, count, device
        )
        for name, (make, count) in pairs.items()
        for precision in dict.fromkeys((None, reduced))
    }
