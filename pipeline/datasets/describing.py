"""What a source is, in one line: shape, voxel size, offset, intensities, and whether it is read in place or copied."""

from __future__ import annotations

from collections.abc import Sequence

from ..units import by
from ..volumes.aligned import Aligned
from ..volumes.intensity import IntensityRange, intensity_range
from ..volumes.placement import FROM_CONFIG
from ..volumes.run_sources import RunSource
from ..volumes.sources import DATASETS
from ..volumes.volume import Volume
from .source import OpenSource


def describe(source: RunSource, opened: OpenSource | None = None, in_place: Sequence[str] = ()) -> str:
    """The line.

    Args:
        source: ready to be read, unless it is `opened`.
        opened: what would be converted.
        in_place: which of its datasets would not be.

    Raises:
        StorageUnavailable: a server does not answer.
        UserError: the source cannot be read.
    """
    if opened is not None:
        return _would_be(source, opened, in_place)
    raw = source.open_raw()
    kinds = [f"raw {raw.dtype.name}"]
    labels = source.open_labels() if source.has_labels() else None
    if labels is not None:
        kinds.append(f"labels {labels.aligned.volume.dtype.name}{_place_on_raw(labels.aligned)}")
    mask = source.open_mask()
    if mask is not None:
        kinds.append(f"mask {mask.aligned.volume.dtype.name}{_place_on_raw(mask.aligned)}")
    where = "read in place"
    converted = [name for name in DATASETS if source.is_converted(name)]
    if converted:
        where = f"copied into {source.container}"
        if "raw" not in converted:
            where = f"raw read in place, {' and '.join(converted)} {where}"
    return _line(source.name, raw, kinds, _intensity(source, raw), where)


def _would_be(source: RunSource, opened: OpenSource, in_place: Sequence[str]) -> str:
    wanted = {name: dataset for name, dataset in opened.datasets.items() if name not in in_place}
    kinds = [f"{name} {dataset.dtype}" for name, dataset in wanted.items()]
    raw = opened.datasets["raw"]
    intensity, said = "intensity 0 to 255 (the type uint8)", ""
    if opened.source is not None:
        said = _config_says(opened.source.raw)
        setting = source.intensity_setting(raw.dtype)
        intensity = intensity_range(opened.source.raw, setting, where=f"{source.where}.intensity").text
    kept = ", raw read in place" if "raw" in in_place else ""
    place = f"{by(raw.shape)} voxels of {by(raw.voxel_size)} nm at offset {by(raw.offset)} nm{said}"
    return f"{source.name}: would import {place} ({', '.join(kinds)}), {intensity}, copied into the run{kept}"


def _line(name: str, raw: Volume, kinds: Sequence[str], intensity: str, where: str) -> str:
    place = f"{by(raw.shape)} voxels of {by(raw.voxel_size)} nm at offset {by(raw.offset)} nm"
    said = _config_says(raw)
    return f"{name}: {place}{said} ({', '.join(kinds)}), {intensity}, {where}"


def _config_says(raw: Volume) -> str:
    """Whether the config says the voxel size or offset of raw, whatever its metadata do."""
    said_by = {"voxel size": raw.placement.voxel_size_from, "offset": raw.placement.offset_from}
    overridden = [quantity for quantity, source in said_by.items() if source == FROM_CONFIG]
    return f" [{' and '.join(overridden)} as the config says]" if overridden else ""


def _place_on_raw(aligned: Aligned) -> str:
    """How labels or a mask lie on raw, if they do not simply cover it."""
    said = []
    if max(aligned.factor) > 1:
        said.append(f"coarser by {by(aligned.factor)}")
    if not aligned.covers_all:
        said.append(f"on voxels {by(aligned.covered.begin)} to {by(aligned.covered.end)}")
    return f" {', '.join(said)}" if said else ""


def _intensity(source: RunSource, raw: Volume) -> str:
    """The range in words; measured for it if the run does not know it yet."""
    where = f"{source.where}.intensity"
    setting = source.intensity_setting(raw.dtype)
    measured = source.read_record().get("intensity")
    if setting == "percentiles" and measured is not None:
        return IntensityRange(**measured).text
    if setting == "percentiles" and source.is_converted("raw") and not source.record.exists():
        return source.intensity().text
    return intensity_range(raw, setting, where=where).text
