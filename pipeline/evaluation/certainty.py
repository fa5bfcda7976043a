"""How well `certainty`, which knows no labels, tells good blocks from bad ones: its rank correlation with their VOI."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..engine.blocks.grid import BlockGrid
from ..engine.tracking.lineage import replaced_input
from ..run import CERTAINTY, RankedBlocks, Run
from ..volumes import Box, volume_exists
from .metrics import voi_of_table
from .overlaps import BoxReader, LabelRules, count_block_overlaps

LEAST_SHARE = 0.25
"""Of a block's voxels that count in its region, for its VOI to say something about the block."""
FEWEST_BLOCKS = 5
"""That have a rank correlation: that of two is 1 or -1, whatever they are."""


@dataclass(frozen=True)
class StoredCertainty:
    """The array `certainty` of a run.

    Attributes:
        threshold: of the segmentation that it is about.
        values: (z, y, x) float32, one per block; 0 where there are no fragments.
    """

    threshold: float
    values: np.ndarray


def stored_certainty(run: Run) -> StoredCertainty | None:
    """The array as a whole, which is a millionth of the volume or less; None if there is none, or only one of a
    former graph.

    Raises:
        UserError: a shard is damaged.
    """
    if not volume_exists(run.volume, CERTAINTY) or replaced_input(run, CERTAINTY) is not None:
        return None
    volume = run.open_computed(CERTAINTY)
    threshold = volume.array.attrs.get("threshold")
    if not isinstance(threshold, int | float) or volume.array.ndim != 3:
        return None
    return StoredCertainty(float(threshold), volume.read(volume.box))


def rank_blocks(
    run: Run, certainty: StoredCertainty, segmentation: BoxReader, labels: BoxReader, region: Box, rules: LabelRules
) -> RankedBlocks | None:
    """Compare the certainty of blocks with their VOI; None if it is of other blocks than the run has now.

    Args:
        run: whose blocks.
        certainty: one number per block.
        segmentation: at the same threshold; counts voxels of the segmented region.
        labels: counts voxels of raw.
        region: what is scored, in voxels of raw, inside the segmented region.
        rules: which labels count.
    """
    grid = BlockGrid.of_run(run)
    if certainty.values.shape != tuple(grid.shape):
        return None
    begin = grid.region.begin
    inside = region.relative_to(grid.region)
    blocks = list(grid.blocks_in(inside))
    boxes = [grid.to_source(block.box.intersect(inside)) for block in blocks]
    tables = count_block_overlaps(segmentation, labels, region, boxes, shift=begin, rules=rules)
    compared = [
        (certainty.values[np.unravel_index(block.index, tuple(grid.shape))], sum(voi_of_table(table)))
        for block, table in zip(blocks, tables, strict=True)
        if table.total >= LEAST_SHARE * block.box.size
    ]
    pairs = np.array(compared, dtype=np.float64).reshape(-1, 2)
    pairs = pairs[pairs[:, 0] > 0]
    ranked = spearman(pairs[:, 0], pairs[:, 1]) if len(pairs) >= FEWEST_BLOCKS else None
    return {"threshold": certainty.threshold, "blocks": len(pairs), "spearman": ranked}


def spearman(one: np.ndarray, other: np.ndarray) -> float | None:
    """Rank correlation (Spearman, Am. J. Psychol. 1904) of (N,) numbers; None where one side is all alike."""
    from scipy.stats import rankdata  # slow to import

    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return round(float(np.corrcoef(rankdata(one), rankdata(other))[0, 1]), 4)
