"""Build the region adjacency graph of the fragments and score its edges."""

from __future__ import annotations

from pipeline.engine.script import blockwise_script
from pipeline.stages.by_script import agglomeration_stages

if __name__ == "__main__":
    blockwise_script(str(__doc__), agglomeration_stages)
