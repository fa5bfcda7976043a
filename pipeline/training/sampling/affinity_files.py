"""Opens the affinities of a teacher as the config describes them, and makes sure that they are what it says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...config import AffinitiesTeacherConfig, Offset, StoredAffinitiesConfig
from ...errors import UserError
from ...run import Run
from ...small_files import read_json
from ...volumes import Box
from ...volumes.aligned import aligned
from ...volumes.locations import Location
from ...volumes.opening import Wanted, open_at
from ...volumes.volume import Volume
from .stored_affinities import StoredAffinities, StoredArray
from .turned_offsets import require_turned_offsets

NAMES = ("affinities", "volumes/affinities")
"""Datasets that are taken for affinities when the config names none."""
OFFSETS = "offsets"
"""The attribute in which stage 02 says what the channels are."""
SAMPLES = 16
"""Chunks that are looked at to tell whether the affinities are still those that were learnt from."""


def open_affinities(run: Run, source: str, raw: Volume | None = None) -> StoredAffinities:
    """The affinities that teach on a source.

    Args:
        run: the run.
        source: its name.
        raw: its raw, where that is not imported yet.

    Raises:
        UserError: there are none, they are not complete, or do not lie on raw's voxels.
    """
    raw = run.open_raw(source) if raw is None else raw
    volumes, offsets = look_at_affinities(run, source)
    section, where = _section(run, source)
    return StoredAffinities(tuple(_placed(volume, raw, section, offsets, where) for volume in volumes), offsets)


def look_at_affinities(run: Run, source: str) -> tuple[list[Volume], tuple[Offset, ...]]:
    """The arrays of a source, wherever they lie on raw, and the offsets of their channels.

    Raises:
        UserError: there are none, they are not complete, or do not say what they are.
    """
    section, where = _section(run, source)
    volumes = [_open(path, section, where) for path in section.paths]
    offsets = [_offsets(volume, section, where) for volume in volumes]
    for volume, told in zip(volumes, offsets, strict=True):
        if told != offsets[0]:
            raise UserError(f"{volume.name} has other offsets than {volumes[0].name}; name arrays that agree", where)
    return volumes, offsets[0]


def _section(run: Run, source: str) -> tuple[StoredAffinitiesConfig, str]:
    """What the config says of the affinities of a source, and where."""
    teacher = run.config.teacher
    assert isinstance(teacher, AffinitiesTeacherConfig)
    return teacher.affinities[source], f"teacher.affinities.{source}"


def require_affinities(
    run: Run, source: str, offsets: Sequence[Offset], box: Box, raw: Volume | None = None, tell: bool = True
) -> None:
    """Refuse affinities on disk that cannot teach a region, before the first step.

    Args:
        run: the run.
        source: of the region.
        offsets: in which student and teacher are compared.
        box: the region's voxels.
        raw: as of `open_affinities`.
        tell: say so if some of their files are not there.

    Raises:
        UserError: there are none of the source, or not of all offsets, or none of the region.
    """
    where = f"teacher.affinities.{source}"
    stored = open_affinities(run, source, raw)
    require_turned_offsets(offsets, stored.offsets, run.config.augment, where)
    stored.require_some(box, where, tell)


def identities(run: Run, source: str) -> list[dict[str, Any]]:
    """What tells the affinities of a source from others: metadata and a digest of some chunks, an entry per array."""
    found = [array.volume.identity(SAMPLES) for array in open_affinities(run, source).arrays]
    return [{"metadata": one["metadata"], "voxels": one["voxels"]} for one in found]


def _open(path: str, section: StoredAffinitiesConfig, where: str) -> Volume:
    location = Location.of(path, where=f"{where}.paths")
    wanted = Wanted(
        section.dataset,
        NAMES,
        only=True,
        axes=section.axes,
        keep_channels=True,
        voxel_size=section.voxel_size,
        offset=section.offset,
        placed=False,
        where=where,
        key="dataset",
        path_key="paths",
        allow_links=section.allow_links,
    )
    volume = open_at(location, wanted)
    if volume is None:
        raise UserError(f"name the dataset that holds the affinities in {path}", f"{where}.dataset")
    if volume.channels is None:
        raise UserError(
            f"{volume.name} has no axis of channels; affinities are (channels, z, y, x), in any order that axes says",
            f"{where}.axes",
        )
    _require_finished(volume, location)
    return volume


def _require_finished(volume: Volume, location: Location) -> None:
    """Refuse the affinities of a run that are not complete.

    Raises:
        UserError: they are not.
    """
    if not location.is_local or volume.found.array.attributes.get("key") is None:
        return
    record = Path(location.file).parent / "tracking" / "predict.json"
    if record.exists() and not read_json(record).get("complete", False):
        raise UserError(
            f"the prediction of {record.parents[1]} is not complete; run 02_predict_blockwise.py there again",
            volume.name,
        )


def _offsets(volume: Volume, section: StoredAffinitiesConfig, where: str) -> tuple[Offset, ...]:
    """What the channels are, as the config or the array itself says."""
    told = volume.found.array.attributes.get(OFFSETS)
    stored = _as_offsets(told)
    given = section.offsets if section.offsets is not None else stored
    if given is None:
        raise UserError(
            f"{volume.name} does not say what its {volume.channels} channels are; name an offset for each",
            f"{where}.offsets",
        )
    channels = section.channels or tuple(range(len(given)))
    if max(channels) >= (volume.channels or 0):
        raise UserError(f"{volume.name} has {volume.channels} channels, fewer than are named", f"{where}.offsets")
    if stored is not None and section.offsets is not None:
        said = tuple(stored[channel] for channel in channels if channel < len(stored))
        if said != given:
            raise UserError(
                f"{volume.name} says of these channels that they are {_listed(said)}, not {_listed(given)}; leave"
                " offsets out to believe it",
                f"{where}.offsets",
            )
    return given


def _as_offsets(told: Any) -> tuple[Offset, ...] | None:
    if not isinstance(told, list) or not all(isinstance(one, list) and len(one) == 3 for one in told):
        return None
    if not all(isinstance(step, int) for one in told for step in one):
        return None
    return tuple((one[0], one[1], one[2]) for one in told)


def _placed(
    volume: Volume, raw: Volume, section: StoredAffinitiesConfig, offsets: Sequence[Offset], where: str
) -> StoredArray:
    size, offset = section.voxel_size, section.offset
    found = aligned(volume, raw, "paths", where, voxel_size=size, offset=offset, alone=True)
    if tuple(found.factor) != (1, 1, 1):
        raise UserError(
            f"{volume.name} is coarser than raw by {tuple(found.factor)}; affinities of other voxels teach nothing of"
            " raw's: predict on this level",
            f"{where}.voxel_size",
        )
    channels = section.channels or tuple(range(len(offsets)))
    shifts = ((0, 0, 0),) * len(channels)
    return StoredArray(volume, found.begin, channels, shifts, *_range(volume, section, where), where)


def _range(volume: Volume, section: StoredAffinitiesConfig, where: str) -> tuple[float, float]:
    if section.range is not None:
        return section.range
    if volume.dtype == np.uint8:
        return 0.0, 255.0
    if volume.dtype.kind == "f":
        return 0.0, 1.0
    raise UserError(
        f"{volume.name} is {volume.dtype.name}; say which values mean no and full affinity", f"{where}.range"
    )


def _listed(offsets: Sequence[Offset]) -> str:
    return ", ".join(str(list(offset)) for offset in offsets)
