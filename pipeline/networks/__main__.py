"""Look at the ready-made students, or make a file for one: `python -m pipeline.networks`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..config.pretrained import Card, pretrained_names, pretrained_weights, read_card
from ..errors import UserError
from ..terminal import replace_what_cannot_be_printed
from ..units import by
from .registry import build_network, parse_network_config

MAIN_SCORES = {"voi_six_watersheds": "VOI", "voi_sum": "VOI", "panoptic_quality": "panoptic quality"}
"""The score that stands for a student in the list, the first that its card has, and what it is called."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.networks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    listed = commands.add_parser("pretrained", help="list the ready-made students, or show the card of one")
    listed.add_argument("name", nargs="?", help="show its whole card")
    weights = commands.add_parser("weights", help="copy a checkpoint without what only continues its training")
    weights.add_argument("checkpoint", type=Path)
    weights.add_argument("to", type=Path, help="the file to write")
    options = parser.parse_args(arguments)
    replace_what_cannot_be_printed()
    try:
        if options.command == "weights":
            sys.stdout.write(_copy_weights(options.checkpoint, options.to) + "\n")
        elif options.name is not None:
            sys.stdout.write(_whole(options.name, read_card(options.name)))
        else:
            sys.stdout.write("".join(f"{_line(name, read_card(name))}\n" for name in pretrained_names()))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _copy_weights(checkpoint: Path, to: Path) -> str:
    from .checkpoint import load_network, save_checkpoint
    from .intensity import INTENSITIES

    network, document = load_network(checkpoint)
    kept = {key: value for key, value in document["training"].items() if key == INTENSITIES}
    save_checkpoint(to, network, document["iteration"], kept)
    return f"wrote {to}, {network.parameter_count():,} parameters, {to.stat().st_size:,} bytes"


def _line(name: str, card: Card) -> str:
    parameters = build_network(parse_network_config(card.config["student"]["network"])).parameter_count()
    score = next(f"{called} {card.scores[key]:g}" for key, called in MAIN_SCORES.items() if key in card.scores)
    return f"{name}: {_nanometres(card)}, {parameters:,} parameters, {score}, {card.licence}; {card.data}"


def _whole(name: str, card: Card) -> str:
    scores = ", ".join(f"{key} {value:g}" for key, value in card.scores.items())
    return (
        f"{name}\n"
        f"  predict.checkpoint: pretrained:{name}\n"
        f"  voxels: {_nanometres(card)}\n"
        f"  merge threshold: {card.threshold:g}\n"
        f"  data: {card.data}\n"
        f"  licence of the data: {card.licence}\n"
        f"  training: {card.training}\n"
        f"  scores on validation: {scores}\n"
        f"  not tried: {card.not_tried}\n"
        f"  weights: {pretrained_weights(name).stat().st_size:,} bytes\n"
    )


def _nanometres(card: Card) -> str:
    if card.nanometres is None:
        return "pixels of unknown size"
    return f"{by(card.nanometres)} nm (z, y, x)"


if __name__ == "__main__":
    sys.exit(main())
