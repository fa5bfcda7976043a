"""Score a run against its labels, or with --prediction and --labels any two label volumes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, NoReturn

from ..api import evaluate
from ..cli import exit_after, parse_arguments, run_script
from ..errors import UserError
from ..evaluation import LabelRules, check_run, open_pair, score_volumes, told
from ..run import Run

COLUMNS = (
    "panoptic_quality",
    "segmentation_quality",
    "recognition_quality",
    "f1",
    "aggregated_jaccard",
    "dice",
    "voi_split",
    "voi_merge",
    "voi_sum",
    "adapted_rand_error",
)
"""Scores in the order of the table; those of objects are there for separate images only."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this step."""
    parser.add_argument("--prediction", metavar="A", help="a segmentation: file.h5/dataset or store.zarr/dataset")
    parser.add_argument("--labels", metavar="B", help="the labels to score it against; no config is needed then")
    parser.add_argument("--relabel", action="store_true", help="with --labels: separate connected parts are objects")
    parser.add_argument("--minimum-size", type=int, default=0, help="with --labels: ignore objects with fewer voxels")


def score_run(run: Run, options: argparse.Namespace) -> None:
    """Score the run of a config."""
    if options.dry_run:
        print(f"would score {check_run(run)}")
        return
    results = evaluate(run)
    print_table("threshold", results["scores"])
    best = results["best"]
    print(f"best: threshold {best['threshold']:.2f}, {told(best)}; written to {run.summary}")
    print(json.dumps(results["best"]))


def score_files(options: argparse.Namespace) -> None:
    """Score one volume against another."""
    if options.prediction is None or options.labels is None:
        raise UserError("--prediction and --labels belong together; give both")
    if options.dry_run:
        with ExitStack() as stack:
            open_pair(options.prediction, options.labels, stack)
        print(f"would score {options.prediction} against {options.labels}")
        return
    scores = score_volumes(options.prediction, options.labels, LabelRules(options.relabel, options.minimum_size))
    print_table("prediction", {options.prediction: scores})
    print(json.dumps({"prediction": options.prediction, "labels": options.labels, **scores}))


def print_table(title: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """One line per row, one column per score."""
    width = max(len(title), *(len(name) for name in rows))
    columns = [column for column in COLUMNS if all(column in scores for scores in rows.values())]
    print(f"{title:>{width}}  " + "  ".join(f"{column:>20}" for column in columns))
    for name, scores in rows.items():
        print(f"{name:>{width}}  " + "  ".join(f"{scores[column]:20.4f}" for column in columns))


def main() -> NoReturn:
    """Read the command line, do the step, and exit; two files need no config."""
    options = parse_arguments(str(__doc__), add_arguments)
    if options.prediction is None and options.labels is None:
        run_script(str(__doc__), score_run, add_arguments=add_arguments)
    exit_after(lambda: score_files(options), options.debug)
