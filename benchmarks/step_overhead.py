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
from pipeline.networks import EmbeddingNetwork, build_network, choose_autocast

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "fib25.json"
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
    """Seconds of the networks' part of a training step, of the loss from and to the embeddings, and their ratio."""
    teacher, student, raw = pair.teacher.eval().to(device), pair.student.train().to(device), pair.raw.to(device)

    def embed(network: EmbeddingNetwork) -> torch.Tensor:
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            embedding: torch.Tensor = network(raw)
        return embedding.float()

    def networks() -> None:
        with torch.no_grad():
            embed(teacher)
        embed(student).backward(gradient)

    def loss() -> None:
        learnt.grad = None
        module(learnt, taught, labels)[0].backward()

    with torch.no_grad():
        taught = embed(teacher)
    learnt = embed(student).detach().requires_grad_()
    gradient, rng = torch.randn_like(learnt), np.random.default_rng(0)
    labels = torch.stack([neurites(learnt.shape[2:], (30, 60), rng) for _ in learnt]).to(device)
    module = distillation(TargetsConfig().offsets, REMEMBERED)
    while len(module.memory) < REMEMBERED:
        module.memory.enqueue(taught, labels)
    loss()
    taken = alternate({"networks": networks, "loss": loss}, repeats, device)
    return taken | {"ratio": taken["loss"] / taken["networks"]}


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
