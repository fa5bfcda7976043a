"""Score a run against its labels or skeletons, any volume (--prediction) against --labels or --skeletons, or perfect
affinities (--floor).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

from ..api import evaluate
from ..cli import exit_after, parse_arguments, run_script
from ..command_names import command_line
from ..engine.tracking.lineage import present_segmentations
from ..errors import UserError
from ..evaluation import LabelRules, check_run, common_scores, format_score, open_pair, score_text, score_volumes
from ..label_ids import HIGHEST, LOWEST
from ..run import Run
from ..terminal import table_lines
from ..units import counted, threshold_name
from ..volumes.locations import Location
from .run_lengths import add_skeleton_arguments, print_run_lengths, refuse_of_run, score_on_skeletons, skeleton_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this step."""
    parser.add_argument(
        "--floor",
        action="store_true",
        help="score perfect affinities, made from the labels, with the fragments of the config and others like them",
    )
    parser.add_argument(
        "--prediction",
        metavar="A",
        help="a segmentation: file.h5/dataset, store.zarr/dataset, OME-NGFF, N5, precomputed, TIFF, npy; or a URL",
    )
    parser.add_argument("--labels", metavar="B", help="the labels to score it against; no config is needed then")
    parser.add_argument("--relabel", action="store_true", help="with --labels: separate connected parts are objects")
    parser.add_argument("--minimum-size", type=int, default=0, help="with --labels: ignore objects with fewer voxels")
    parser.add_argument(
        "--ignore",
        type=label_id,
        action="append",
        default=[],
        metavar="ID",
        help="with --labels: voxels with this label do not count, like those with 0 (-1, for example); repeatable",
    )

    parser.add_argument(
        "--errors",
        type=Path,
        metavar="FILE",
        help="with --labels: list splits and merges here, the dearest first, each with a voxel on its seam (CSV); of a"
        " run, they are in errors.csv",
    )
    add_skeleton_arguments(parser.add_argument_group("run lengths on skeletons"))


def label_id(text: str) -> int:
    """A whole number that can be the id of a label."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no whole number") from None
    if not LOWEST <= value <= HIGHEST:
        raise argparse.ArgumentTypeError(f"{text} does not fit into 64 bits")
    return value


def score_run(run: Run, options: argparse.Namespace) -> None:
    """Score the run of a config."""
    if options.ignore:
        raise UserError("belongs to --prediction and --labels; for a run, set evaluate.ignore", "--ignore")
    if options.errors is not None:
        raise UserError("belongs to --prediction and --labels; a run lists them in its errors.csv", "--errors")
    refuse_of_run(options)
    if options.floor:
        score_floor(run, options)
        return
    chosen = skeleton_options(options)
    if options.dry_run:
        print(f"would score {check_run(run, chosen)}")
        return
    results = evaluate(run, chosen)
    if results["best"] is not None:
        print_scores(run, results)
    if results["run_length"] is not None:
        print_run_lengths(run, results["run_length"])
    last = results["best"] or {}
    lengths = results["run_length"] or {}
    print(json.dumps({**{name: value for name, value in lengths.items() if name != "thresholds"}, **last}))


def print_scores(run: Run, results: Mapping[str, Any]) -> None:
    """Scores against labels, and which region is which."""
    best, regions = results["best"], results["regions"]
    chosen_on, reported_on = regions["chosen_on"], regions["reported_on"]
    at_best = threshold_name(best["threshold"])
    print_table("threshold", results["scores"])
    if reported_on != chosen_on:
        print(f"above: {chosen_on}, which chooses the threshold; below: {reported_on}, on which nothing is chosen")
        print_table("threshold", {at_best: best})
        print(f"best on {chosen_on}: threshold {at_best}, {format_score(best)} on {reported_on}")
    else:
        print(f"best: threshold {at_best}, {format_score(best)}; chosen and scored on {chosen_on}")
    for label, voxels in results["ignored"].items():
        print(f"left out of the scores on {reported_on}: {voxels:,} voxels of label {label} (evaluate.ignore)")
    tell_unwritten(run, best["threshold"])
    ranked = results["certainty"]
    if ranked is not None and ranked["spearman"] is not None:
        print(
            f"certainty of {counted(ranked['blocks'], 'block')} against their VOI at threshold"
            f" {threshold_name(ranked['threshold'])}: rank correlation {ranked['spearman']:.2f} (-1: the less certain,"
            " the worse)"
        )
    print(f"written to {run.summary}")


def tell_unwritten(run: Run, best: float) -> None:
    """Say how to write the segmentation at the best threshold, if there is none; those that there are stay as they are,
    and so does the certainty, which is that of the first.
    """
    wanted = run.config.segment.thresholds
    if wanted == "best" or threshold_name(best) in present_segmentations(run):
        return
    thresholds = ",".join(threshold_name(threshold) for threshold in (*wanted, best))
    setting = f"segment.thresholds=[{thresholds}]"
    anew = ["--overwrite"] if threshold_name(best) in run.segmentation_names() else []  # of a former graph
    command = command_line("05_segment.py", run.directory / "config.json", "--set", setting, *anew)
    print(f"no segmentation is written at {threshold_name(best)}: {command}")


def score_floor(run: Run, options: argparse.Namespace) -> None:
    """Score perfect affinities, and the network's if they are there."""
    from ..stages.floor import NETWORK, describe_floor, format_changes, in_words, measure_floor  # imports torch: slow

    if options.dry_run:
        print(describe_floor(run))
        return
    results = measure_floor(run)
    configured = results["settings"][0]
    kinds = [*results["loss"], *([NETWORK] if NETWORK in configured else [])]
    rows = {
        f"{kind}, {format_changes(setting['fragments'])}, {name}": scores
        for kind in kinds
        for setting in results["settings"]
        for name, scores in floors(setting[kind])
    }
    print_table("affinities, fragments, threshold", rows)
    for kind, loss in results["loss"].items():
        print(f"{kind} contacts: VOI {loss:.3f} is lost with the labels that affinities were made from")
    chosen_by = in_words(NETWORK)
    if NETWORK not in kinds:
        kept = "" if run.config.predict.keep_affinities == "all" else ", with predict.keep_affinities all"
        chosen_by = f"perfect affinities; after a prediction{kept}, the network's choose"
    take = format_changes(results["take"])
    print(f"fragments: take {take} (best for {chosen_by}); written to {run.directory / 'floor.json'}")
    first = {kind: configured[kind]["best"]["voi_sum"] for kind in kinds}
    of_network = {NETWORK: first.pop(NETWORK)} if NETWORK in first else {}
    print(json.dumps({"floor": first, **of_network, "take": results["take"]}))


