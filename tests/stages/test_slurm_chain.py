"""From real EM to a segmentation over the nodes of a SLURM, one of which dies: every array is that of a local run."""

from __future__ import annotations

import os
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from slurm_cluster import SlurmCluster
from toy_tasks import wait_until

from pipeline.config import load_config
from pipeline.engine.executors.slurm_jobs import job_prefix
from pipeline.engine.tracking.markers import marked_blocks
from pipeline.networks import build_network, save_checkpoint
from pipeline.run import Run
from pipeline.stages.by_script import run_chain, segment
from pipeline.stages.fragments import FragmentsTask
from pipeline.stages.importing import ensure_imported
from pipeline.volumes import open_volume

CONFIG = Path(__file__).parents[2] / "configs" / "fib25.json"
DATASETS = ("affinities", "fragments", "segmentation/0.02")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A student that was not trained: what blocks give must agree, not be good."""
    if "EMDISTILL_DATA" not in os.environ:
        pytest.skip("EMDISTILL_DATA does not name a folder of real data")
    config = load_config(CONFIG, []).student.network
    torch.manual_seed(0)
    path = tmp_path / "student.pt"
    network = build_network(config)
    with torch.no_grad():
        for weights in network.parameters():
            weights.mul_(2.0)  # so that affinities differ
    save_checkpoint(path, network, iteration=1, training={})
    return path


def small_run(directory: Path, checkpoint: Path, executor: str) -> Run:
    settings = {
        "run_directory": f'"{directory}"',
        "volumes.segment": '{"source": "fib25", "begin": [10, 20, 30], "end": [58, 150, 160]}',
        "predict.checkpoint": f'"{checkpoint}"',
        "predict.block_size": "[24, 65, 65]",
        "fragments.context": "[8, 8, 8]",
        "segment.thresholds": "[0.02]",
        "cluster": f'{{"executor": "{executor}", "workers": 2, "retries": 0, "slurm": {{"poll": 0.5}}}}',
    }
    run = Run(load_config(CONFIG, [f"{key}={value}" for key, value in settings.items()]))
    ensure_imported(run, ["fib25"])
    return run


def finish(run: Run) -> bool:
    return run_chain(run) and segment(run)


def finish_and_exit(run: Run) -> None:
    raise SystemExit(0 if finish(run) else 1)


def arrays(run: Run) -> dict[str, np.ndarray]:
    return {dataset: open_volume(run.volume, dataset).array[:] for dataset in DATASETS}


@pytest.mark.slow
def test_a_cluster_that_loses_a_node_gives_the_bits_of_one_machine(
    slurm: SlurmCluster, tmp_path: Path, checkpoint: Path
) -> None:
    local = small_run(tmp_path / "local", checkpoint, "local")
    assert finish(local)
    run = small_run(tmp_path / "cluster", checkpoint, "slurm")
    process = get_context("spawn").Process(target=finish_and_exit, args=(run,))
    process.start()
    wait_until(lambda: marked_blocks(FragmentsTask(run)).any())
    lost = next(job.node for job in slurm.jobs() if job.name.startswith(job_prefix(run)) and job.state == "RUNNING")
    slurm.kill_node(lost)
    try:
        process.join()
    finally:
        process.kill()
        slurm.revive_node(lost)
    assert process.exitcode == 0
    assert "NODE_FAIL" in {job.state for job in slurm.jobs() if job.name.startswith(job_prefix(run))}
    expected, given = arrays(local), arrays(run)
    for dataset in DATASETS:
        np.testing.assert_array_equal(given[dataset], expected[dataset], err_msg=dataset)
    assert len(np.unique(given["fragments"])) > 10
