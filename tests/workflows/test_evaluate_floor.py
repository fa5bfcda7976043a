"""`06_evaluate.py --floor`, from a config alone to a table, a file and the summary."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np

SCRIPT = Path(__file__).resolve().parents[2] / "workflows" / "06_evaluate.py"


def call(config: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(config), "--floor", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=500)


def write_config(folder: Path) -> Path:
    phantom = {"kind": "phantom", "shape": [10, 48, 48], "voxel_size": [40, 8, 8]}
    document = {
        "run_directory": str(folder / "run"),
        "volumes": {"sources": {"a": phantom}, "segment": {"source": "a"}},
        "student": {"network": {"name": "section_unet"}, "distillation": None},
        "predict": {"block_size": [10, 48, 48]},
        "fragments": {"context": [2, 8, 8]},
        "segment": {"thresholds": [0.4]},
    }
    (folder / "config.json").write_text(json.dumps(document))
    return folder / "config.json"


def test_labels_alone_give_the_floor_and_which_settings_to_take(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    done = call(config, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run").exists()
    done = call(config)
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.splitlines()
    written = json.loads((tmp_path / "run" / "floor.json").read_text())
    first = {kind: written["settings"][0][kind]["best"]["voi_sum"] for kind in ("flat", "cut")}
    assert json.loads(last) == {"floor": first, "take": written["take"]}
    assert first["flat"] <= 0.1
    assert written["take"]["in_plane"] is True
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["floor"]["take"] == written["take"]
    rows = [line for line in table if line.lstrip().startswith(("flat, ", "cut, "))]
    assert len(rows) == 2 * 2 * len(
        written["settings"]
    )  # two kinds of contacts, the best threshold and that of the config


def test_a_source_without_labels_is_told_in_one_line(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["raw"] = np.zeros((4, 16, 16), np.uint8)
    document = json.loads(write_config(tmp_path).read_text())
    source = {"kind": "file", "path": str(tmp_path / "raw.h5"), "raw": "raw", "voxel_size": [10, 10, 10]}
    document["volumes"]["sources"]["a"] = source
    (tmp_path / "config.json").write_text(json.dumps(document))
    done = call(tmp_path / "config.json")
    assert done.returncode == 2
    assert (
        done.stderr.splitlines()[-1]
        == "error: volumes.sources.a: this source has no labels; its labels_path names them"
    )
