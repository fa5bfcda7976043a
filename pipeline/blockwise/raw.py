"""The raw volume as the engine sees it: read strictly, and identified by what it was imported from."""

from __future__ import annotations

from typing import Any

import zarr

from ..run import Run
from .storage import UpstreamVolume, open_upstream


def open_raw(run: Run) -> UpstreamVolume:
    """Raw intensities of the segmented source, (z, y, x) uint8 or uint16; a missing chunk is an error.

    Raises:
        UserError: the source is not imported.
    """
    container = run.container(run.config.volumes.segment.source)
    return open_upstream(container, "raw", None, "the imported raw volume is damaged: import the source anew")


def raw_identity(run: Run) -> dict[str, Any]:
    """What tells one raw volume from another, as JSON values: its import, its extent, and its place in the world."""
    raw = run.open_raw(run.config.volumes.segment.source)
    return {
        "import": zarr.open_group(str(run.volume), mode="r").attrs.get("import"),
        "shape": list(raw.shape),
        "dtype": str(raw.array.dtype),
        "voxel_size": list(raw.voxel_size),
        "offset": list(raw.offset),
    }
