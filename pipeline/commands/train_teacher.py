"""Train the teacher. Run again to continue after an interruption."""

from __future__ import annotations

import argparse
import logging
from typing import NoReturn

from ..api import train_teacher
from ..cli import run_script
from ..run import Run
from ..training import describe


def work(run: Run, options: argparse.Namespace) -> None:
    """Train, or say what training would do."""
    if options.dry_run:
        logging.getLogger("emdistill").info(describe(run, "teacher"))
        return
    train_teacher(run)


def main() -> NoReturn:
    """Read the command line, do the step, and exit."""
    run_script(str(__doc__), work)
