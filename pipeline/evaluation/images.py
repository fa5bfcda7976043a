"""Scores of stacks of separate images: each image is scored by itself, and every score is the mean over the images.

One image at a time is read and counted, so memory depends on an image and on the graph, never on their number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from funlib.geometry import Coordinate

from ..rag import EdgeTable
from ..segmentation import SmallSegments
from ..volumes import Box
from .contingency import Contingency
from .instances import instance_scores
from .sweep import Scores, scores_of_table, sweep_thresholds


def image_scores(table: Contingency) -> Scores:
    """Scores of one image: VOI and adapted Rand error of its labelled voxels, and those of objects on a background.

    An image without labelled voxels has no VOI and no adapted Rand error, rather than perfect ones.

    Args:
        table: of segments and labels, the background (id 0) of both included.
    """
    labelled = table.without_labels((0,))
    of_labelled = scores_of_table(labelled) if labelled.total else {}
    return {**of_labelled, **instance_scores(table), "scored": table.total}


def sections_of(box: Box) -> Iterator[Box]:
    """The sections of a box, one by one."""
    for z in range(box.begin[0], box.end[0]):
        yield Box(Coordinate(z, *box.begin[1:]), Coordinate(z + 1, *box.end[1:]))


def sweep_images(
    tables: Iterable[Contingency],
    edges: EdgeTable,
    thresholds: Iterable[float],
    maximum_score: float = 1.0,
    small: SmallSegments | None = None,
) -> dict[float, Scores]:
    """Mean scores over images at each threshold.

    Args:
        tables: for each image its fragments against its labels, background included.
        edges: the whole graph with merge scores, sorted by u; no edge joins two images.
        thresholds: merge scores up to which fragments are merged.
        maximum_score: edges above this are never merged.
        small: what more joins small segments.
    """
    thresholds = list(thresholds)
    means = {threshold: MeanScores() for threshold in thresholds}
    for table in tables:
        rows = _edges_from(edges.u, np.unique(table.segment))
        own, own_small = edges.select(rows), None if small is None else small.select(rows)
        scored = sweep_thresholds(table, own.pairs, own.score, thresholds, maximum_score, image_scores, own_small)
        for threshold, scores in scored.items():
            means[threshold].add(scores)
    return {threshold: mean.scores() for threshold, mean in means.items()}


def mean_image_scores(tables: Iterable[Contingency]) -> Scores:
    """Mean scores over images.

    Args:
        tables: for each image its segments against its labels, background included.
    """
    mean = MeanScores()
    for table in tables:
        mean.add(image_scores(table))
    return mean.scores()


class MeanScores:
    """The mean of scores that come one after the other, and the sum of the voxels that were scored.

    A score that an image does not have does not count for that image.
    """

    def __init__(self) -> None:
        self._sums: Scores = {}
        self._counts: Counter[str] = Counter()

    def add(self, scores: Scores) -> None:
        """Add the scores of one more image."""
        for name, value in scores.items():
            self._sums[name] = self._sums.get(name, 0) + value
            self._counts[name] += 1

    def scores(self) -> Scores:
        """The mean of each score; of `scored` the sum."""
        return {
            name: total if name == "scored" else round(total / self._counts[name], 6)
            for name, total in self._sums.items()
        }


def _edges_from(sorted_u: np.ndarray, fragments: np.ndarray) -> np.ndarray:
    """Rows of the edges whose smaller fragment is one of `fragments`; `sorted_u` ascends."""
    begin, end = (np.searchsorted(sorted_u, fragments, side) for side in ("left", "right"))
    lengths = end - begin
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    result: np.ndarray = np.repeat(begin, lengths) + within
    return result
