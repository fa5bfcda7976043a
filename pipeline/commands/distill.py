"""Train the student, distilled from the teacher, which is trained first if it is missing. Run again to continue."""

from __future__ import annotations

import argparse
import logging
from typing import NoReturn

from ..api import distill
from ..cli import run_script
from ..run import Run
from ..training import describe_distillation


def work(run: Run, options: argparse.Namespace) -> None:
    """Train, or say what training would do."""
    if options.dry_run:
        for line in describe_distillation(run):
            logging.getLogger("emdistill").info(line)
        return
    distill(run)


def main() -> NoReturn:
    """Read the command line, do the step, and exit."""
    run_script(str(__doc__), work)
