"""Write segmentations at the chosen thresholds."""

from __future__ import annotations

from pipeline.blockwise import blockwise_script, segmentation_stages

if __name__ == "__main__":
    blockwise_script(str(__doc__), segmentation_stages)
