"""volara's way from affinities to segmentations; runs in volara's own environment, which `postprocess.py` makes.

    python volara_chain.py job.json

The job names the affinities (`container`, `dataset`), where to write (`out`), `block` and `context` in voxels,
`workers`, and the `thresholds` of merging: the first is run and timed, the others afterwards on the same graph. The
last line of the output is a JSON object: the seconds, and the array of each threshold.
"""

import json
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

from funlib.geometry import Coordinate
from volara.blockwise import AffAgglom, ExtractFrags, GraphMWS, Relabel
from volara.datasets import Affs, Labels
from volara.dbs import SQLite
from volara.lut import LUT

NEIGHBOURS = [Coordinate(-1, 0, 0), Coordinate(0, -1, 0), Coordinate(0, 0, -1)]
SEED_SPACING = 2.0
"""Seeds about an object's local diameter apart, as volara documents; without, nearest neighbours merge all."""
FRAGMENT_BIAS = -0.5


def main() -> None:
    """Run the job."""
    multiprocessing.set_start_method("fork", force=True)
    job = json.loads(Path(sys.argv[1]).read_text())
    out = Path(job["out"])
    out.mkdir(parents=True)
    os.chdir(out)  # its logs go to the current folder
    block, context = Coordinate(job["block"]), Coordinate(job["context"])
    affinities = Affs(store=f"{job['container']}/{job['dataset']}", neighborhood=NEIGHBOURS, writable=False)
    graph = SQLite(path=out / "data.zarr" / "graph.db", edge_attrs={"affinity": "float"})
    fragments = Labels(store=out / "data.zarr" / "fragments")
    common = {"block_size": block, "num_workers": job["workers"]}

    begun = time.perf_counter()
    ExtractFrags(
        db=graph,
        affs_data=affinities,
        frags_data=fragments,
        context=context,
        bias=[FRAGMENT_BIAS] * 3,
        adaptive_seed_spacing=SEED_SPACING,
        **common,
    ).run_blockwise()
    AffAgglom(
        db=graph,
        affs_data=affinities,
        frags_data=fragments,
        context=Coordinate(1, 1, 1),
        scores={"affinity": NEIGHBOURS},
        **common,
    ).run_blockwise()
    roi = affinities.array("r").roi
    written: dict[str, Any] = {}
    for threshold in job["thresholds"]:
        lut = LUT(path=out / "data.zarr" / f"lut_{threshold}.npz")
        segments = Labels(store=out / "data.zarr" / f"segments_{threshold}")
        GraphMWS(db=graph, lut=lut, weights={"affinity": (1.0, threshold - 1.0)}, roi=roi).run_blockwise()
        Relabel(frags_data=fragments, seg_data=segments, lut=lut, **common).run_blockwise()
        written.setdefault("seconds", time.perf_counter() - begun)
        written[str(threshold)] = str(segments.store)
    print(json.dumps(written))


if __name__ == "__main__":
    main()
