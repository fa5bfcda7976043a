"""Write segmentations at the chosen thresholds."""

from __future__ import annotations

from typing import NoReturn

from ..stages.by_script import STAGES_OF
from .blockwise import run_blockwise


def main() -> NoReturn:
    """Read the command line, do the step, and exit."""
    run_blockwise(str(__doc__), STAGES_OF["segment"], "segment")
