"""File sources: open raw, labels and mask, put their axes in order, and refuse whatever is ambiguous."""

from __future__ import annotations

import json
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

from pipeline.config import FileSource
from pipeline.errors import UserError
from pipeline.volumes import Box

from .containers import OpenContainer, StoredArray, listing, open_hdf5, open_n5, open_zarr, read_stored
from .metadata import whole_nanometres, zyx_order
from .source import DTYPES, OpenSource, Reader
from .tiff import is_tiff, open_tiff, section_files

RAW_NAMES = ("raw", "volumes/raw", "main")
"""Datasets that are taken for raw intensities when the config names none."""
LABEL_NAMES = ("labels", "volumes/labels/neuron_ids", "stack")
"""Datasets that are taken for labels when the config names none."""
METADATA_FILES = (".zarray", ".zattrs", ".zgroup", "attributes.json")
"""Files that describe a zarr or N5 group or array."""


@dataclass(frozen=True)
class OrderedArray:
    """A stored array read in z, y, x order; see `Reader`."""

    stored: StoredArray
    order: tuple[int, int, int]

    @property
    def name(self) -> str:
        """File and dataset."""
        return self.stored.name

    @property
    def shape(self) -> Coordinate:
        """Extent in voxels."""
        return Coordinate(self.stored.array.shape[axis] for axis in self.order)

    @property
    def dtype(self) -> np.dtype:
        """Type in the file."""
        return np.dtype(self.stored.array.dtype)

    @property
    def chunks(self) -> Coordinate:
        """Voxels that can only be decoded together."""
        return Coordinate(self.stored.chunks[axis] for axis in self.order)

    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box."""
        index = [slice(0)] * 3
        for axis, part in zip(self.order, box.slices, strict=True):
            index[axis] = part
        return read_stored(self.stored.array, tuple(index), self.name).transpose(self.order)


@dataclass(frozen=True)
class FileReader:
    """Raw, labels and mask of a file source, read together; see `BoxReader`."""

    readers: dict[str, Reader]
    where: str

    def read(self, box: Box) -> dict[str, np.ndarray]:
        """The voxels of a box per dataset, in the types to store."""
        return {dataset: self._converted(dataset, reader.read(box), box) for dataset, reader in self.readers.items()}

    def _converted(self, dataset: str, data: np.ndarray, box: Box) -> np.ndarray:
        if dataset == "raw":
            return data.astype(data.dtype.newbyteorder("="), copy=False)
        if dataset == "mask":
            return (data != 0).astype(np.uint8)
        if data.dtype.kind == "i" and data.min() < 0:
            raise UserError(
                f"labels must not be negative, but {self.readers[dataset].name} has {data.min()} between voxels {tuple(box.begin)}"
                f" and {tuple(box.end)}; write 0 for background",
                f"{self.where}.labels",
            )
        return data.astype(np.uint64)


@dataclass(frozen=True)
class FileOpener:
    """Opens a file source; see `SourceOpener`.

    Attributes:
        source: its config section.
        where: dotted path of that section.
    """

    source: FileSource
    where: str

    def identity(self) -> dict[str, Any] | None:
        """Size and modification time of the files; None if they are gone."""
        paths = [("path", self.source.path), ("labels_path", self.source.labels_path)]
        try:
            return {key: _stamp(_expand(text, f"{self.where}.{key}")) for key, text in paths if text is not None}
        except (UserError, OSError):
            return None

    @contextmanager
    def open(self) -> Iterator[OpenSource]:
        """Open raw, labels and mask.

        Raises:
            UserError: anything is missing or ambiguous.
        """
        with ExitStack() as stack:
            stored = self._find_all(stack)
            readers = {dataset: self._ordered(dataset, array, stored["raw"]) for dataset, array in stored.items()}
            for dataset, reader in readers.items():
                self._check(dataset, reader, readers["raw"])
            voxel_size = self._voxel_size(readers)
            yield OpenSource(
                shape=readers["raw"].shape,
                voxel_size=voxel_size,
                offset=self._offset(readers["raw"]),
                dtypes={dataset: _stored_dtype(dataset, reader) for dataset, reader in readers.items()},
                reader=FileReader(dict(readers), self.where),
                chunks=Coordinate(max(sizes) for sizes in zip(*(r.chunks for r in readers.values()), strict=True)),
            )

    def _find_all(self, stack: ExitStack) -> dict[str, StoredArray]:
        source, where = self.source, self.where
        main = stack.enter_context(open_any(_expand(source.path, f"{where}.path"), f"{where}.path"))
        raw = _find(main, source.raw, RAW_NAMES, f"{where}.raw")
        if raw is None:
            assert isinstance(main, OpenContainer)
            raise UserError(
                f"name the dataset of the raw intensities; {main.path} has {listing(main.names())}", f"{where}.raw"
            )
        found = {"raw": raw}
        if source.labels_path is not None:
            path = _expand(source.labels_path, f"{where}.labels_path")
            other = stack.enter_context(open_any(path, f"{where}.labels_path"))
            labels = _find(other, source.labels, LABEL_NAMES, f"{where}.labels") or _only_array(other)
            if labels is None:
                assert isinstance(other, OpenContainer)
                raise UserError(
                    f"name the dataset of the labels; {path} has {listing(other.names())}", f"{where}.labels"
                )
            found["labels"] = labels
        elif isinstance(main, OpenContainer):
            labels = main.find(source.labels, LABEL_NAMES, f"{where}.labels")
            if labels is not None and labels.name != raw.name:
                found["labels"] = labels
        elif source.labels is not None:
            raise UserError(
                "a TIFF stack has no datasets; name the file of the labels in labels_path", f"{where}.labels"
            )
        if source.mask is not None:
            mask = _find(main, source.mask, (), f"{where}.mask")
            assert mask is not None
            found["mask"] = mask
        return found

    def _ordered(self, dataset: str, array: StoredArray, raw: StoredArray) -> OrderedArray:
        key = f"{self.where}.{dataset}"
        if len(array.array.shape) != 3:
            raise UserError(
                f"{array.name} has {len(array.array.shape)} axes {tuple(array.array.shape)}; a volume has three: z, y, x",
                key,
            )
        axes = self.source.axes or array.placement.axes or raw.placement.axes or "zyx"
        where = f"{self.where}.axes" if self.source.axes else f"{array.name}, attribute axes"
        order = zyx_order(axes, where)
        if array.reverse and self.source.axes is None and axes != "zyx":
            raise UserError(
                f"{array.name} states axes, but N5 writers list them in different orders; set axes in the config (zyx for volumes"
                " whose N5 dimensions are x, y, z)",
                f"{self.where}.axes",
            )
        return OrderedArray(array, order)

    def _check(self, dataset: str, reader: OrderedArray, raw: OrderedArray) -> None:
        key = f"{self.where}.{dataset}"
        if dataset == "raw" and reader.dtype.newbyteorder("=").name not in DTYPES["raw"]:
            raise UserError(
                f"{reader.name} is {reader.dtype.name}; raw intensities must be uint8 or uint16: scale them to 0..255 or 0..65535,"
                " without NaN, and save them as such",
                key,
            )
        if dataset == "labels" and reader.dtype.kind not in "ui":
            raise UserError(
                f"{reader.name} is {reader.dtype.name}; labels must be whole numbers, one per neurite: save them as uint32 or uint64",
                key,
            )
        if dataset == "mask" and reader.dtype.kind not in "uib":
            raise UserError(f"{reader.name} is {reader.dtype.name}; a mask must be of whole numbers or bool", key)
        if reader.shape != raw.shape:
            raise UserError(
                f"{reader.name} has {tuple(reader.shape)} voxels (z, y, x), but {raw.name} has {tuple(raw.shape)}; they must agree",
                key,
            )

    def _voxel_size(self, readers: dict[str, OrderedArray]) -> Coordinate:
        key = f"{self.where}.voxel_size"
        if self.source.voxel_size is not None:
            return Coordinate(self.source.voxel_size)
        stated = {}
        for reader in readers.values():
            size = reader.stored.placement.voxel_size
            if size is not None:
                stated[reader.name] = tuple(size[axis] for axis in reader.order)
        if not stated:
            raise UserError(
                f"{readers['raw'].name} does not say its voxel size; give it in nanometres, order z, y, x, for example [40, 4, 4]",
                key,
            )
        if len(set(stated.values())) > 1:
            told = ", ".join(f"{name}: {list(size)} nm" for name, size in stated.items())
            raise UserError(f"the datasets state different voxel sizes ({told}); set voxel_size", key)
        name, size = next(iter(stated.items()))
        return whole_nanometres(size, "voxel size", name, key)

    def _offset(self, raw: OrderedArray) -> Coordinate:
        if self.source.offset is not None:
            return Coordinate(self.source.offset)
        stated = raw.stored.placement.offset
        if stated is None:
            return Coordinate(0, 0, 0)
        return whole_nanometres([stated[axis] for axis in raw.order], "offset", raw.name, f"{self.where}.offset")


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


def _stamp(path: Path) -> list[list[Any]]:
    """Name, size and modification time of the files that tell whether a source changed."""
    if path.is_file():
        return [[path.name, *_size_and_time(path)]]
    files = _metadata_files(path) if is_container(path) else section_files(path)
    return [[str(file.relative_to(path)), *_size_and_time(file)] for file in files]


def _size_and_time(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _metadata_files(container: Path) -> list[Path]:
    """Files that describe the arrays of a zarr or N5 container; folders of chunks are not entered."""
    found = [file for name in METADATA_FILES if (file := container / name).exists()]
    if not (container / ".zarray").exists() and not _is_n5_array(container):
        for folder in sorted(item for item in container.iterdir() if item.is_dir()):
            found.extend(_metadata_files(folder))
    return found


def _is_n5_array(folder: Path) -> bool:
    attributes = folder / "attributes.json"
    return attributes.exists() and "dimensions" in json.loads(attributes.read_text())


def is_container(path: Path) -> bool:
    """Whether a folder is a zarr or N5 container."""
    return path.suffix == ".n5" or any((path / name).exists() for name in METADATA_FILES)
