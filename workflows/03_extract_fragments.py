"""Over-segment the affinities block by block into fragments."""

from __future__ import annotations

from pipeline.engine.script import blockwise_script
from pipeline.stages.by_script import fragment_stages

if __name__ == "__main__":
    blockwise_script(str(__doc__), fragment_stages)
