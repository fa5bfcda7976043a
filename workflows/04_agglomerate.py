"""Build the region adjacency graph of the fragments and score its edges."""

from __future__ import annotations

from pipeline.blockwise import agglomeration_stages, blockwise_script

if __name__ == "__main__":
    blockwise_script(str(__doc__), agglomeration_stages)
