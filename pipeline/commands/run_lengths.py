"""Expected run lengths on skeletons, for the command that evaluates: options, and what is printed."""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..evaluation import SKELETON_TABLE, SkeletonOptions, rows_of, score_skeletons
from ..evaluation.skeleton_scores import COLUMNS, RULES
from ..run import Run
from ..terminal import table_lines
from ..units import counted, threshold_name
from ..volumes.locations import Location

WHOLE = "volumes.segment"
SHOWN_SKELETONS = 10
"""Rows of the table that are printed."""


def add_skeleton_arguments(group: argparse._ArgumentGroup) -> None:
    """Options of expected run lengths."""
    group.add_argument(
        "--skeletons",
        metavar="FILE",
        help="SWC (file or folder), NML, npz, or a folder or bucket of precomputed skeletons; nanometres; of a run, or"
        " with --prediction",
    )
    group.add_argument(
        "--merge-threshold",
        type=int,
        default=1,
        metavar="N",
        help="a segment is merged if so many nodes of each of two skeletons lie in it, or so many voxels of the mask"
        " (default: 1)",
    )
    group.add_argument("--no-merge-mask", metavar="FILE", help="a volume above 0 where no segment of a skeleton may be")
    three: dict[str, Any] = {"type": length, "nargs": 3, "metavar": ("Z", "Y", "X")}
    group.add_argument("--skeleton-scale", **three, help="nanometres of a unit of the skeletons' positions")
    group.add_argument("--voxel-size", **three, help="of --prediction in nanometres, if it does not say or is wrong")
    group.add_argument("--offset", **{**three, "type": coordinate}, help="of its first voxel in nanometres, likewise")
    group.add_argument(
        "--skeleton-table",
        type=Path,
        metavar="FILE",
        help="with --prediction: a row per skeleton (CSV); of a run, it is skeletons.csv",
    )


def length(text: str) -> float:
    """A number above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def coordinate(text: str) -> float:
    """A number that is one of a place."""
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is no place")
    return value


def refuse_of_run(options: argparse.Namespace) -> None:
    """Refuse options that a run has no use for.

    Raises:
        UserError: one is given.
    """
    if options.floor and options.skeletons is not None:
        raise UserError("takes labels, not skeletons; leave out --skeletons", "--floor")
    for name in ("voxel_size", "offset", "skeleton_table"):
        if getattr(options, name) is not None:
            raise UserError("belongs to --prediction; a run knows its place and writes skeletons.csv", _flag(name))


def _flag(name: str) -> str:
    """An option as it is typed."""
    return "--" + name.replace("_", "-")


def skeleton_options(options: argparse.Namespace) -> SkeletonOptions | None:
    """The skeletons that are asked for.

    Raises:
        UserError: an option is given that needs them.
    """
    if options.skeletons is None:
        defaults = {"merge_threshold": 1, "no_merge_mask": None, "skeleton_scale": None, "skeleton_table": None}
        for name, default in defaults.items():
            if getattr(options, name) != default:
                raise UserError("belongs to --skeletons; give them, too", _flag(name))
        return None
    scale = None if options.skeleton_scale is None else tuple(options.skeleton_scale)
    return SkeletonOptions(options.skeletons, scale, options.merge_threshold, options.no_merge_mask)


def score_on_skeletons(options: argparse.Namespace, chosen: SkeletonOptions, prediction: str) -> dict[str, Any]:
    """Measure run lengths of a volume.

    Args:
        options: of the command line.
        chosen: the skeletons.
        prediction: name of the volume, to be shown.
    """
    place = Location.of(chosen.place).name
    if options.dry_run:
        print(f"would score {prediction} on {counted(len(chosen.open().names), 'skeleton')} of {place}")
        return {}
    size, offset = (None if given is None else tuple(given) for given in (options.voxel_size, options.offset))
    lengths, summary = score_skeletons(options.prediction, chosen, size, offset, options.skeleton_table)
    print("\n".join(length_lines("prediction", {prediction: summary})))
    print_skeletons(
        list(rows_of(lengths, chosen)), f"all in {options.skeleton_table}" if options.skeleton_table else ""
    )
    print(format_lengths(summary))
    return {"skeleton_file": place, **summary}


def print_run_lengths(run: Run, lengths: Mapping[str, Any]) -> None:
    """Run lengths at every threshold, and of the skeletons that lost most."""
    rows = lengths["thresholds"]
    print(f"run lengths on skeletons, {lengths['compared_on']}; {_rules(lengths)}:")
    print("\n".join(length_lines("threshold", rows)))
    with (run.directory / SKELETON_TABLE).open(newline="") as file:
        skeletons = list(csv.reader(file))[1:]
    print_skeletons(skeletons, f"all in {run.directory / SKELETON_TABLE}")
    chosen = {
        "erl": f"has the highest ERL in {lengths['chosen_on']}",
        "labels": f"was chosen by labels in {lengths['chosen_on']}",
    }
    threshold = threshold_name(lengths["threshold"])
    print(f"threshold {threshold} {chosen[lengths['chosen_by']]}; in {lengths['reported_on']}:")
    print(format_lengths(lengths))


def length_lines(title: str, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line per segmentation."""
    columns = ["ERL, nm", "normalised", "correct", "split", "merged", "omitted edges"]
    names = ["correct_edges", "split_edges", "merged_edges", "omitted_edges"]
    cells = [
        [name, f"{row['erl']:.1f}", f"{row['normalised_erl']:.4f}", *(str(row[column]) for column in names)]
        for name, row in rows.items()
    ]
    return table_lines([title, *columns], cells, numbers=columns)


def print_skeletons(rows: Sequence[Sequence[str | int]], more: str) -> None:
    """The skeletons that lost most."""
    columns = COLUMNS[: len(COLUMNS) - len(RULES)]  # the rules are the same for all
    shown = [[str(cell) for cell in row[: len(columns)]] for row in rows[:SHOWN_SKELETONS]]
    print("\n".join(table_lines(columns, shown, numbers=columns[1:])))
    if len(rows) > SHOWN_SKELETONS or more:
        print(f"{len(shown)} of {len(rows)} skeletons, those that lost most first{'; ' if more else ''}{more}")


def format_lengths(lengths: Mapping[str, Any]) -> str:
    """Expected run length, and all that it depends on."""
    text = (
        f"ERL {lengths['erl']:.1f} nm of at most {lengths['max_erl']:.1f} nm, normalised"
        f" {lengths['normalised_erl']:.4f}, on {counted(lengths['skeletons'], 'skeleton')}; {_rules(lengths)}"
    )
    if lengths["nodes_outside"]:
        text += f"; {lengths['nodes_outside']} of {lengths['nodes']} nodes lie outside the volume, their edges count as"
        text += " omitted" if lengths.get("reported_on", WHOLE) == WHOLE else " neither traced nor missed"
    return text


def _rules(lengths: Mapping[str, Any]) -> str:
    """What a run length depends on beside the segmentation."""
    return f"merge threshold {lengths['merge_threshold']}, no-merge mask {lengths['no_merge_mask'] or 'none'}"
