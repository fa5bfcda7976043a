"""Predict affinities block by block with the student (or teacher); imports the volume first if it is not imported."""

from __future__ import annotations

from functools import partial
from typing import NoReturn

from ..stages.by_script import stages_to_run
from .blockwise import run_blockwise


def main() -> NoReturn:
    """Read the command line, do the step, and exit."""
    run_blockwise(str(__doc__), partial(stages_to_run, step="predict"), "predict")
