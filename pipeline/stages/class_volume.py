"""The volume of classes that `agglomerate.never_join` names, on raw's voxels."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ..config import NeverJoinConfig
from ..datasets.file_source import open_file
from ..engine.blocks.grid import BlockGrid
from ..errors import UserError
from ..label_ids import has_id
from ..run import Run
from ..units import by
from ..volumes import Box
from ..volumes.identity import Identity
from ..volumes.locations import Location
from ..volumes.nearest import NearestVoxels
from ..volumes.opening import Wanted
from ..volumes.placement import combined
from ..volumes.stated_placement import statements
from ..volumes.volume import Volume

WHERE = "agglomerate.never_join"
"""Dotted path of the config section."""


@dataclass(frozen=True)
class ClassVolume:
    """Classes of voxels.

    Attributes:
        section: of the config.
        nearest: the volume on raw's voxels.
    """

    section: NeverJoinConfig
    nearest: NearestVoxels

    def read(self, box: Box) -> np.ndarray:
        """The classes of a box of raw's voxels, (z, y, x) uint64; those that are to be one class are.

        Raises:
            UserError: it cannot be read, or a value is no class.
        """
        values = self.nearest.read(box)
        if values.dtype.kind == "i" and values.size and values.min() < 0:
            raise UserError(
                f"{self.nearest.volume.name} has the value {int(values.min())}; classes are 0 or more", f"{WHERE}.path"
            )
        classes = values.astype(np.uint64)
        if has_id(classes, 2**64 - 1).any():
            raise UserError(
                f"{self.nearest.volume.name} has the value {2**64 - 1}; classes are up to {2**64 - 2}", f"{WHERE}.path"
            )
        for group in self.section.together:
            classes[np.isin(classes, np.array(group, np.uint64))] = min(group)
        return classes

    def identity(self) -> dict[str, Any]:
        """What tells the volume from others, wherever it lies: metadata, and a digest of some chunks."""
        volume = self.nearest.volume
        is_local = volume.found.array.location.is_local
        found = volume.identity(self.section.samples) if is_local else _of_a_server(self.section)
        place = [str(value) for value in (*self.nearest.begin, *self.nearest.size)]
        return {"metadata": found["metadata"], "voxels": found["voxels"], "place": place}


@cache
def _of_a_server(section: NeverJoinConfig) -> Identity:
    """The identity of a volume behind a server, asked once in this process: each time takes several requests."""
    with ExitStack() as stack:
        return _opened(section, stack).identity(section.samples)


def open_class_volume(run: Run, stack: ExitStack) -> ClassVolume:
    """Open the volume, and make sure that it says something of every voxel of the segmented region.

    Args:
        run: whose config has the section.
        stack: keeps files open until it closes.

    Raises:
        StorageUnavailable: a server does not answer.
        UserError: there is no such volume, its values are no whole numbers, or it lies elsewhere.
    """
    section = run.config.agglomerate.never_join
    assert section is not None, "whoever opens it knows that there is one"
    volume = _opened(section, stack)
    nearest = _placed(volume, run.open_raw(run.config.volumes.segment.source), section)
    _require_covered(nearest, BlockGrid.of_run(run).region)
    return ClassVolume(section, nearest)


def require_class_volume(run: Run) -> None:
    """Make sure, before networks are trained, that the volume is as `open_class_volume` wants it; raises as it does."""
    if run.config.agglomerate.never_join is not None:
        with ExitStack() as stack:
            open_class_volume(run, stack)


def _opened(section: NeverJoinConfig, stack: ExitStack) -> Volume:
    location = Location.of(section.path, where=f"{WHERE}.path")
    wanted = Wanted(
        section.dataset,
        only=True,
        format=section.format,
        level=section.level,
        axes=section.axes,
        channel=section.channel,
        time=section.time,
        voxel_size=section.voxel_size,
        offset=section.offset,
        placed=False,
        where=WHERE,
        key="dataset",
        allow_links=section.allow_links,
    )
    volume = open_file(location, wanted, stack)
    if volume is None:
        raise UserError(f"name the array that holds the classes in {location.name}", f"{WHERE}.dataset")
    if volume.dtype.kind not in "uib":
        raise UserError(
            f"{volume.name} is {volume.dtype.name}; classes are whole numbers: save them as uint8, for example",
            f"{WHERE}.path",
        )
    if min(volume.shape) < 1:
        raise UserError(f"{volume.name} has no voxels: its shape is {tuple(volume.shape)}", f"{WHERE}.path")
    return volume


def _placed(volume: Volume, raw: Volume, section: NeverJoinConfig) -> NearestVoxels:
    """The volume where it says, or the config, that it lies."""
    placed = combined(
        statements(volume.found, volume.choice),
        volume.name,
        voxel_size=section.voxel_size,
        offset=section.offset,
        where=WHERE,
        required=False,
    )
    same_shape = volume.shape == raw.shape
    if placed.voxel_size is None and not same_shape:
        raise UserError(
            f"{volume.name} has {tuple(volume.shape)} voxels (z, y, x), raw has {tuple(raw.shape)}, and nothing says"
            " how large its voxels are; give their size in nanometres, order z, y, x",
            f"{WHERE}.voxel_size",
        )
    size = placed.voxel_size or raw.voxel_size
    if placed.offset_from:
        return NearestVoxels.placed(volume, raw, size, placed.offset, placed.centred, section.outside)
    nearest = NearestVoxels.placed(volume, raw, size, raw.offset, outside=section.outside)  # from corner to corner
    ends = zip(nearest.end, nearest.begin, nearest.size, raw.shape, strict=True)
    if any(abs(end - begin - extent) >= max(own, 1) for end, begin, own, extent in ends):
        raise UserError(
            f"{volume.name} has the extent of {by([float(end) for end in nearest.end])} of raw's voxels (z, y, x), raw"
            f" has {tuple(raw.shape)}, and nothing says which part of it they cover; give the position of the first"
            " voxel in nanometres",
            f"{WHERE}.offset",
        )
    return nearest


def _require_covered(nearest: NearestVoxels, region: Box) -> None:
    covered = nearest.touches(region) if nearest.outside is not None else nearest.covers(region)
    if covered:
        return
    begin, end = (by([float(value) for value in corner]) for corner in (nearest.begin, nearest.end))
    cure = "set outside to the class of what it does not cover, or correct voxel_size or offset"
    if nearest.outside is not None or not nearest.touches(region):
        cure = "it has no voxel in common with it: correct voxel_size or offset"
    raise UserError(
        f"{nearest.volume.name} covers raw's voxels from {begin} to {end} (z, y, x), but the segmented region goes from"
        f" {by(region.begin)} to {by(region.end)}; {cure}",
        f"{WHERE}.path",
    )
