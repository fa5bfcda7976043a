"""What a run has to show: its volumes by name, and the region worth looking at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from funlib.geometry import Coordinate

from ..command_names import name_of
from ..engine.tracking.lineage import present_segmentations
from ..errors import UserError
from ..run import SEGMENTATIONS, Run, read_summary, region_box
from ..units import threshold_name
from ..volumes import ZERO, Box, volume_exists
from ..volumes.readable import Readable
from ..volumes.volume import Volume


@dataclass(frozen=True)
class Layer:
    """One volume to look at.

    Attributes:
        name: `raw`, `affinities`, `fragments`, `segmentation 0.50`, `labels`.
        kind: `intensity`, `affinities` or `objects`.
        volume: the open array.
        begin: its first voxel, in voxels of raw.
        contrast: intensities that are shown black and white; None: those of what is shown, without the extremes.
    """

    name: str
    kind: str
    volume: Readable
    begin: Coordinate = ZERO
    contrast: tuple[float, float] | None = None

    @property
    def box(self) -> Box:
        """What it shows, in voxels of raw."""
        return Box(self.begin, self.begin + self.volume.shape)

    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box of raw's voxels."""
        return self.volume.read(Box(box.begin - self.begin, box.end - self.begin))


def existing_layers(run: Run) -> list[Layer]:
    """The volumes of the run that exist, in the order of the pipeline, labels last; of segmentations, those of the
    present graph.

    Raises:
        UserError: there is no raw volume yet.
    """
    source = run.config.volumes.segment.source
    raw = open_raw(run)
    if raw is None:
        raise UserError(f"there is no raw volume yet; run {name_of('import_data.py')} first", str(run.volume))
    candidates = [("affinities", "affinities", "affinities"), ("fragments", "fragments", "objects")]
    candidates += [(f"segmentation {t}", f"{SEGMENTATIONS}/{t}", "objects") for t in present_segmentations(run)]
    begin = region_box(run.config.volumes.segment, raw.shape, "volumes.segment").begin
    computed = [
        Layer(name, kind, run.open_computed(dataset), begin)
        for name, dataset, kind in candidates
        if volume_exists(run.volume, dataset) and not (kind == "affinities" and were_dropped(run))
    ]
    labels = [Layer("labels", "objects", run.open_labels(source))] if run.has_labels(source) else []
    return [Layer("raw", "intensity", raw, contrast=contrast_of(run, raw)), *computed, *labels]


def were_dropped(run: Run) -> bool:
    """Whether files of affinities may have been deleted after use (`predict.keep_affinities`): they would be black."""
    return any((run.tracking / "predict").glob("*/drops"))


def contrast_of(run: Run, raw: Volume) -> tuple[float, float] | None:
    """The intensities that networks see as black and white, if they were measured or given; the full range of a type
    says nothing about an image.
    """
    intensity = run.intensity(run.config.volumes.segment.source)
    return None if intensity.is_of_type(raw.dtype) else (intensity.low, intensity.high)


def open_raw(run: Run) -> Volume | None:
    """Raw of the segmented source; None if it is not imported yet."""
    source = run.source(run.config.volumes.segment.source)
    ready = source.is_converted("raw") or "raw" in source.read_record().get("volumes", {})
    return source.open_raw() if ready else None


def best_threshold(run: Run) -> str | None:
    """The threshold with the best score, as datasets are called; None without scores."""
    best = read_summary(run).get("best")
    return None if best is None else threshold_name(float(best["threshold"]))


def chosen_segmentation(run: Run) -> str | None:
    """The layer of the segmentation at the best threshold, or of the middle one of those that exist."""
    threshold = shown_threshold(run)
    return None if threshold is None else f"segmentation {threshold}"


def shown_threshold(run: Run) -> str | None:
    """The threshold of that segmentation, as datasets are called; None if there is none."""
    thresholds = present_segmentations(run)
    if not thresholds:
        return None
    best = best_threshold(run)
    return best if best in thresholds else thresholds[len(thresholds) // 2]


def shown_box(run: Run, raw: Readable) -> Box:
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
