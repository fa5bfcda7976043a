"""File sources: open raw, labels and mask, put their axes in order, and refuse whatever is ambiguous."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from funlib.geometry import Coordinate

from ..config import ChosenSections, FileSource
from ..errors import UserError
from .containers import OpenContainer, StoredArray, listing, open_hdf5, open_n5, open_zarr
from .metadata import whole_nanometres, zyx_order
from .ordered import ChosenArray, FileReader, OrderedArray
from .source import DTYPES, OpenSource
from .stamps import stamp
from .tiff import is_tiff, open_tiff

RAW_NAMES = ("raw", "volumes/raw", "main")
"""Datasets that are taken for raw intensities when the config names none."""
LABEL_NAMES = ("labels", "volumes/labels/neuron_ids", "stack")
"""Datasets that are taken for labels when the config names none."""


@dataclass(frozen=True)
class FileOpener:
    """Opens a file source; see `SourceOpener`.

    Attributes:
        source: its config section.
        where: dotted path of that section.
        unlabelled_id: the one label that may be negative.
    """

    source: FileSource
    where: str
    unlabelled_id: int | None = None

    def identity(self) -> dict[str, Any] | None:
        """Size and modification time of the files; None if they are gone."""
        source = self.source
        paths = [("path", source.path), ("labels_path", source.labels_path), ("mask_path", source.mask_path)]
        try:
            return {key: stamp(_expand(text, f"{self.where}.{key}")) for key, text in paths if text is not None}
        except (UserError, OSError, ValueError):
            return None

    @contextmanager
    def open(self) -> Iterator[OpenSource]:
        """Open raw, labels and mask.

        Raises:
            UserError: anything is missing or ambiguous.
        """
        with ExitStack() as stack:
            main = stack.enter_context(open_any(_expand(self.source.path, f"{self.where}.path"), f"{self.where}.path"))
            stored = self._find_all(stack, main)
            readers = {dataset: self._ordered(dataset, array, stored["raw"]) for dataset, array in stored.items()}
            for dataset, reader in readers.items():
                self._check(dataset, reader, readers["raw"])
            if self.source.sections is not None:
                chosen = chosen_sections(main, self.source.sections, readers["raw"], f"{self.where}.sections")
                readers = {name: ChosenArray(reader.stored, reader.order, chosen) for name, reader in readers.items()}
            voxel_size = self._voxel_size(readers)
            yield OpenSource(
                shape=readers["raw"].shape,
                voxel_size=voxel_size,
                offset=self._offset(readers),
                dtypes={dataset: _stored_dtype(dataset, reader) for dataset, reader in readers.items()},
                reader=FileReader(readers, self.where, self.unlabelled_id),
                chunks=Coordinate(max(sizes) for sizes in zip(*(r.chunks for r in readers.values()), strict=True)),
            )

    def _find_all(self, stack: ExitStack, main: OpenContainer | StoredArray) -> dict[str, StoredArray]:
        source, where = self.source, self.where
        raw = _required(_find(main, source.raw, RAW_NAMES, f"{where}.raw"), main, f"{where}.raw")
        found = {"raw": raw}
        labels = self._find_labels(stack, main)
        if labels is not None and labels.name == raw.name:
            raise UserError(f"{raw.name} cannot be both raw and labels", f"{where}.labels")
        if labels is not None:
            found["labels"] = labels
        mask = self._find_mask(stack, main)
        if mask is not None:
            found["mask"] = mask
        return found

    def _find_mask(self, stack: ExitStack, main: OpenContainer | StoredArray) -> StoredArray | None:
        """The mask: in the file that the config names, or the dataset that it names."""
        key, path_key = f"{self.where}.mask", f"{self.where}.mask_path"
        if self.source.mask_path is not None:
            other = stack.enter_context(open_any(_expand(self.source.mask_path, path_key), path_key))
            return _required(_find(other, self.source.mask, (), key) or _only_array(other), other, key)
        return None if self.source.mask is None else _required(_find(main, self.source.mask, (), key), main, key)

    def _find_labels(self, stack: ExitStack, main: OpenContainer | StoredArray) -> StoredArray | None:
        """The labels: in the file that the config names, otherwise beside raw, if anywhere."""
        key = f"{self.where}.labels"
        if self.source.labels_path is not None:
            path_key = f"{self.where}.labels_path"
            other = stack.enter_context(open_any(_expand(self.source.labels_path, path_key), path_key))
            found = _find(other, self.source.labels, LABEL_NAMES, key) or _only_array(other)
            return _required(found, other, key)
        if isinstance(main, OpenContainer):
            return main.find(self.source.labels, LABEL_NAMES, key) if main.names() != [""] else None
        if self.source.labels is not None:
            raise UserError("a TIFF stack has no datasets; name the file of the labels in labels_path", key)
        return None

    def _ordered(self, dataset: str, array: StoredArray, raw: StoredArray) -> OrderedArray:
        key = f"{self.where}.{dataset}"
        if len(array.array.shape) != 3:
            raise UserError(
                f"{array.name} has {len(array.array.shape)} axes {tuple(array.array.shape)}; a volume has three: z,"
                " y, x",
                key,
            )
        axes = self.source.axes or array.placement.axes or raw.placement.axes or "zyx"
        where = f"{self.where}.axes" if self.source.axes else f"{array.name}, attribute axes"
        order = zyx_order(axes, where)
        if array.reverse and self.source.axes is None and axes != "zyx":
            raise UserError(
                f"{array.name} states axes, but N5 writers list them in different orders; set axes in the config (zyx"
                " for volumes whose N5 dimensions are x, y, z)",
                f"{self.where}.axes",
            )
        return OrderedArray(array, order)

    def _check(self, dataset: str, reader: OrderedArray, raw: OrderedArray) -> None:
        key = f"{self.where}.{dataset}"
        if dataset == "raw" and reader.dtype.newbyteorder("=").name not in DTYPES["raw"]:
            raise UserError(
                f"{reader.name} is {reader.dtype.name}; raw intensities must be uint8 or uint16: scale them to 0..255"
                " or 0..65535, without NaN, and save them as such",
                key,
            )
        if dataset == "labels" and reader.dtype.kind not in "ui":
            raise UserError(
                f"{reader.name} is {reader.dtype.name}; labels must be whole numbers, one per neurite: save them as"
                " uint32 or uint64",
                key,
            )
        if dataset == "mask" and reader.dtype.kind not in "uib":
            raise UserError(f"{reader.name} is {reader.dtype.name}; a mask must be of whole numbers or bool", key)
        if reader.shape != raw.shape:
            raise UserError(
                f"{reader.name} has {tuple(reader.shape)} voxels (z, y, x), but {raw.name} has {tuple(raw.shape)};"
                " they must agree",
                key,
            )

    def _voxel_size(self, readers: dict[str, OrderedArray]) -> Coordinate:
        key = f"{self.where}.voxel_size"
        if self.source.voxel_size is not None:
            return Coordinate(self.source.voxel_size)
        stated = {}
        for reader in readers.values():
            if reader.voxel_size is not None:
                stated[reader.name] = reader.voxel_size
        if not stated:
            raise UserError(
                f"{readers['raw'].name} does not say its voxel size; give it in nanometres, order z, y, x, for"
                " example [40, 4, 4]",
                key,
            )
        if len(set(stated.values())) > 1:
            told = ", ".join(f"{name}: {list(size)} nm" for name, size in stated.items())
            raise UserError(f"the datasets state different voxel sizes ({told}); set voxel_size", key)
        name, size = next(iter(stated.items()))
        return whole_nanometres(size, "voxel size", name, key)

    def _offset(self, readers: dict[str, OrderedArray]) -> Coordinate:
        key = f"{self.where}.offset"
        if self.source.offset is not None:
            return Coordinate(self.source.offset)
        raw = readers["raw"].offset or (0.0, 0.0, 0.0)
        for reader in readers.values():
            if reader.offset is not None and reader.offset != raw:
                raise UserError(
                    f"{reader.name} lies at {list(reader.offset)} nm, but {readers['raw'].name} at {list(raw)} nm;"
                    " crop them to one region, or set offset if the file is wrong",
                    key,
                )
        return whole_nanometres(raw, "offset", readers["raw"].name, key)


def chosen_sections(
    main: OpenContainer | StoredArray, wanted: ChosenSections, raw: OrderedArray, where: str
) -> np.ndarray:
    """The numbers of the sections to import, (n,) int64, ascending.

    Args:
        main: the opened file.
        wanted: the list of numbers in it, and the number that counts.
        raw: the intensities, whose sections are listed.
        where: dotted path of the config section.

    Raises:
        UserError: there is no such list, it does not fit, or no section has the number.
    """
    key = f"{where}.dataset"
    if not isinstance(main, OpenContainer):
        raise UserError(f"{main.name} is a TIFF stack and has no datasets that could choose sections", key)
    found = _required(main.find(wanted.dataset, (), key), main, key).array
    if found.shape != (raw.shape[0],) or np.dtype(found.dtype).kind not in "uib":
        raise UserError(
            f"{wanted.dataset} is {np.dtype(found.dtype).name} of shape {tuple(found.shape)}; expected one whole "
            f"number for each of the {raw.shape[0]} sections of {raw.name}",
            key,
        )
    numbers = np.asarray(found[:])
    chosen = np.flatnonzero(numbers == wanted.equals)
    if len(chosen) == 0:
        present = ", ".join(str(number) for number in np.unique(numbers)[:10])
        raise UserError(f"no section has the number {wanted.equals}; {wanted.dataset} has {present}", f"{where}.equals")
    return chosen


def open_any(path: Path, where: str) -> AbstractContextManager[OpenContainer | StoredArray]:
    """Open a file or folder by what it is: a container of datasets, or a TIFF stack, which is one array.

    Raises:
        UserError: it does not exist, or is of an unknown kind.
    """
    if not path.exists():
        raise UserError(f"there is no file {path}", where)
    if path.is_dir():
        if any((path / name).exists() for name in (".zgroup", ".zarray", "zarr.json")):
            return open_zarr(path, where)
        if (path / "attributes.json").exists() or path.suffix == ".n5":
            return open_n5(path, where)
        return open_tiff(path, where)
    if is_tiff(path):
        return open_tiff(path, where)
    if h5py.is_hdf5(path):
        return open_hdf5(path, where)
    raise UserError(f"{path} is no TIFF stack, HDF5 file, N5 or zarr container (or is damaged)", where)


def _find(
    opened: OpenContainer | StoredArray, dataset: str | None, candidates: tuple[str, ...], key: str
) -> StoredArray | None:
    if isinstance(opened, OpenContainer):
        return opened.find(dataset, candidates, key)
    if dataset is not None:
        raise UserError(f"{opened.name} is a TIFF stack and has no datasets; leave this out", key)
    return opened


def _required(found: StoredArray | None, opened: OpenContainer | StoredArray, key: str) -> StoredArray:
    if found is None:
        path, names = (opened.path, opened.names()) if isinstance(opened, OpenContainer) else (opened.name, [])
        raise UserError(f"name the dataset to use; {path} has {listing(names)}", key)
    return found


def _only_array(opened: OpenContainer | StoredArray) -> StoredArray | None:
    """The array of a container that holds a single one."""
    names = opened.names() if isinstance(opened, OpenContainer) else []
    return opened.get(names[0]) if isinstance(opened, OpenContainer) and len(names) == 1 else None


def _stored_dtype(dataset: str, reader: OrderedArray) -> np.dtype:
    return reader.dtype.newbyteorder("=") if dataset == "raw" else np.dtype(DTYPES[dataset][0])


def _expand(text: str, where: str) -> Path:
    expanded = os.path.expandvars(text)
    missing = re.search(r"\$\{?(\w+)\}?", expanded)
    if missing:
        raise UserError(f"the environment variable {missing.group(1)} is not set (in {text!r})", where)
    return Path(expanded).expanduser()
