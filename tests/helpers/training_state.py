"""What a training left: weights, whole checkpoints, curves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline.checkpoints import latest_checkpoint
from pipeline.networks.checkpoint import load_checkpoint
from pipeline.run import Run, read_json_lines
from pipeline.training import train_student


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(checkpoint)["model"])


def assert_equal(one: Any, other: Any, path: str = "") -> None:
    """Nested containers of tensors and plain values are equal to the last bit."""
    assert type(one) is type(other), path
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key, value in one.items():
            assert_equal(value, other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for index, value in enumerate(one):
            assert_equal(value, other[index], f"{path}.{index}")
    else:
        assert one == other, path


def assert_same_state(one: Path, other: Path) -> None:
    """Two checkpoints are equal, but for the time that they took."""
    first, second = (load_checkpoint(path) for path in (one, other))
    for document in (first, second):
        document["training"]["progress"].pop("seconds")
    assert_equal(first, second)


def resumed_equals_undisturbed(make_run: Callable[..., Run], *overrides: str) -> Path:
    """Six steps of a student at once leave the same state and curves as three and then three; gives its checkpoint."""
    length, common = "student.training.iterations", (*overrides, "student.training.validate_every=3")
    whole = make_run(*common, f"{length}=6", name="whole")
    train_student(whole)
    train_student(make_run(*common, f"{length}=3", name="parts"))
    resumed = make_run(*common, f"{length}=6", name="parts")
    train_student(resumed)
    undisturbed, continued = (latest_checkpoint(run.network_directory("student")) for run in (whole, resumed))
    assert_same_state(undisturbed, continued)
    assert curves(whole, "student") == curves(resumed, "student")
    return undisturbed


def curves(run: Run, role: str) -> list[dict[str, Any]]:
    lines = read_json_lines(run.network_directory(role) / "curves.jsonl")
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
