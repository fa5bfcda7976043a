"""Some sections of a file as a source of their own: the images of one split, interleaved with those of another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from pipeline.errors import UserError
from pipeline.volumes import RunVolume

Import = Callable[..., dict[str, RunVolume]]

SPLIT = np.array([0, 0, 1, 0, 2, 2, 0, 1, 0], np.uint8)
CHUNKS = (4, 16, 16)
"""Sections of one split lie in the same and in different chunks."""


def write_stack(path: Path, raw: np.ndarray, labels: np.ndarray, axes: str = "nyx") -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["axes"] = axes
        file.create_dataset("image", data=raw, chunks=CHUNKS)
        file.create_dataset("labels", data=labels, chunks=CHUNKS)
        file["split"] = SPLIT
        file["weights"] = SPLIT.astype(float)
        file["few"] = SPLIT[:4]
    return path


def stack_fields(**changes: Any) -> dict[str, Any]:
    return {"raw": "image", "voxel_size": (1, 1, 1), "sections": {"dataset": "split", "equals": 0}, **changes}


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_sections_of_a_split_arrive_in_their_order(
    tmp_path: Path, raw: np.ndarray, labels: np.ndarray, imported: Import, number: int
) -> None:
    path = write_stack(tmp_path / "stack.h5", raw, labels)
    volumes = imported(path, **stack_fields(sections={"dataset": "split", "equals": number}))
    assert np.array_equal(volumes["raw"].read(volumes["raw"].box), raw[number == SPLIT])
    assert np.array_equal(volumes["labels"].read(volumes["labels"].box), labels[number == SPLIT])


def test_another_split_is_another_source(tmp_path: Path, raw: np.ndarray, labels: np.ndarray, imported: Import) -> None:
    path = write_stack(tmp_path / "stack.h5", raw, labels)
    imported(path, **stack_fields())
    with pytest.raises(UserError, match="has changed since it was imported"):
        imported(path, **stack_fields(sections={"dataset": "split", "equals": 1}))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"dataset": "split", "equals": 7}, r"sections\.equals: no section has the number 7; split has 0, 1, 2"),
        ({"dataset": "fold", "equals": 0}, r"sections\.dataset: .* has no dataset 'fold'; it has few, image"),
        ({"dataset": "few", "equals": 0}, r"few is uint8 of shape \(4,\); expected one whole number for each of the 9"),
        ({"dataset": "weights", "equals": 0}, r"weights is float64 of shape \(9,\); expected one whole number"),
        ({"dataset": "image", "equals": 0}, r"image is uint8 of shape \(9, 37, 50\); expected one whole number"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(
    tmp_path: Path, raw: np.ndarray, labels: np.ndarray, imported: Import, sections: dict[str, Any], message: str
) -> None:
    path = write_stack(tmp_path / "stack.h5", raw, labels)
    with pytest.raises(UserError, match=message):
        imported(path, **stack_fields(sections=sections))


def test_a_tiff_stack_has_no_list_to_choose_by(tmp_path: Path, raw: np.ndarray, imported: Import) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", raw)
    with pytest.raises(UserError, match="is a TIFF stack and has no datasets that could choose sections"):
        imported(tmp_path / "stack.tif", voxel_size=(1, 1, 1), sections={"dataset": "split", "equals": 0})
