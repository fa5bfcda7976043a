"""Train the paraphraser that graph flow needs; the teacher is trained first if it is missing. Run again to continue."""

from __future__ import annotations

import argparse
import logging
from typing import NoReturn

from ..cli import run_script
from ..datasets import ensure_imported
from ..run import Run
from ..training import describe_paraphraser, train_paraphraser


def work(run: Run, options: argparse.Namespace) -> None:
    if options.dry_run:
        logging.getLogger("emdistill").info(describe_paraphraser(run))
        return
    ensure_imported(run)
    train_paraphraser(run)


def main() -> NoReturn:
    """Read the command line, do the step, and exit."""
    run_script(str(__doc__), work)
