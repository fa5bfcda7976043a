"""Prediction time of student and teacher through `02_predict_blockwise.py`, in turn on one machine."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from pipeline.run import Run, read_json, read_summary, write_json

from .cells import Plan
from .running import processor, run_workflow

WORKERS = 2


def finish_timings(plan: Plan, datasets: Sequence[str], repeats: int) -> None:
    """Time both networks of each data set, `repeats` times in turn, unless that was done."""
    for dataset in datasets:
        path = plan.out / dataset / "timing.json"
        if len(read_json(path).get("seconds", [])) < repeats:
            seconds = [[_predict(plan, dataset, variant) for variant in ("teacher", "alone")] for _ in range(repeats)]
            write_json(path, {"columns": ["teacher", "student"], "seconds": seconds, "processor": processor()})


def _predict(plan: Plan, dataset: str, variant: str) -> float:
    """Seconds that a network takes for the validation region, in a fresh run directory."""
    cell = plan.teacher(dataset) if variant == "teacher" else plan.cell(dataset, variant, 0)
    directory = plan.out / dataset / "timing" / variant
    shutil.rmtree(directory, ignore_errors=True)
    overrides = (
        f'run_directory="{directory.resolve()}"',
        f'predict.checkpoint="{cell.checkpoint.resolve()}"',
        f"cluster.workers={WORKERS}",
    )
    for script in ("import_data.py", "02_predict_blockwise.py"):
        run_workflow(script, cell, 1, directory.with_suffix(".log"), overrides)
    config = cell.run.config.model_copy(update={"run_directory": str(directory)})
    return float(read_summary(Run(config))["stages"]["predict"]["seconds"])
