"""Train the paraphraser that graph flow needs; the teacher is trained first if it is missing. Run again to continue."""

from __future__ import annotations

import argparse
import logging
from typing import NoReturn

from ..api import train_paraphraser
from ..cli import run_script
from ..run import Run
from ..training import describe_paraphraser


def work(run: Run, options: argparse.Namespace) -> None:
    """Train, or say what training would do."""
    if options.dry_run:
        logging.getLogger("emdistill").info(describe_paraphraser(run))
        return
    train_paraphraser(run)


def main() -> NoReturn:
    """Read the command line, do the step, and exit."""
    run_script(str(__doc__), work)