def floors(measured: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The best threshold and those of the config, each with its scores."""
    yield f"best {threshold_name(measured['best']['threshold'])}", measured["best"]
    yield from measured["configured"].items()


def score_files(options: argparse.Namespace) -> None:
    """Score one volume against another, against skeletons, or both."""
    chosen = skeleton_options(options)
    if options.prediction is None or (options.labels is None and chosen is None):
        raise UserError("--prediction and --labels (or --skeletons) belong together; give both")
    results: dict[str, Any] = {"prediction": name_without_secrets(options.prediction)}
    if options.labels is not None:
        results |= score_against_labels(options, results["prediction"])
    if chosen is not None:
        results |= score_on_skeletons(options, chosen, results["prediction"])
    if not options.dry_run:
        print(json.dumps(results))


def score_against_labels(options: argparse.Namespace, prediction: str) -> dict[str, Any]:
    """Score one volume against another."""
    names = {"labels": name_without_secrets(options.labels)}
    if options.dry_run:
        with ExitStack() as stack:
            open_pair(options.prediction, options.labels, stack, options.ignore)
        print(f"would score {prediction} against {names['labels']}")
        return {}
    rules = LabelRules(options.relabel, options.minimum_size)
    scores = score_volumes(options.prediction, options.labels, rules, options.ignore, options.errors)
    print_table("prediction", {prediction: scores})
    return {**names, **scores}


def name_without_secrets(place: str) -> str:
    """A path as it was given; a URL without what must not be shown, a signature for example."""
    return Location.of(place).name if "://" in place else place


def print_table(title: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """One line per row, one column per score."""
    columns = common_scores(rows.values())
    cells = [[name, *(score_text(scores[column]) for column in columns)] for name, scores in rows.items()]
    print("\n".join(table_lines([title, *columns], cells, numbers=columns)))


def main() -> NoReturn:
    """Read the command line, do the step, and exit; two files need no config."""
    options = parse_arguments(str(__doc__), add_arguments)
    if options.prediction is None and options.labels is None:
        run_script(str(__doc__), score_run, add_arguments=add_arguments)
    exit_after(lambda: score_files(options), options.debug)
