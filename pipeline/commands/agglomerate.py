"""Build the region adjacency graph of the fragments and score its edges."""

from __future__ import annotations

from functools import partial
from typing import NoReturn

from ..stages.by_script import stages_to_run
from .blockwise import run_blockwise


def main() -> NoReturn:
    """Read the command line, do the step, and exit."""
    run_blockwise(str(__doc__), partial(stages_to_run, step="agglomerate"), "agglomerate")
