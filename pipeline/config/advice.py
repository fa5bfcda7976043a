"""What a config may say and had better not."""

from __future__ import annotations

from collections.abc import Sequence

from ..units import by
from .root import Config
from .volumes import FileSource, PhantomSource

FLAT = 2.0
"""Voxels that are so many times longer along z than within sections are anisotropic."""


def fragments_warnings(config: Config, voxel_size: Sequence[float] | None) -> list[str]:
    """What speaks against the fragments of a config, one line each.

    Args:
        config: the config.
        voxel_size: nanometres of the segmented source, order z, y, x; None if that is not known.
    """
    found = (
        None if voxel_size is None else flat_voxels_warning(config, voxel_size),
        embedded_affinities_warning(config),
    )
    return [warning for warning in found if warning is not None]


def flat_voxels_warning(config: Config, voxel_size: Sequence[float]) -> str | None:
    """One line if fragments reach across sections although voxels are anisotropic; None otherwise.

    Args:
        config: the config.
        voxel_size: nanometres of the segmented source, order z, y, x.
    """
    fragments = config.fragments
    if fragments.method != "watershed" or fragments.in_plane or config.volumes.images:
        return None
    if not is_anisotropic(voxel_size):
        return None
    return (
        f"voxels of {by(voxel_size)} nm are anisotropic, but fragments reach across sections: "
        "better results are likely with fragments.in_plane true (after a prediction, 06_evaluate.py --floor tries both)"
    )


def embedded_affinities_warning(config: Config) -> str | None:
    """One line if faces between voxels count for affinities that are cosines of an embedding; None otherwise.

    Labels ask for no affinity between any two voxels of a membrane, which directions of embeddings can hardly give:
    here and there a few hold together, and the watershed takes them for thin processes.
    """
    fragments, network = config.fragments, config.predicting.network
    if fragments.method != "watershed" or fragments.face_threshold == 0 or network.background:
        return None
    if all(offset in network.affinity_offsets for offset in config.neighbours):
        return None
    return (
        f"{config.predict.network}.network gives the nearest affinities as cosines of its embedding, which are unsure"
        " inside of membranes: better results are likely with network.affinity_offsets, or fragments.face_threshold 0"
        " (after a prediction, 06_evaluate.py --floor tries it)"
    )


def is_anisotropic(voxel_size: Sequence[float]) -> bool:
    """Whether voxels are much longer along z than within sections."""
    return voxel_size[0] >= FLAT * min(voxel_size[1:])


def stated_voxel_size(config: Config) -> Sequence[float] | None:
    """The voxel size of the segmented source as far as the config says it, nanometres; None if only the file does."""
    source = config.volumes.sources[config.volumes.segment.source]
    return source.voxel_size if isinstance(source, FileSource | PhantomSource) else None
