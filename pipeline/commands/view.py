"""Look at the run in neuroglancer, or write its report anew (--report)."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import NoReturn

from ..cli import run_script
from ..run import Run
from ..viewer import (
    STEP,
    existing_layers,
    open_viewer,
    overview_picture,
    serving_until_interrupted,
    tunnel_command,
    write_report,
    write_report_to,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this step; address and port are view.host and view.port of the config."""
    parser.add_argument("--report", action="store_true", help="write report.html anew and stop")
    parser.add_argument(
        "--report-to", type=Path, metavar="HTML", help="write the report there and stop; the run directory is only read"
    )
    parser.add_argument(
        "--position",
        type=position,
        metavar="Z,Y,X",
        help="look here first (nanometres, as errors.csv and error messages give it)",
    )
    parser.add_argument("--link", action="store_true", help="print the link alone, and how to open it from elsewhere")
    parser.add_argument(
        "--export",
        action="append",
        default=[],
        metavar="PLACE",
        help="show this precomputed export, too (path or URL; repeatable); those in the run directory are shown anyway",
    )
    parser.add_argument(
        "--step", type=step, default=STEP, help="by which the keys d and u change the threshold (default: %(default)s)"
    )
    parser.add_argument("--picture", type=Path, metavar="PNG", help="write raw | affinities | segmentation and stop")


def position(text: str) -> list[float]:
    """Three numbers with commas between them."""
    values = [float(part) for part in text.split(",")]
    if len(values) != 3 or not all(map(math.isfinite, values)):
        raise argparse.ArgumentTypeError("expected three numbers: z,y,x")
    return values


def step(text: str) -> float:
    """A number above 0, up to 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError("expected a number above 0, up to 1")
    return value


def work(run: Run, options: argparse.Namespace) -> int:
    """Serve until Ctrl-C, unless only a file is wanted."""
    layers = [layer.name for layer in existing_layers(run)]
    if options.dry_run:
        print(f"would show {', '.join(layers)} of {run.volume}")
    elif options.report or options.report_to or options.picture:
        if options.report:
            print(write_report(run))
        if options.report_to:
            print(write_report_to(run, options.report_to))
        if options.picture:
            print(overview_picture(run, options.picture))
    else:
        viewer = open_viewer(run, options.position, options.export, options.step)
        with serving_until_interrupted():
            if options.link:
                print(f"{viewer}\non another machine, first: {tunnel_command()}", flush=True)
            else:
                print(f"{', '.join(layers)}: open {viewer} in a browser; Ctrl-C ends", flush=True)
    return 0


def main() -> NoReturn:
    """Read the command line, do the step, and exit."""
    run_script(str(__doc__), work, add_arguments=add_arguments)
