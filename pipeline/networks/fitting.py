"""Whether a network fits a volume: what it sees around a voxel is there, and a ready-made student knows its tissue at
one size of voxels.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from funlib.geometry import Coordinate

from ..config.pretrained import pretrained_name, read_card
from ..errors import UserError
from ..run import Run
from ..units import by
from ..volumes.run_sources import RunSource
from ..volumes.sources import SourceFiles
from .base import EmbeddingNetwork

logger = logging.getLogger(__name__)

FARTHEST = 1.2
"""Voxels that are longer or shorter by more than this factor along an axis are others than a student knows."""


def check_context(run: Run, network: EmbeddingNetwork, shape: Coordinate | None = None) -> None:
    """Make sure that the raw volume is larger than what the network needs to see for one voxel.

    Args:
        run: the run.
        network: that predicts.
        shape: extent of raw in voxels, where that is not imported yet.

    Raises:
        UserError: it is not.
    """
    source = run.config.volumes.segment.source
    shape = run.open_raw(source).shape if shape is None else shape
    context = network.context if network.dimensions == 3 else (0, *network.context)
    if any(extent <= needed for extent, needed in zip(shape, context, strict=True)):
        raise UserError(
            f"the volume has {tuple(shape)} voxels, but the network needs more than {tuple(context)} "
            "on each side of a single one; take a larger volume or a network with less context",
            f"volumes.sources.{source}",
        )


def tell_other_nanometres(checkpoint: str, source: RunSource, voxel_size: Sequence[float] | None = None) -> None:
    """Warn if a checkpoint is a ready-made student that was trained on other voxels than a source has.

    Args:
        checkpoint: `predict.checkpoint`.
        source: that it is to segment.
        voxel_size: of its raw in nanometres, where that is not imported yet.
    """
    name = pretrained_name(checkpoint)
    warning = None if name is None else other_nanometres(name, source, voxel_size)
    if warning is not None:
        logger.warning(warning)


def other_nanometres(name: str, source: RunSource, voxel_size: Sequence[float] | None = None) -> str | None:
    """One line if a source has other voxels than a student was trained on, with the level of its pyramid that fits
    better; None if they are alike, or if the images that it was trained on do not say their size.

    Args:
        name: of the ready-made student.
        source: that it is to segment.
        voxel_size: of its raw in nanometres, where that is not imported yet.

    Raises:
        UserError: the source cannot be read, or there is no such student.
    """
    trained, found = read_card(name).nanometres, voxel_size or source.open_raw().voxel_size
    if trained is None or _apart(found, trained) <= FARTHEST:
        return None
    text = (
        f"{source.name} has voxels of {by(found)} nm, but pretrained:{name} was trained on {by(trained)} nm,"
        " more than a fifth apart: expect a poor segmentation"
    )
    sizes = _levels(source)
    best = min(sizes, key=lambda level: _apart(sizes[level], trained), default=None)
    if best is None or _apart(sizes[best], trained) >= _apart(found, trained):
        return f"{text}; no level of a pyramid fits better: resample the volume, or train a student on it"
    return f"{text}; level {best} of its pyramid, {by(sizes[best])} nm, fits better: set {source.where}.level to it"


def _levels(source: RunSource) -> dict[int, Sequence[float]]:
    """Voxel sizes of the levels of a source that is read where it is, by their numbers."""
    files, sizes = source.files(), dict[int, Sequence[float]]()
    if files is None or not files.is_in_place("raw"):
        return sizes
    try:
        while True:
            level = files.source.model_copy(update={"level": len(sizes)})
            sizes[len(sizes)] = SourceFiles(level, files.where).raw().voxel_size
    except UserError:  # no such level
        return sizes


def _apart(found: Sequence[float], trained: Sequence[float]) -> float:
    """The largest factor between two sizes along an axis."""
    return max(max(a / b, b / a) for a, b in zip(found, trained, strict=True))
