"""The options of every benchmark that is a table of cells."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path


def cells_parser(description: str, datasets: Iterable[str], variants: Iterable[str]) -> argparse.ArgumentParser:
    """Which cells, where, and how many at a time.

    Args:
        description: for `--help`.
        datasets, variants: to choose from.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gain"))
    parser.add_argument("--dataset", action="append", choices=list(datasets), help="repeatable; default: all real ones")
    parser.add_argument("--variant", action="append", choices=list(variants), help="repeatable; default: a whole table")
    parser.add_argument("--seeds", type=int, default=1, help="students per variant")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of these seeds")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each cell")
    parser.add_argument("--table", action="store_true", help="only print the table of the finished cells")
    parser.add_argument("--quick", action="store_true", help="a few iterations on a phantom: checks the harness only")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="config override for all cells")
    return parser
