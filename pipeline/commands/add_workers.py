"""Add workers to a run that is under way: SLURM jobs, or processes of this machine, as `cluster.executor` says.

Ctrl-C ends the processes again, and jobs are ended by scancel: the run goes on with its other workers.
"""

from __future__ import annotations

import argparse
from typing import NoReturn

from ..cli import run_script
from ..engine.executors.add_workers import add_workers
from ..run import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this step."""
    parser.add_argument("--workers", type=int, default=1, help="how many (default: 1)")
    parser.add_argument("--stage", help="which stage they help with (default: the first one that is not finished)")


def work(run: Run, options: argparse.Namespace) -> int:
    """Exit status 1 if one of the workers died."""
    return 0 if add_workers(run, options.workers, options.stage, options.dry_run) else 1


def main() -> NoReturn:
    """Read the command line, do the step, and exit."""
    run_script(str(__doc__), work, add_arguments=add_arguments)
