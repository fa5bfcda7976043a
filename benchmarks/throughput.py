"""The whole block-wise pipeline on one large raw volume: blocks, time, rate and peak worker memory per stage.

    python benchmarks/throughput.py --raw /data/fib25_unlabelled.h5 --checkpoint runs/fib25/student/best.pt

Rates are those of the machine it runs on. The last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("02_predict_blockwise.py", "03_extract_fragments.py", "04_agglomerate.py", "05_segment.py")


def run_stages(config: Path, overrides: dict[str, Any]) -> None:
    """Run the stages one after another, so that each has the machine to itself."""
    arguments = [f"--set={key}={json.dumps(value)}" for key, value in overrides.items()]
    for script in SCRIPTS:
        subprocess.run([sys.executable, str(ROOT / "workflows" / script), str(config), *arguments], check=True)


def main() -> None:
    """Run once from an empty directory and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("EMDISTILL_DATA", ".")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "fib25.json")
    parser.add_argument("--raw", type=Path, default=Path(data) / "fib25_unlabelled.h5")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a trained student of this config")
    parser.add_argument("--out", type=Path, default=Path("runs/throughput"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a corner of 50x250x250 voxels only")
    options = parser.parse_args()

    shutil.rmtree(options.out, ignore_errors=True)
    segment: dict[str, Any] = {"source": "large"}
    if options.quick:
        segment |= {"begin": [0, 0, 0], "end": [50, 250, 250]}
    run_stages(
        options.config,
        {
            "run_directory": str(options.out),
            "volumes": {
                "sources": {"large": {"kind": "file", "path": str(options.raw), "raw": "raw"}},
                "segment": segment,
            },
            "predict.checkpoint": str(options.checkpoint.resolve()),
            "segment.thresholds": [0.5],
            "cluster.workers": options.workers,
        },
    )
    stages = json.loads((options.out / "summary.json").read_text())["stages"]
    print(f"{'stage':22}{'blocks':>8}{'seconds':>10}{'Mvoxel/s':>10}{'peak worker MiB':>17}")
    for name, stage in stages.items():
        rate, memory = stage["voxels_per_second"] / 1e6, stage["peak_worker_memory"] / 2**20
        print(f"{name:22}{stage['blocks_done']:>8}{stage['seconds']:>10.1f}{rate:>10.2f}{memory:>17.0f}")
    print(json.dumps({"quick": options.quick, "workers": options.workers, "stages": stages}))


if __name__ == "__main__":
    main()
