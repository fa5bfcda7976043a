"""Scores of any two label volumes, of whatever format and wherever they are."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..label_ids import HIGHEST, has_id
from ..volumes import Box
from .contingency import NegativeIdError
from .errors import rank_errors, write_errors
from .label_files import LabelFile, open_labels, require_ignored_fit, require_one_place
from .overlaps import LabelRules, count_overlaps
from .seams import find_seams
from .sweep import scores_of_table, with_share

logger = logging.getLogger(__name__)


def score_volumes(
    prediction: str | Path,
    labels: str | Path,
    rules: LabelRules | None = None,
    ignore: Iterable[int] = (),
    errors: Path | None = None,
) -> dict[str, Any]:
    """Score a segmentation against labels.

    Args:
        prediction, labels: `file.h5/dataset`, `store.zarr/dataset`, OME-NGFF, N5, neuroglancer precomputed, a TIFF file
            or folder, an npy file, or a URL (http, s3, gs); integer ids in two or three dimensions, of one shape. Label
            0 does not count; id 0 of the prediction is a segment like any other.
        rules: which labels count as objects. Default: all but 0, as they are.
        ignore: further labels whose voxels do not count, -1 for example.
        errors: CSV file in which the errors are listed, see `errors`; None for none.

    Returns:
        `voi_split`, `voi_merge`, `voi_sum`, `adapted_rand_error`, `cremi_score`, the number of voxels that were
        `scored` (also called `voxels`) and their `scored_share`, and the number of `segments` and of labelled `objects`
        that were compared.

    Raises:
        StorageUnavailable: a server does not answer.
        UserError: a file or dataset is missing or unreadable, is no array of ids, has negative ids that are not
            ignored, no label counts, or the volumes differ in shape or place.
    """
    with ExitStack() as stack:
        segmentation, truth = open_pair(prediction, labels, stack, ignore)
        try:
            table = count_overlaps(segmentation, truth, Box.of_shape(truth.shape), rules=rules)
            if errors is not None and table.total:
                spacing = truth.voxel_size or segmentation.voxel_size
                seams = find_seams(
                    segmentation, truth, Box.of_shape(truth.shape), rules=rules, spacing=spacing or (1.0, 1.0, 1.0)
                )
                write_errors(errors, rank_errors(seams), spacing, truth.offset or segmentation.offset or (0, 0, 0))
        except NegativeIdError as error:
            raise _explained(error, segmentation, truth) from error
    if has_id(table.label, HIGHEST).any():
        logger.warning(
            "%s holds the id %d, which often marks voxels without a label; --ignore %d leaves them out",
            truth.name,
            HIGHEST,
            HIGHEST,
        )
    if table.total == 0:
        why = "every voxel is 0, is ignored, or belongs to a label that is too small"
        raise UserError(f"nothing is labelled, so there is nothing to score on: {why}", truth.name)
    return {
        **with_share(scores_of_table(table), Box.of_shape(truth.shape).size),
        "voxels": table.total,
        "segments": len(table.segment_sizes()),
        "objects": len(table.label_sizes()),
    }


def open_pair(
    prediction: str | Path, labels: str | Path, stack: ExitStack, ignore: Iterable[int] = ()
) -> tuple[LabelFile, LabelFile]:
    """Open a segmentation and the labels to score it against until `stack` closes.

    Raises:
        StorageUnavailable: a server does not answer.
        UserError: as for `score_volumes`.
    """
    segmentation, truth = open_labels(prediction, stack), open_labels(labels, stack)
    truth = replace(truth, ignored=tuple(ignore))
    require_ignored_fit(truth)
    require_one_place(segmentation, truth)
    return segmentation, truth


def _explained(error: NegativeIdError, segmentation: LabelFile, labels: LabelFile) -> UserError:
    if error.of_labels:
        return UserError(
            f"holds the negative id {error.id}; add --ignore {error.id} if it marks voxels without a label",
            labels.name,
        )
    return UserError(
        f"holds the negative id {error.id} where there are labels; ids of segments are 0 or more", segmentation.name
    )
