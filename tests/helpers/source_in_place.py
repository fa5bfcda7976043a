"""A source that is read where it lies: its config, what `import_data.py` says of it, and what a run reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import load_config
from pipeline.run import Run

SHAPE = (12, 40, 44)
RAW = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
LABELS = np.random.default_rng(1).integers(1, 9, SHAPE).astype(np.uint64)
NM = {"resolution": [40, 6, 4]}

Step = Callable[..., tuple[int, str]]


def write_config(folder: Path, source: Mapping[str, Any], **sections: Any) -> Path:
    document = {
        "run_directory": "run",
        "volumes": {
            "sources": {"s": {"kind": "file", **source}},
            "train": [{"source": "s"}],
            "segment": {"source": "s"},
            "import_block": [8, 32, 32],
        },
        "student": {"network": {"name": "section_unet", "widths": [4, 6]}, "distillation": None},
        **sections,
    }
    (folder / "config.json").write_text(json.dumps(document))
    return folder / "config.json"


def run_of(folder: Path) -> Run:
    return Run(load_config(folder / "config.json", {"run_directory": str(folder / "run")}))


def voxels(folder: Path, dataset: str = "raw") -> np.ndarray:
    run = run_of(folder)
    volume = run.open_raw("s") if dataset == "raw" else run.open_labels("s")
    return volume.read(volume.box)


def copied(folder: Path) -> list[Path]:
    """Arrays that were written into the run."""
    return [*(folder / "run").rglob(".zarray"), *(folder / "run").rglob("zarr.json")]
