"""Checkpoints that a training continues from exactly: all state, one file, written in one step."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...checkpoints import checkpoint_path, checkpoints, latest_checkpoint
from ...errors import UserError
from ...networks import save_checkpoint
from ...networks.checkpoint import load_checkpoint
from ...networks.intensity import INTENSITIES
from ...networks.torch_files import require_numbers
from .step import TrainStep

if TYPE_CHECKING:
    from .training_setup import Training

BEST = "best.pt"
"""The checkpoint with the best validation; never deleted."""
LEARNING = "learning"
"""Where the training part of a checkpoint of averaged weights keeps those that learn."""


def newest_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint of a folder, or None if there is none."""
    return latest_checkpoint(directory) if checkpoints(directory) else None


def save_state(training: Training, step: TrainStep, progress: dict[str, Any], keep: int) -> Path:
    """Write a checkpoint, and delete older ones beyond the number to keep.

    Args:
        training: knows the network's folder, and the settings and intensities to be stored with the weights.
        step: the training node after an iteration.
        progress: plain values that the training loop needs to continue.
        keep: number of checkpoints to keep.

    Raises:
        UserError: it cannot be written; the older checkpoints are untouched.
    """
    path = checkpoint_path(training.directory, step.iteration)
    _save(path, training, step, progress)
    for old in checkpoints(training.directory)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def save_best(training: Training, step: TrainStep, progress: dict[str, Any]) -> Path:
    """Write the checkpoint with the best validation so far, in place of an earlier one.

    Raises:
        UserError: it cannot be written; the earlier one is untouched.
    """
    path = training.directory / BEST
    _save(path, training, step, progress)
    return path


def _save(path: Path, training: Training, step: TrainStep, progress: dict[str, Any]) -> None:
    state = {
        "settings": training.settings,
        INTENSITIES: training.intensities,
        "progress": progress,
        "optimizer": step.optimizer.state_dict(),
        "scaler": step.scaler.state_dict(),
        "objective": step.objective.state_dict(),
        "random": random_state(),
    }
    with step.kept_weights() as learning:
        learnt = {} if learning is None else {LEARNING: dict(learning)}
        save_checkpoint(path, step.network, step.iteration, {**state, **learnt})


@dataclass(frozen=True)
class StoredTraining:
    """A checkpoint that a training can continue from.

    Attributes:
        path: the file.
        document: its content.
    """

    path: Path
    document: dict[str, Any]

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return int(self.document["iteration"])

    @property
    def settings(self) -> dict[str, str]:
        """Settings that decided the weights, see `training_settings`."""
        return dict(self.document["training"]["settings"])

    @property
    def progress(self) -> dict[str, Any]:
        """The loop's own values, see `TrainingProgress`."""
        return dict(self.document["training"]["progress"])

    def restore(self, step: TrainStep) -> None:
        """Continue from here: weights, optimiser, distillation state and random generators.

        Raises:
            UserError: some of that is no number.
        """
        training = self.document["training"]
        for part in ("objective", "optimizer"):
            require_numbers(training[part], self.path, f"the {part} has diverged; delete it, and an older one is used")
        step.network.load_state_dict(training.get(LEARNING, self.document["model"]))
        if step.average is not None:
            step.average.restore(self.document["model"])
        step.objective.load_state_dict(_on_device(training["objective"], step.device))
        step.optimizer.load_state_dict(training["optimizer"])
        step.scaler.load_state_dict(training["scaler"])
        step.iteration = self.iteration
        restore_random_state(training["random"])


def newest_training(directory: Path) -> StoredTraining | None:
    """The newest checkpoint of a folder, or None if there is none.

    Raises:
        UserError: it cannot be read, or holds weights only.
    """
    path = newest_checkpoint(directory)
    if path is None:
        return None
    stored = StoredTraining(path, load_checkpoint(path))
    if "settings" not in stored.document["training"]:
        raise UserError("this checkpoint holds no training state; move it away to train anew", str(path))
    return stored


def _on_device(value: Any, device: torch.device) -> Any:
    """The same nested containers with their tensors on a device; remembered images are no buffers that torch moves."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _on_device(part, device) for key, part in value.items()}
    if isinstance(value, list):
        return [_on_device(part, device) for part in value]
    return value


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
