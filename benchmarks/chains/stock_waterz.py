"""Stock waterz as its users run it: the whole box in memory, its own watershed, mean affinity, one thread.

    python stock_waterz.py job.json

The job names the affinities (`affinities`, a zarr array, (3, z, y, x) uint8), the `thresholds` of merging, and where to
write the segmentations (`out`; null: nothing is stored, as when it is timed). Nothing is recorded or checked.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import waterz
import zarr


def main() -> None:
    """Run the job."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    affinities = zarr.open_array(job["affinities"], mode="r")[:3].astype(np.float32) / 255
    thresholds = sorted(job["thresholds"])
    for threshold, segments in zip(thresholds, waterz.agglomerate(affinities, thresholds), strict=True):
        if job["out"] is not None:
            np.save(Path(job["out"]) / f"{threshold}.npy", segments)


if __name__ == "__main__":
    main()
