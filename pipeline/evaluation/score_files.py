"""Scores of any two label volumes in HDF5 or zarr files."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr

from ..errors import UserError
from ..volumes import Box
from .overlaps import LabelRules, count_overlaps
from .sweep import scores_of_table


@dataclass(frozen=True)
class Dataset:
    """An array of ids in a file.

    Attributes:
        array: h5py dataset or zarr array.
        name: path as the user gave it.
    """

    array: Any
    name: str

    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box.

        Raises:
            UserError: they cannot be read.
        """
        try:
            return np.asarray(self.array[box.slices])
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(f"voxels {box.begin} to {box.end} cannot be read ({error})", self.name) from error


def score_volumes(prediction: str | Path, labels: str | Path, rules: LabelRules | None = None) -> dict[str, Any]:
    """Score a segmentation against labels.

    Args:
        prediction, labels: `file.h5/dataset` or `store.zarr/dataset`; integer ids, of one shape. Label 0 does not
            count; id 0 of the prediction is a segment like any other.
        rules: which labels count as objects. Default: all but 0, as they are.

    Returns:
        `voi_split`, `voi_merge`, `voi_sum`, `adapted_rand_error`, and the number of `voxels`, `segments` and labelled
        `objects` that were compared.

    Raises:
        UserError: a file or dataset is missing or unreadable, is no array of ids, or the shapes differ.
    """
    with ExitStack() as stack:
        segmentation, truth = open_pair(prediction, labels, stack)
        table = count_overlaps(segmentation, truth, Box.of_shape(truth.array.shape), rules=rules)
    return {
        **scores_of_table(table),
        "voxels": table.total,
        "segments": len(table.segment_sizes()),
        "objects": len(table.label_sizes()),
    }


def open_pair(prediction: str | Path, labels: str | Path, stack: ExitStack) -> tuple[Dataset, Dataset]:
    """Open a segmentation and the labels to score it against until `stack` closes.

    Raises:
        UserError: as for `score_volumes`.
    """
    first, second = open_dataset(str(prediction), stack), open_dataset(str(labels), stack)
    if first.array.shape != second.array.shape:
        raise UserError(
            f"has shape {first.array.shape}, but {second.name} has {second.array.shape}; give volumes of one region",
            first.name,
        )
    return first, second


def open_dataset(path: str, stack: ExitStack) -> Dataset:
    """Open `file.h5/dataset` or `store.zarr/dataset` until `stack` closes.

    Raises:
        UserError: there is no such file or dataset, or it is no array of ids in two or three dimensions.
    """
    container, inside = _split(path)
    opened = _open_hdf5(container, path, stack) if container.is_file() else _open_zarr(container, path)
    try:
        array = opened[inside] if inside else opened
    except KeyError:
        raise UserError(f"there is no dataset {inside!r}; there are: {_list_datasets(opened)}", path) from None
    if not isinstance(array, h5py.Dataset | zarr.Array):
        raise UserError(
            f"name a dataset in it, like {path.rstrip('/')}/labels; there are: {_list_datasets(opened)}", path
        )
    if array.ndim not in (2, 3) or not np.issubdtype(array.dtype, np.integer):
        raise UserError(
            f"label ids are integers in 2 or 3 dimensions, this is {array.dtype} of shape {array.shape}", path
        )
    return Dataset(array, path)


def _split(path: str) -> tuple[Path, str]:
    """The file or zarr container that a path runs through, and the rest of the path."""
    whole = Path(path).expanduser()
    for container in reversed((whole, *whole.parents)):
        if container.is_file() or (container / ".zgroup").is_file() or (container / ".zarray").is_file():
            return container, str(whole.relative_to(container)).removeprefix(".")
    raise UserError(
        "there is no such HDF5 file or zarr container; expected file.h5/dataset or store.zarr/dataset", path
    )


def _open_hdf5(container: Path, path: str, stack: ExitStack) -> h5py.File:
    try:
        return stack.enter_context(h5py.File(container, "r"))
    except OSError as error:
        raise UserError(f"{container} cannot be read as HDF5 ({error})", path) from None


def _open_zarr(container: Path, path: str) -> zarr.Group | zarr.Array:
    try:
        return zarr.open(str(container), mode="r")
    except (ValueError, KeyError, OSError) as error:
        raise UserError(f"{container} cannot be read as zarr ({error})", path) from None


def _list_datasets(group: Any) -> str:
    """Names of the arrays below a group."""
    names: list[str] = []
    if isinstance(group, h5py.Group):
        group.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    elif isinstance(group, zarr.Group):
        group.visititems(lambda name, item: names.append(name) if isinstance(item, zarr.Array) else None)
    return ", ".join(sorted(names)[:20]) or "none"
