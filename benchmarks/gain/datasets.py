"""The data sets of the benchmarks: how they are scored, how many labels a training sees, and raw without any."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Dataset:
    """A data set and how it is scored.

    Attributes:
        config: file in `configs/`; what `recipe` runs.
        score: entry of a cell's scores.
        larger_is_better: of the score.
        labelled: share of the sections of its training regions of which the labels are known.
        unlabelled: a source without labels, if there is one.
    """

    config: str
    score: str = "voi_sum"
    larger_is_better: bool = False
    labelled: float = 1.0
    unlabelled: dict[str, Any] | None = None

    @property
    def images(self) -> bool:
        """Whether it is a stack of images, which has no watershed settings to average over."""
        return self.larger_is_better


FIB25_RAW = {"kind": "file", "path": "${EMDISTILL_DATA}/fib25_unlabelled.h5", "raw": "raw"}
PHANTOM_RAW = {"kind": "phantom", "shape": [48, 256, 256], "voxel_size": [40, 8, 8], "seed": 11}

DATASETS = {
    "fib25": Dataset("fib25.json", unlabelled=FIB25_RAW),
    "fib25_10": Dataset("fib25.json", labelled=0.1, unlabelled=FIB25_RAW),
    "fib25_25": Dataset("fib25.json", labelled=0.25, unlabelled=FIB25_RAW),
    "fib25_50": Dataset("fib25.json", labelled=0.5, unlabelled=FIB25_RAW),
    "nuclei2d": Dataset("nuclei2d.json", "panoptic_quality", larger_is_better=True),
    "vnc": Dataset("vnc.json"),
    "phantom": Dataset("demo.json"),
    "phantom_50": Dataset("demo.json", labelled=0.5, unlabelled=PHANTOM_RAW),
}

SEMI_SUPERVISED_DATASETS = tuple(name for name, dataset in DATASETS.items() if dataset.unlabelled is not None)


def labelled_volumes(name: str) -> dict[str, Any]:
    """The config keys that leave the first sections of each training region their labels; none if all keep them."""
    dataset = DATASETS[name]
    if dataset.labelled == 1:
        return {}
    regions = json.loads((ROOT / "configs" / dataset.config).read_text())["volumes"]["train"]
    return {"volumes.train": [first_sections(region, dataset.labelled) for region in regions]}


def first_sections(region: dict[str, Any], share: float) -> dict[str, Any]:
    """A region cut to a share of its sections; it has bounds or a share of the source's sections."""
    if "z_share" in region:
        low, high = region["z_share"]
        return {**region, "z_share": [low, low + share * (high - low)]}
    low, high = region["begin"][0], region["end"][0]
    return {**region, "end": [low + round(share * (high - low)), *region["end"][1:]]}


def unlabelled_volumes(name: str) -> dict[str, Any]:
    """The config keys that show a student the data set's raw without labels."""
    return {
        "volumes.sources.unlabelled": DATASETS[name].unlabelled,
        "volumes.unlabelled": [{"source": "unlabelled"}],
    }
