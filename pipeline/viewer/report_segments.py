"""What the report shows of the segmentation itself: the largest segments, all sizes, certainty, the dearest errors."""

from __future__ import annotations

from typing import Any

from ..engine.tracking.lineage import present_segmentations
from ..evaluation import SegmentationError, SegmentSizes, read_segment_sizes, stored_certainty
from ..evaluation.segment_sizes import of_little_use
from ..run import Run, read_summary
from ..units import counted, threshold_name
from .bodies import body_pictures, swatches
from .error_pictures import pictured_errors
from .layers import best_threshold, chosen_segmentation, existing_layers, open_raw
from .pictures import Picture, embedded
from .plots import certainty_png, picture_png, sizes_png


def chosen_content(run: Run) -> dict[str, Any]:
    """What the template shows of these, by name; None, or nothing, of what does not exist.

    Raises:
        UserError: a file or a chunk cannot be read.
    """
    return {"segments": _segments(run), "certainty": _certainty(run), "errors": _errors(run)}


def _segments(run: Run) -> dict[str, Any] | None:
    """Sizes and pictures of the segments of the shown segmentation."""
    chosen = chosen_segmentation(run)
    if chosen is None:
        return None
    threshold = chosen.rpartition(" ")[2]
    sizes = read_segment_sizes(run, threshold)
    if sizes is None:
        return None
    volume = run.open_computed(chosen.replace(" ", "/"))
    voxel = volume.voxel_size[0] * volume.voxel_size[1] * volume.voxel_size[2] / 1e9
    bodies = [] if run.config.volumes.images else body_pictures(run, threshold, sizes)
    return {
        "threshold": threshold,
        "count": counted(sizes["segments"], "segment"),
        "remark": of_little_use(sizes),
        "plot": embedded("sizes of the segments", sizes_png(sizes["counts"], sizes["volumes"])),
        "rows": _rows(sizes, voxel, tuple(volume.voxel_size)),
        "bodies": [_body(body.segments, body.extent, picture_png(body.image)) for body in bodies],
    }


def _rows(sizes: SegmentSizes, voxel: float, voxel_size: tuple[float, ...]) -> list[dict[str, Any]]:
    """The largest segments as rows of a table; volumes in cubic micrometres, extents in micrometres."""
    total = max(1, sizes["voxels"])
    return [
        {
            **segment,
            "colour": colour,
            "share": 100 * segment["voxels"] / total,
            "volume": segment["voxels"] * voxel,
            "extent": [
                (end - begin) * size / 1000
                for begin, end, size in zip(segment["begin"], segment["end"], voxel_size, strict=True)
            ],
        }
        for segment, colour in zip(sizes["largest"], swatches(sizes), strict=True)
    ]


def _body(segments: tuple[int, ...], extent: tuple[float, float, float], png: bytes) -> Picture:
    what = f"segment {segments[0]}" if len(segments) == 1 else f"the {len(segments)} largest segments"
    size = " × ".join(f"{nanometres / 1000:.3g}" for nanometres in extent)
    return embedded(f"{what}, in a box of {size} µm (z, y, x)", png)


def _certainty(run: Run) -> dict[str, Any] | None:
    """The map of the certainty, and how well it ranks blocks."""
    certainty = stored_certainty(run)
    if certainty is None or not (certainty.values > 0).any():
        return None
    block = run.open_computed("certainty").voxel_size
    return {
        "threshold": threshold_name(certainty.threshold),
        "plot": embedded("certainty of the blocks", certainty_png(certainty.values, block)),
        "ranked": read_summary(run).get("certainty"),
    }


def _errors(run: Run) -> list[dict[str, Any]]:
    """The dearest errors with their pictures."""
    if open_raw(run) is None:
        return []
    best = best_threshold(run)
    scored = f"segmentation {best}" if best in present_segmentations(run) else None
    return [
        {
            "rank": found.rank,
            "error": found.error,
            "text": _in_words(found.error),
            "plane": found.plane,
            "pictures": [
                embedded(f"error {found.rank}, {name.partition(' ')[0]}, {found.plane}", picture_png(image))
                for name, image in found.images.items()
            ],
        }
        for found in pictured_errors(run, existing_layers(run), scored)
    ]


def _in_words(error: SegmentationError) -> str:
    if error.kind == "split":
        return f"segments {error.segments[0]} (blue) and {error.segments[1]} (orange) are one object"
    return f"segment {error.segments[0]} holds two objects, {error.labels[0]} (blue) and {error.labels[1]} (orange)"
