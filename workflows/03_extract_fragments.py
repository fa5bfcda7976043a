"""Over-segment the affinities block by block into fragments."""

from __future__ import annotations

import argparse

from pipeline.blockwise import extract_fragments, fragment_stages, log_plan
from pipeline.cli import run_script
from pipeline.run import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this script."""
    parser.add_argument("--overwrite", action="store_true", help="redo what was made with other settings or inputs")


def work(run: Run, options: argparse.Namespace) -> int:
    """Exit status 1 if some blocks failed."""
    if options.dry_run:
        log_plan(run, fragment_stages(run))
        return 0
    return 0 if extract_fragments(run, options.overwrite) else 1


if __name__ == "__main__":
    run_script(str(__doc__), work, add_arguments=add_arguments)
