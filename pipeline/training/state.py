"""Checkpoints that a training continues from exactly: all state, one file, written in one step."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import UserError
from ..networks import latest_checkpoint, load_network, save_checkpoint
from .step import TrainStep

BEST = "best.pt"
"""The checkpoint with the best validation; never deleted."""


def newest_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint of a folder, or None if there is none."""
    return latest_checkpoint(directory) if any(directory.glob("checkpoint_*.pt")) else None


def save_state(directory: Path, step: TrainStep, settings: dict[str, str], progress: dict[str, Any], keep: int) -> Path:
    """Write a checkpoint, and delete older ones beyond the number to keep.

    Args:
        directory: the network's folder.
        step: the training node after an iteration.
        settings: what decides the weights, to refuse a changed config later.
        progress: plain values that the training loop needs to continue.
        keep: number of checkpoints to keep.

    Raises:
        UserError: it cannot be written; the older checkpoints are untouched.
    """
    path = directory / f"checkpoint_{step.iteration:07d}.pt"
    _save(path, step, settings, progress)
    for old in sorted(directory.glob("checkpoint_*.pt"))[:-keep]:
        old.unlink(missing_ok=True)
    return path


def save_best(directory: Path, step: TrainStep, settings: dict[str, str], progress: dict[str, Any]) -> Path:
    """Write the checkpoint with the best validation so far, in place of an earlier one.

    Raises:
        UserError: it cannot be written; the earlier one is untouched.
    """
    _save(directory / BEST, step, settings, progress)
    return directory / BEST


def _save(path: Path, step: TrainStep, settings: dict[str, str], progress: dict[str, Any]) -> None:
    training = {
        "settings": settings,
        "progress": progress,
        "optimizer": step.optimizer.state_dict(),
        "scaler": step.scaler.state_dict(),
        "objective": step.objective.state_dict(),
        "random": random_state(),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(path, step.network, step.iteration, training)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror or error}", str(path)) from error


def read_training(path: Path) -> tuple[int, dict[str, Any]]:
    """Iterations done and training state of a checkpoint.

    Raises:
        UserError: it cannot be read, or holds weights only.
    """
    _, metadata = load_network(path, None)
    training = metadata["training"]
    if "settings" not in training:
        raise UserError("this checkpoint holds no training state; move it away to train anew", str(path))
    return int(metadata["iteration"]), training


def restore_state(path: Path, step: TrainStep, training: dict[str, Any]) -> None:
    """Continue from a checkpoint: weights, optimiser, distillation state and random generators.

    Raises:
        UserError: it is of another network.
    """
    network, metadata = load_network(path, step.network.config)
    step.network.load_state_dict(network.state_dict())
    step.objective.load_state_dict(training["objective"])
    step.optimizer.load_state_dict(training["optimizer"])
    step.scaler.load_state_dict(training["scaler"])
    step.iteration = int(metadata["iteration"])
    restore_random_state(training["random"])


def random_state() -> dict[str, Any]:
    """The state of all random generators as plain values and tensors."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": [str(kind), [int(key) for key in keys], int(position), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Put all random generators into a state from `random_state`."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([generator.cpu() for generator in state["cuda"]])
