"""What a run has to show: its volumes by name, and the region worth looking at."""

from __future__ import annotations

from dataclasses import dataclass

from ..command_names import name_of
from ..errors import UserError
from ..run import Run, read_summary, region_box
from ..volumes import Box, Volume, open_volume, volume_exists

SEGMENTATIONS = "segmentation"


@dataclass(frozen=True)
class Layer:
    """One volume to look at.

    Attributes:
        name: `raw`, `affinities`, `fragments`, `segmentation 0.50`, `labels`.
        kind: `intensity`, `affinities` or `objects`.
        volume: the open array.
    """

    name: str
    kind: str
    volume: Volume


def existing_layers(run: Run) -> list[Layer]:
    """The volumes of the run that exist, in the order of the pipeline, labels last.

    Raises:
        UserError: there is no raw volume yet.
    """
    if not volume_exists(run.volume, "raw"):
        raise UserError(f"there is no raw volume yet; run {name_of('import_data.py')} first", str(run.volume))
    candidates = [
        ("raw", "raw", "intensity"),
        ("affinities", "affinities", "affinities"),
        ("fragments", "fragments", "objects"),
    ]
    candidates += [(f"segmentation {t}", f"{SEGMENTATIONS}/{t}", "objects") for t in segmentation_thresholds(run)]
    candidates += [("labels", "labels", "objects")]
    return [
        Layer(name, kind, open_volume(run.volume, dataset))
        for name, dataset, kind in candidates
        if volume_exists(run.volume, dataset)
    ]


def segmentation_thresholds(run: Run) -> list[str]:
    """Thresholds of the segmentations that exist, as their datasets are called: `0.50`."""
    folder = run.volume / SEGMENTATIONS
    return sorted(path.parent.name for path in folder.glob("*/.zarray"))


def best_threshold(run: Run) -> str | None:
    """The threshold with the best score, as datasets are called; None without scores."""
    best = read_summary(run).get("best")
    return None if best is None else f"{float(best['threshold']):.2f}"


def chosen_segmentation(run: Run) -> str | None:
    """The layer of the segmentation at the best threshold, or of the middle one of those that exist."""
    thresholds = segmentation_thresholds(run)
    if not thresholds:
        return None
    best = best_threshold(run)
    return f"segmentation {best if best in thresholds else thresholds[len(thresholds) // 2]}"


def shown_box(run: Run, raw: Volume) -> Box:
    """The part of the raw volume worth looking at: what is segmented and validated, or else what is segmented."""
    volumes = run.config.volumes
    segmented = region_box(volumes.segment, raw.shape, "volumes.segment")
    if volumes.validate_ is None or not validates_segmented(run):
        return segmented
    validated = region_box(volumes.validate_, raw.shape, "volumes.validate").intersect(segmented)
    return validated if validated.size else segmented


def validates_segmented(run: Run) -> bool:
    """Whether the validation region lies in the volume that is segmented."""
    volumes = run.config.volumes
    return volumes.validate_ is not None and volumes.validate_.source == volumes.segment.source
