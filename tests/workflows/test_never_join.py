"""The scripts on a phantom with a volume of classes that crosses neurites: each is cut where its class changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from voronoi_run import NETWORK, stored

from pipeline.config import dump_config, parse_config
from pipeline.engine.tracking.progress import begin, write_record
from pipeline.networks import build_network, save_checkpoint
from pipeline.run import Run, read_summary
from pipeline.stages.floor import perfect_affinities
from pipeline.stages.importing import ensure_imported
from pipeline.stages.predict import PredictTask
from pipeline.volumes import create_volume

WORKFLOWS = Path(__file__).parents[2] / "workflows"
SHAPE, OUT_OF_TISSUE = (24, 64, 64), 9


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A phantom whose affinities are known to be right, and classes at half its resolution in plane."""
    directory = tmp_path_factory.mktemp("run")
    z, _, x = np.indices((24, 32, 32))
    classes = np.where(x + z // 2 < 16, 0, 4).astype(np.uint16)
    classes[:, 28:] = OUT_OF_TISSUE
    path = directory / "tissue.zarr"
    volume = create_volume(path, "tissue", classes.shape, "uint16", chunks=(8, 16, 16), voxel_size=(10, 20, 20))
    volume.write(volume.box, classes)
    never = {"path": str(path), "dataset": "tissue", "alone": [OUT_OF_TISSUE]}
    source = {"kind": "phantom", "shape": list(SHAPE), "voxel_size": [10, 10, 10], "neurite_spacing": 160.0}
    document = {
        "run_directory": str(directory),
        "volumes": {"sources": {"a": source}, "segment": {"source": "a"}},
        "student": {"network": dump_config(NETWORK), "distillation": None},
        "predict": {"block_size": [12, 32, 32], "tile_size": [12, 32, 32]},
        "fragments": {"context": [4, 8, 8]},
        "agglomerate": {"region_size": [12, 32, 64], "never_join": never},
        "segment": {"thresholds": [0.6, 1.0], "small_segments": {"below": 200, "threshold": 0.8}},
        "evaluate": {"sweep": [0.6, 0.9]},
        "cluster": {"executor": "serial"},
    }
    run = Run(parse_config(document))
    ensure_imported(run)
    torch.manual_seed(5)
    save_checkpoint(run.network_directory("student") / "checkpoint_0000001.pt", build_network(NETWORK), 1, {})
    run.save_config()
    task = PredictTask(run)
    begin(task)
    labels = run.open_labels("a")
    affinities = perfect_affinities(labels.read(labels.box), run.config.predict.offsets)
    output = task.open_output()
    for block in task.grid:
        output.write(block, affinities[(slice(None), *block.box.slices)])
    write_record(task, complete=True)
    return run


def call(script: str, run: Run, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(WORKFLOWS / script), str(run.directory / "config.json"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_scripts_cut_neurites_where_their_class_changes(run: Run) -> None:
    for script in ("03_extract_fragments.py", "04_agglomerate.py", "05_segment.py", "06_evaluate.py", "audit.py"):
        done = call(script, run)
        assert done.returncode == 0, done.stderr
    z, y, x = np.indices(SHAPE)
    of_voxel = np.where(y // 2 >= 28, OUT_OF_TISSUE, np.where(x // 2 + z // 2 < 16, 0, 4))
    fragments = stored(run, "fragments")
    voxels = fragments > 0
    majority = {}
    for fragment in np.unique(fragments[voxels]).tolist():
        kinds, counts = np.unique(of_voxel[fragments == fragment], return_counts=True)
        majority[fragment] = int(kinds[np.argmax(counts)])
    labels = run.open_labels("a").read(run.open_labels("a").box)
    for name in ("0.60", "1.00"):
        segments = stored(run, f"segmentation/{name}")
        members = set(zip(segments[voxels].tolist(), fragments[voxels].tolist(), strict=True))
        kinds_of: dict[int, set[int]] = {}
        for segment, fragment in members:
            kinds_of.setdefault(segment, set()).add(majority[fragment])
        assert all(len(kinds) == 1 for kinds in kinds_of.values())
        alone = [segment for segment, kinds in kinds_of.items() if OUT_OF_TISSUE in kinds]
        assert len(alone) == sum(kind == OUT_OF_TISSUE for kind in majority.values()) > 1
        assert {kind for kinds in kinds_of.values() for kind in kinds} == {0, 4, OUT_OF_TISSUE}
    crossing = [n for n in np.unique(labels[labels > 0]) if {0, 4} <= set(of_voxel[labels == n].tolist())]
    assert crossing, "some neurites have both classes"
    scores = read_summary(run)["scores"]
    assert scores["0.60"]["voi_split"] > 0.2, "what is cut is split"
    assert scores["0.60"]["voi_merge"] < 0.2


def test_without_a_volume_of_classes_one_line_says_so(run: Run) -> None:
    done = call("04_agglomerate.py", run, "--set", "agglomerate.never_join.path=nowhere.zarr")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: agglomerate.never_join.path: ")
