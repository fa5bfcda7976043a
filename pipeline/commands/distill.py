"""Train the student, distilled from the teacher, which is trained first if it is missing. Run again to continue."""

from __future__ import annotations

import argparse
import logging
from typing import NoReturn

from ..cli import run_script
from ..datasets import ensure_imported
from ..run import Run
from ..training import describe, train_student


def work(run: Run, options: argparse.Namespace) -> None:
    if options.dry_run:
        logging.getLogger("emdistill").info(describe(run, "student"))
        return
    ensure_imported(run)
    train_student(run)


def main() -> NoReturn:
    """Read the command line, do the step, and exit."""
    run_script(str(__doc__), work)
