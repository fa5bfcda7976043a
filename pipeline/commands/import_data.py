"""Look at the sources of a run, and convert those into it that cannot be read where they are."""

from __future__ import annotations

import argparse
import logging
from typing import NoReturn

from ..cli import run_script
from ..datasets import describe_import
from ..engine.plan import log_plan
from ..engine.tracking.driver_lock import only_driver
from ..run import Run
from ..stages.importing import ensure_imported, executor_for, plan_conversions, require_foreseen_regions

logger = logging.getLogger("emdistill")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this step."""
    parser.add_argument("--source", action="append", metavar="NAME", help="import only this source; repeatable")


def work(run: Run, options: argparse.Namespace) -> int:
    """Import what is missing, or say what would be imported."""
    if options.dry_run:
        for line in describe_import(run, options.source):
            logger.info(line)
        require_foreseen_regions(run, options.source)
        tasks = plan_conversions(run, options.source)
        if tasks:
            log_plan(run, tasks, executor_for(run, tasks))
        return 0
    with only_driver(run):
        ensure_imported(run, options.source, tell=True)
    return 0


def main() -> NoReturn:
    """Read the command line, do the step, and exit."""
    run_script(str(__doc__), work, add_arguments=add_arguments)
