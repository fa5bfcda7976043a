"""Predict affinities block by block with the student (or teacher); imports the volume first if it is not imported."""

from __future__ import annotations

from typing import NoReturn

from ..stages.by_script import STAGES_OF
from ..stages.importing import ensure_imported
from ..stages.quantise import sources_to_predict
from .blockwise import run_blockwise


def main() -> NoReturn:
    """Read the command line, do the step, and exit."""
    run_blockwise(
        str(__doc__),
        STAGES_OF["predict"],
        prepare=lambda run: ensure_imported(run, sources_to_predict(run)),
    )
