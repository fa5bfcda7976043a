"""Quality of teacher, student alone and distilled student on one labelled volume.

Trains (or continues) the teacher and both students of a config, segments the validation region with each, and scores
it at the threshold that is best there. Every variant is a run directory of its own below `--out`, so that an
interrupted benchmark continues where it stopped.

    python benchmarks/quality.py --config configs/fib25.json --out runs/quality

The last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
QUICK = {
    "teacher.training.iterations": 60,
    "student.training.iterations": 60,
    "teacher.training.validate_every": 60,
    "student.training.validate_every": 60,
    "teacher.training.warm_up": 10,
    "student.training.warm_up": 10,
}


def variants(out: Path) -> dict[str, dict[str, Any]]:
    """Config overrides of each variant; all else is shared, the distilled student's teacher with the first one."""
    return {
        "teacher": {"predict.network": "teacher"},
        "student_alone": {"student.distillation": None},
        "student_distilled": {"teacher.checkpoint": str(newest_checkpoint(out / "teacher" / "teacher"))},
    }


def newest_checkpoint(folder: Path) -> Path:
    """The checkpoint of the highest iteration, or the folder itself while there is none."""
    return max(folder.glob("checkpoint_*.pt"), default=folder)


def run_variant(config: Path, directory: Path, overrides: dict[str, Any]) -> dict[str, Any]:
    """Run the whole pipeline of one variant and return its summary."""
    command = [sys.executable, str(ROOT / "workflows" / "run_all.py"), str(config)]
    for key, value in ({"run_directory": str(directory)} | overrides).items():
        command += ["--set", f"{key}={json.dumps(value)}"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    summary: dict[str, Any] = json.loads((directory / "summary.json").read_text())
    return summary


def gap_closure(teacher: float, alone: float, distilled: float) -> float | None:
    """Share of the quality gap that distillation closes; None when the student alone is no worse than its teacher."""
    return (alone - distilled) / (alone - teacher) if alone > teacher else None


def main() -> None:
    """Run the variants one after another and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "fib25.json")
    parser.add_argument("--out", type=Path, default=Path("runs/quality"))
    parser.add_argument("--only", action="append", help="run only these variants (repeatable)")
    parser.add_argument(
        "--quick", action="store_true", help="a few iterations only: checks the harness, says nothing about quality"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="further config overrides")
    options = parser.parse_args()

    region = json.loads(options.config.read_text())["volumes"]["validate"]
    shared: dict[str, Any] = {"volumes.segment": region} | (QUICK if options.quick else {})
    for pair in options.set:
        key, _, value = pair.partition("=")
        shared[key] = json.loads(value)

    best: dict[str, dict[str, Any]] = {}
    for name in ("teacher", "student_alone", "student_distilled"):
        if options.only and name not in options.only:
            continue
        summary = run_variant(options.config, options.out / name, shared | variants(options.out)[name])
        best[name] = summary["best"]

    for name, score in best.items():
        print(
            f"{name:20} threshold {score['threshold']:.2f}  VOI split {score['voi_split']:.3f}"
            f" + merge {score['voi_merge']:.3f} = {score['voi_sum']:.3f}"
            f"  adapted Rand error {score['adapted_rand_error']:.3f}"
        )
    result: dict[str, Any] = {"quick": options.quick, "best": best}
    if len(best) == 3:
        result["gap_closure"] = gap_closure(*(best[name]["voi_sum"] for name in best))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
