"""Write segmentations at the chosen thresholds."""

from __future__ import annotations

from pipeline.engine.script import blockwise_script
from pipeline.stages.by_script import segmentation_stages

if __name__ == "__main__":
    blockwise_script(str(__doc__), segmentation_stages)
