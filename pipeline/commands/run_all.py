"""Everything: import, train the teacher, distil the student, predict, segment, score, report. Run again to continue."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..api import evaluate, write_report
from ..checkpoints import checkpoints
from ..cli import run_script
from ..command_names import command_line, goes_on_by_itself
from ..datasets import describe_import, is_ready
from ..engine.plan import log_plan
from ..engine.tracking.driver_lock import only_driver
from ..run import Run
from ..stages.by_script import known_blockwise_stages
from ..stages.importing import plan_conversions, require_foreseen_regions
from ..stages.quantise import sources_to_predict
from ..stages.run_before_import import foreseen_run
from ..stages.segment import SegmentTask
from ..training import describe_training
from ..units import threshold_name
from ..whole_run import require_before_import, run_to_segmentation
from .blockwise import what_to_plan_after
from .evaluate import tell_unwritten

logger = logging.getLogger("emdistill")

TRAIN_SHARE, VALIDATE_SHARE = [0.0, 0.65], [0.7, 1.0]
REGION_NAMES = {
    "volumes.validate": "validation region",
    "volumes.test": "test region",
    "volumes.segment": "segmented region",
}


def _place(text: str) -> str:
    """A URL as it is, a path as an absolute one."""
    return text if "://" in text else str(Path(text).expanduser().resolve())


class UseData(argparse.Action):
    """`--data PLACE` as overrides: train on the first sections of a labelled volume, validate on the last, segment
    all.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Add the overrides to those of `--set`."""
        volumes = {
            "sources": {"data": {"kind": "file", "path": _place(str(values))}},
            "train": [{"source": "data", "z_share": TRAIN_SHARE}],
            "validate": {"source": "data", "z_share": VALIDATE_SHARE},
            "segment": {"source": "data"},
        }
        namespace.set = [*namespace.set, f"volumes={json.dumps(volumes)}"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this step."""
    parser.add_argument("--overwrite", action="store_true", help="redo blocks made with other settings or inputs")
    parser.add_argument(
        "--data",
        action=UseData,
        metavar="PLACE",
        help="use this labelled volume, a path or URL, instead of the config's",
    )


def plan(run: Run, options: argparse.Namespace) -> None:
    """Say what would be done, as far as it can be known now.

    Raises:
        UserError: as doing it would.
    """
    for line in describe_import(run):
        logger.info(line)
    for role in run.config.networks_to_train:
        logger.info(describe_training(run, role))
    require_foreseen_regions(run)
    require_before_import(run)
    role = run.config.predict.network
    is_untrained = bool(run.config.networks_to_train) and not checkpoints(run.network_directory(role))
    with foreseen_run(run, sources_to_predict(run)) as planned:
        if planned is None:
            logger.info(what_to_plan_after(options, role if is_untrained else None))
        elif is_untrained:
            logger.info("the blocks can be planned once the %s is trained", role)
        else:
            stages = known_blockwise_stages(planned)
            waiting = [name for name in run.config.volumes.sources if not is_ready(run, name)]
            log_plan(planned, stages, before=plan_conversions(run, waiting))
            if not any(isinstance(stage, SegmentTask) for stage in stages):
                logger.info("the segmentation comes on top: its threshold is chosen once the blocks are agglomerated")


def score(run: Run) -> None:
    """Score the segmentation if the volume is labelled."""
    if not run.has_labels(run.config.volumes.segment.source):
        print("the volume has no labels: no scores")
        return
    results = evaluate(run)
    best, regions = results["best"], results["regions"]
    tested = ", chosen on the validation region" if regions["reported_on"] != regions["chosen_on"] else ""
    objects = (
        f"panoptic quality {best['panoptic_quality']:.3f}, F1 {best['f1']:.3f}, "
        f"aggregated Jaccard {best['aggregated_jaccard']:.3f}, Dice {best['dice']:.3f}, "
        if run.config.volumes.images
        else ""
    )
    print(
        f"scores on the {REGION_NAMES[regions['reported_on']]} at threshold"
        f" {threshold_name(best['threshold'])}{tested}: "
        f"{objects}VOI {best['voi_sum']:.3f} "
        f"(split {best['voi_split']:.3f}, merge {best['voi_merge']:.3f}), "
        f"adapted Rand error {best['adapted_rand_error']:.3f}; {best['scored']:,} voxels were scored"
    )
    tell_unwritten(run, best["threshold"])


def work(run: Run, options: argparse.Namespace) -> int:
    """Exit status 1 if some blocks failed."""
    if options.dry_run:
        plan(run, options)
        return 0
    with goes_on_by_itself(), only_driver(run):  # in this order: the lock says what it is for
        if not run_to_segmentation(run, options.overwrite):
            return 1
        score(run)
        print(f"report: {write_report(run)}")
    config = run.directory / "config.json"
    export = command_line("08_export.py", config, "--target", "precomputed", "--to", run.directory / "export")
    print(f"export it, with meshes: {export} --meshes")
    print(f"next: {command_line('07_view.py', config)}")
    return 0


def main() -> NoReturn:
    """Read the command line, do the step, and exit."""
    run_script(str(__doc__), work, add_arguments=add_arguments)
