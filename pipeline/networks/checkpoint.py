"""Checkpoints: a network, its config, and what continues its training, in one file (see `torch_files`).

A file of which a bit has changed, and weights that are no numbers, are refused: either would give other affinities
without a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config import NetworkConfig, dump_config
from ..errors import UserError
from .base import EmbeddingNetwork
from .registry import build_network, parse_network_config
from .torch_files import read_torch_file, require_numbers, write_torch_file

FORMAT = 1
KEYS = ("format", "network", "model", "iteration", "training")


def save_checkpoint(path: Path, network: EmbeddingNetwork, iteration: int, training: dict[str, Any]) -> None:
    """Write a checkpoint in one step: a reader sees a whole file or none.

    Args:
        path: the file; an existing one is replaced.
        network: its config and weights are stored.
        iteration: optimiser steps so far.
        training: what continues the training: tensors and plain types only.

    Raises:
        UserError: the weights are no numbers, or the disk is full or not writable; an existing file is untouched.
    """
    model = network.state_dict()
    require_numbers(model, path, "nothing was written: the training has diverged; lower its learning rate")
    document = {
        "format": FORMAT,
        "network": dump_config(network.config),
        "model": model,
        "iteration": iteration,
        "training": training,
    }
    write_torch_file(path, document)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU.

    Raises:
        UserError: the file is missing, damaged, no checkpoint of ours, or its weights are no numbers.
    """
    document = read_torch_file(
        path,
        missing="there is no such checkpoint",
        damaged="cannot be read as a checkpoint: damaged, changed since it was written, or not written by this "
        "program; delete it or name another one",
    )
    if not isinstance(document, dict) or not all(key in document for key in KEYS):
        raise UserError("is no checkpoint of this program", str(path))
    if document["format"] != FORMAT:
        raise UserError(f"has checkpoint format {document['format']}, this version reads {FORMAT}", str(path))
    require_numbers(document["model"], path, "its training has diverged; delete it or name another one")
    return document


def load_network(path: Path, expected: NetworkConfig | None = None) -> tuple[EmbeddingNetwork, dict[str, Any]]:
    """A trained network.

    Args:
        path: the checkpoint.
        expected: the network that the config describes; None takes whatever the checkpoint holds.

    Returns:
        The network on the CPU, and the rest of the checkpoint: `format`, `network`, `iteration`, `training`.

    Raises:
        UserError: the checkpoint is missing, damaged, or of another network than expected.
    """
    document = load_checkpoint(path)
    try:
        stored = parse_network_config(document["network"])
    except UserError as error:
        raise UserError(f"holds a network that this version cannot build ({error})", str(path)) from None
    if expected is not None and stored != expected:
        raise UserError(f"holds another network than the config describes: {_difference(stored, expected)}", str(path))
    network = build_network(stored)
    try:
        network.load_state_dict(document.pop("model"))
    except (RuntimeError, TypeError, AttributeError):
        raise UserError("its weights do not fit its own network; the file is damaged", str(path)) from None
    return network, document


def _difference(stored: NetworkConfig, expected: NetworkConfig) -> str:
    """The first field that differs, in words."""
    have, want = dump_config(stored), dump_config(expected)
    keys = [key for key in want if have.get(key) != want[key]] or [key for key in have if key not in want]
    return f"{keys[0]} is {have.get(keys[0])} in the checkpoint and {want.get(keys[0])} in the config"
