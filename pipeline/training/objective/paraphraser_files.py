"""The file of the paraphrasers: what is in it, and whether it belongs to this teacher and student."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ...command_names import name_of
from ...distillation import Paraphraser
from ...errors import UserError
from ...networks.torch_files import read_torch_file, require_numbers, write_torch_file
from ...run import Run

WHERE = "student.distillation.graph_flow.paraphraser"
TRAINING = "00b_train_paraphraser.py"
"""The script that writes the file."""
FORMAT = 1
KEYS = {"format", "settings", "channels", "dimensions", "iteration", "model", "optimizer"}

Channels = Mapping[str, tuple[int, int]]
"""Channels of teacher and student by layer."""


def paraphraser_path(run: Run) -> Path:
    """Where a run keeps its own paraphrasers."""
    return run.directory / "paraphraser" / "paraphraser.pt"


def build_paraphrasers(channels: Channels, dimensions: int) -> nn.ModuleDict:
    """Untrained paraphrasers by layer; dimensions as in `Paraphraser`."""
    return nn.ModuleDict(
        {layer: Paraphraser(taught, learnt, dimensions) for layer, (taught, learnt) in channels.items()}
    )


def write_paraphrasers(path: Path, document: dict[str, Any]) -> None:
    """Write the file in one step: a reader sees a whole one or none.

    Raises:
        UserError: the disk is full or not writable.
    """
    assert document.keys() | {"format"} == KEYS
    write_torch_file(path, {**document, "format": FORMAT})


def read_paraphrasers(path: Path) -> dict[str, Any]:
    """The content of the file, on the CPU.

    Raises:
        UserError: it is missing, damaged, something else, or its weights are no numbers.
    """
    document = read_torch_file(
        path,
        missing=f"there is no such paraphraser; {name_of(TRAINING)} trains it",
        damaged="cannot be read as a paraphraser: damaged, changed since it was written, or something else; delete it",
    )
    if not isinstance(document, dict) or document.keys() != KEYS or document["format"] != FORMAT:
        raise UserError("is no paraphraser of this version; delete it, and it is trained anew", str(path))
    for part in ("model", "optimizer"):
        require_numbers(document[part], path, "its training has diverged; delete it, and it is trained anew")
    return dict(document)


def load_paraphrasers(path: Path, channels: Channels, dimensions: int, student: Mapping[str, str]) -> nn.ModuleDict:
    """Load trained paraphrasers and freeze them.

    Args:
        path: the file.
        channels: of teacher and student by layer, as the networks have them.
        dimensions: 2 where sections are compared by themselves, otherwise 3.
        student: settings of the student's training, see `training_settings`; they name the teacher.

    Raises:
        UserError: the file cannot be read, its training is not finished, or it belongs to other networks.
    """
    document = read_paraphrasers(path)
    if document["settings"]["teacher.checkpoint"] != student["teacher.checkpoint"]:
        raise UserError(f"{path} paraphrases another teacher than this; train it anew, or name one that fits", WHERE)
    if document["channels"] != {layer: list(pair) for layer, pair in channels.items()}:
        raise UserError(
            f"{path} brings the channels {json.dumps(document['channels'])} (teacher, student) together, but the "
            f"networks have {json.dumps(channels)}; train it anew",
            WHERE,
        )
    if document["dimensions"] != dimensions:
        raise UserError(f"{path} is for {document['dimensions']} dimensions, not {dimensions}; train it anew", WHERE)
    paraphrasers = build_paraphrasers(channels, dimensions)
    paraphrasers.load_state_dict(document["model"])
    if not all(bool(paraphraser.trained) for paraphraser in paraphrasers.values()):
        raise UserError(f"the training of {path} is not finished; {name_of(TRAINING)} continues it", WHERE)
    return paraphrasers.requires_grad_(False).eval()
