"""What the commands of the block-wise stages share: their options, and what these do."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import NoReturn

from ..cli import run_script
from ..engine.blocks.stage import Stage
from ..engine.chain import run_stages
from ..engine.pilot import log_pilots
from ..engine.plan import log_plan
from ..engine.tracking.driver_lock import only_driver
from ..run import Run


def run_blockwise(
    description: str,
    stages_of: Callable[[Run], Sequence[Stage]],
    prepare: Callable[[Run], object] = lambda run: None,
) -> NoReturn:
    """Run stages, or with `--dry-run` and `--pilot` say what that would take; and exit.

    Args:
        description: for `--help`.
        stages_of: the stages of a run, upstream first.
        prepare: called before they run, but not for a plan.
    """

    def work(run: Run, options: argparse.Namespace) -> int:
        if options.dry_run:
            log_plan(run, stages_of(run))
            return 0
        with only_driver(run):
            prepare(run)
            if options.pilot:
                log_pilots(run, stages_of(run), options.pilot, options.overwrite)
                return 0
            return 0 if run_stages(run, stages_of(run), options.overwrite) else 1

    run_script(description, work, add_arguments=_add_arguments)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="redo what was made with other settings or inputs")
    add_pilot(parser)


def add_pilot(parser: argparse.ArgumentParser) -> None:
    """The option that asks for a pilot."""
    parser.add_argument(
        "--pilot",
        type=_positive,
        default=0,
        metavar="BLOCKS",
        help="let every worker compute so many blocks, and predict time and memory of all",
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of blocks above 0")
    return value
