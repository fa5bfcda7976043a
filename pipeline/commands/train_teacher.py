"""Train the teacher. Run again to continue after an interruption."""

from __future__ import annotations

import argparse
import logging
from typing import NoReturn

from ..cli import run_script
from ..datasets import ensure_imported
from ..run import Run
from ..training import describe, train_teacher


def work(run: Run, options: argparse.Namespace) -> None:
    if options.dry_run:
        logging.getLogger("emdistill").info(describe(run, "teacher"))
        return
    ensure_imported(run)
    train_teacher(run)


def main() -> NoReturn:
    """Read the command line, do the step, and exit."""
    run_script(str(__doc__), work)
