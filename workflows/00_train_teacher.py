"""Train the teacher. Run again to continue after an interruption."""

from __future__ import annotations

import argparse
import logging

from pipeline.cli import run_script
from pipeline.datasets import ensure_imported
from pipeline.run import Run
from pipeline.training import describe_training, train_teacher


def main(run: Run, options: argparse.Namespace) -> None:
    if options.dry_run:
        logging.getLogger("emdistill").info(describe_training(run, "teacher"))
        return
    ensure_imported(run)
    train_teacher(run)


if __name__ == "__main__":
    run_script(str(__doc__), main)
