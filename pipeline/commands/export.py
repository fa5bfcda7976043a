"""Export volumes, meshes, skeletons and the graph in the formats of other programs."""

from __future__ import annotations

import argparse
import logging
from typing import NoReturn

from ..cli import run_script
from ..command_names import SCRIPTS, command_line
from ..datasets import require_same_section
from ..engine.chain import run_stages
from ..engine.pilot import log_pilots
from ..engine.plan import log_plan
from ..engine.tracking.driver_lock import only_driver
from ..run import Run
from ..stages.export.place import place_of_export
from ..stages.export.segments import SegmentsStep
from ..stages.export.targets import TARGETS, ExportOptions, export_run, export_stages, tell_displacement
from ..stages.export.volume import CONTENTS
from ..volumes.locations import Location
from .blockwise import add_pilot


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this step."""
    parser.add_argument("--target", choices=TARGETS, required=True, help="the program that is to read it")
    parser.add_argument("--to", required=True, metavar="PLACE", help="path or URL (s3://bucket/path, gs://bucket/path)")
    parser.add_argument("--threshold", type=float, help="merge threshold (default: as segment.thresholds)")
    parser.add_argument(
        "--arrays",
        nargs="+",
        choices=CONTENTS,
        help="volumes to export (default: what there is of raw, segmentation and labels; for ngff affinities, too)",
    )
    parser.add_argument("--ngff", choices=["0.5", "0.4"], default="0.5", help="version of OME-NGFF (default: 0.5)")
    parser.add_argument("--meshes", action="store_true", help="surfaces of the segments (precomputed)")
    parser.add_argument("--skeletons", action="store_true", help="skeletons of the segments (precomputed, SWC)")
    parser.add_argument(
        "--minimum-size",
        type=int,
        default=1000,
        metavar="VOXELS",
        help="smaller segments get no mesh and no skeleton (default: 1000)",
    )
    parser.add_argument("--overwrite", action="store_true", help="redo what was made with other settings or inputs")
    add_pilot(parser)


def work(run: Run, options: argparse.Namespace) -> int:
    """Exit status 1 if some blocks failed."""
    chosen = ExportOptions(
        target=options.target,
        to=place_of_export(options.to),
        threshold=options.threshold,
        arrays=tuple(options.arrays) if options.arrays else None,
        ngff=options.ngff,
        meshes=options.meshes,
        skeletons=options.skeletons,
        minimum_size=options.minimum_size,
    )
    require_same_section(run, run.config.volumes.segment.source)
    if options.dry_run:
        log_plan(run, export_stages(run, chosen))
        tell_displacement(run, chosen)
        return 0
    if options.pilot:
        stages = export_stages(run, chosen)
        with only_driver(run):
            run_stages(run, [stage for stage in stages if isinstance(stage, SegmentsStep)], options.overwrite)
            log_pilots(run, stages, options.pilot, options.overwrite)
        return 0
    if not export_run(run, chosen, options.overwrite):
        return 1
    following = what_follows(run, chosen)
    if following:
        logging.getLogger("emdistill").info("next: %s", following)
    return 0


def what_follows(run: Run, exported: ExportOptions) -> str:
    """What a user does with an export; empty if that is the business of the program that it is for."""
    if exported.target == "precomputed":
        return command_line(SCRIPTS["view"], run.directory / "config.json", "--export", exported.to)
    if exported.target != "webknossos":
        return ""
    place = Location.of(exported.to)
    how = "copy or link" if place.is_local else "copy"
    begin = f"{how} {place} to binaryData/ORGANIZATION/NAME of WEBKNOSSOS and scan its disk"
    return f"{begin}; docs/RESULTS.md, WEBKNOSSOS, has all steps"


def main() -> NoReturn:
    """Read the command line, do the step, and exit."""
    run_script(str(__doc__), work, add_arguments=add_arguments)
