"""Predict affinities block by block with the student (or teacher); imports the volume first if it is not imported."""

from __future__ import annotations

from pipeline.blockwise import blockwise_script, prediction_stages
from pipeline.datasets import ensure_imported

if __name__ == "__main__":
    blockwise_script(
        str(__doc__),
        prediction_stages,
        prepare=lambda run: ensure_imported(run, [run.config.volumes.segment.source]),
    )
