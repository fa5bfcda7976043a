"""Over-segment the affinities block by block into fragments."""

from __future__ import annotations

from typing import NoReturn

from ..stages.by_script import fragment_stages
from .blockwise import run_blockwise


def main() -> NoReturn:
    """Read the command line, do the step, and exit."""
    run_blockwise(str(__doc__), fragment_stages)
