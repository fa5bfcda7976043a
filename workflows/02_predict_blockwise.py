"""Predict affinities block by block with the student (or teacher); imports the volume first if it is not imported."""

from __future__ import annotations

from pipeline.datasets import ensure_imported
from pipeline.engine.script import blockwise_script
from pipeline.stages.by_script import prediction_stages

if __name__ == "__main__":
    blockwise_script(
        str(__doc__),
        prediction_stages,
        prepare=lambda run: ensure_imported(run, [run.config.volumes.segment.source]),
    )
