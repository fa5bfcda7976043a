"""Train the student, distilled from the teacher, which is trained first if it is missing. Run again to continue."""

from __future__ import annotations

import argparse
import logging

from pipeline.cli import run_script
from pipeline.datasets import ensure_imported
from pipeline.run import Run
from pipeline.training import describe_training, train_student


def main(run: Run, options: argparse.Namespace) -> None:
    if options.dry_run:
        logging.getLogger("emdistill").info(describe_training(run, "student"))
        return
    ensure_imported(run)
    train_student(run)


if __name__ == "__main__":
    run_script(str(__doc__), main)
