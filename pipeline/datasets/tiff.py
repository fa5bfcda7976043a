"""TIFF stacks: one file with a page per section, or a folder with a numbered file per section."""

from __future__ import annotations

import itertools
import logging
import math
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from ..errors import UserError
from ..small_files import NOT_UNDERSTOOD
from ..units import by

SUFFIXES = (".tif", ".tiff")
SLAB_IN_MEMORY = 256 * 2**20
"""Decoded sections beyond this many bytes are kept in a temporary file instead of memory."""
DAMAGED: tuple[type[Exception], ...] = (
    *NOT_UNDERSTOOD,
    tifffile.TiffFileError,
    OSError,
    RuntimeError,
    MemoryError,
    zlib.error,
)
"""What tifffile raises for files that are no TIFF or not all there."""


@dataclass(frozen=True)
class StoredArray:
    """An array as a file holds it.

    Attributes:
        array: indexable like a numpy array, with `shape` and `dtype`.
        name: the file, for messages.
        metadata: what the file says about its voxel size, as `volumes.dialects.tiff` reads it.
    """

    array: Any
    name: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


def read_stored(array: Any, index: tuple[slice, ...], name: str) -> np.ndarray:
    """Read a part of a stored array.

    Raises:
        UserError: it cannot be read, because the file is damaged, say.
    """
    try:
        return np.asarray(array[index])
    except (UserError, MemoryError):
        raise
    except Exception as error:  # every compression raises kinds of its own
        begin, end = [s.start for s in index], [s.stop for s in index]
        raise UserError(f"the voxels from {begin} to {end} cannot be read: {error}", name) from error


@dataclass
class Sections:
    """Sections that are decoded one by one; those of the slab read last are kept.

    Blocks are read slab by slab, and every block of a slab needs part of the same sections: each section is decoded
    once.

    Attributes:
        shape: (z, y, x).
        dtype: type of the voxels.
        load: the section of a number, (y, x).
    """

    shape: tuple[int, int, int]
    dtype: np.dtype
    load: Callable[[int], np.ndarray]
    _kept: range = field(default=range(0), repr=False)
    _slab: np.ndarray | None = field(default=None, repr=False)

    def __getitem__(self, index: tuple[slice, slice, slice]) -> np.ndarray:
        """The voxels of a box; slices need a start and a stop."""
        wanted = range(index[0].start, index[0].stop)
        if self._slab is None or wanted.start < self._kept.start or wanted.stop > self._kept.stop:
            self._slab = self._allocate(len(wanted))
            for position, section in enumerate(wanted):
                self._slab[position] = self.load(section)
            self._kept = wanted
        first = wanted.start - self._kept.start
        return np.array(self._slab[first : first + len(wanted), index[1], index[2]])

    def _allocate(self, sections: int) -> np.ndarray:
        shape = (sections, *self.shape[1:])
        if math.prod(shape) * self.dtype.itemsize <= SLAB_IN_MEMORY:
            return np.empty(shape, self.dtype)
        return np.memmap(tempfile.TemporaryFile(), self.dtype, "w+", shape=shape)


def is_tiff(path: Path) -> bool:
    """Whether a file is named like a TIFF file."""
    return path.suffix.lower() in SUFFIXES


@contextmanager
def open_tiff(path: Path, where: str, images: bool = False, compared: bool = False) -> Iterator[StoredArray]:
    """Open a multi-page file or a folder of numbered files as one array.

    Args:
        path: the file or folder.
        where: dotted config path, for messages.
        images: a file of a single page is a stack of one section.
        compared: that the files of a folder are alike has been seen before, and is looked at again only as each is
            read.

    Raises:
        UserError: it is no stack of grey sections of one size, or the numbering of the files is not beyond doubt.
    """
    if path.is_dir():
        yield _open_folder(path, where, compared)
        return
    with ExitStack() as stack:
        try:
            with logged_errors_raised():
                file = stack.enter_context(tifffile.TiffFile(path))
                opened = _open_pages(file, path, where, images)
        except DAMAGED as error:
            raise UserError(f"{path} cannot be opened as TIFF: {error}", where) from None
        yield opened


@contextmanager
def logged_errors_raised() -> Iterator[None]:
    """Raise what tifffile only logs: it takes a stack whose end is cut off for a shorter one.

    Raises:
        ValueError: tifffile logged an error within the context.
    """
    messages: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tifffile")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
    if messages:
        raise ValueError(messages[0])


def section_files(folder: Path) -> list[Path]:
    """The TIFF files of a folder in the order of their names."""
    return sorted(file for file in folder.iterdir() if is_tiff(file) and not file.name.startswith("."))


def numbered_sections(folder: Path, where: str) -> list[Path]:
    """The TIFF files of a folder in the order of their numbers.

    Raises:
        UserError: there are none, or their numbers are in doubt: several that differ, duplicates, different widths,
        gaps.
    """
    files = section_files(folder)
    if not files:
        raise UserError(f"{folder} holds no TIFF files (*.tif, *.tiff), and is no zarr or N5 container", where)
    numbers = dict(zip(files, _counting_numbers(files, folder, where), strict=True))
    _require_one_each(numbers, folder, where)
    _require_one_width(numbers, folder, where)
    _require_no_gaps(numbers, folder, where)
    return sorted(files, key=lambda file: int(numbers[file]))


def _counting_numbers(files: Sequence[Path], folder: Path, where: str) -> list[str]:
    """For each file the number in its name that counts the sections: the only one that differs between the files."""
    parts = [re.split(r"(\d+)", file.stem) for file in files]
    texts = {tuple(part[::2]) for part in parts}
    if len(texts) > 1:
        first, second = ("<number>".join(text) for text in sorted(texts)[:2])
        raise UserError(f"{folder} mixes files of several names ({first}, {second}); keep one stack per folder", where)
    columns = list(zip(*(part[1::2] for part in parts), strict=True))
    if not columns:
        raise UserError(f"{files[0].name} in {folder} has no section number; name the files like z0001.tif", where)
    counting = [column for column in columns if len(set(column)) > 1] or columns[-1:]
    if len(counting) > 1:
        raise UserError(
            f"several numbers differ between the names in {folder} (as in {files[0].name}, {files[-1].name}); leave"
            " only the section number",
            where,
        )
    return list(counting[0])


def _require_one_each(numbers: Mapping[Path, str], folder: Path, where: str) -> None:
    seen: dict[int, Path] = {}
    for file, number in numbers.items():
        if int(number) in seen:
            other = seen[int(number)].name
            raise UserError(f"section {int(number)} exists twice in {folder}: {other} and {file.name}", where)
        seen[int(number)] = file


def _require_one_width(numbers: Mapping[Path, str], folder: Path, where: str) -> None:
    """Numbers that are not padded sort differently by name and by value: tools disagree about their order."""
    shortest = min(numbers, key=lambda file: len(numbers[file]))
    longest = max(numbers, key=lambda file: len(numbers[file]))
    if len(numbers[shortest]) != len(numbers[longest]):
        raise UserError(
            f"the section numbers in {folder} differ in width ({shortest.name}, {longest.name}), so that their order"
            f" is in doubt; pad them with zeros to {len(numbers[longest])} digits",
            where,
        )


def _require_no_gaps(numbers: Mapping[Path, str], folder: Path, where: str) -> None:
    present = sorted(int(number) for number in numbers.values())
    gap = next((a + 1 for a, b in itertools.pairwise(present) if b != a + 1), None)
    if gap is not None:
        raise UserError(
            f"section {gap} is missing in {folder} ({len(present)} files, numbers {present[0]} to {present[-1]}); add"
            " it (blank if it is lost), or renumber",
            where,
        )


def _open_folder(folder: Path, where: str, compared: bool) -> StoredArray:
    files = numbered_sections(folder, where)
    shape, dtype = _section_type(files[0], where)

    def require_alike(file: Path, other: tuple[tuple[int, ...], np.dtype]) -> None:
        if other != (shape, dtype):
            raise UserError(
                f"{file} is {_section_format(*other)}, but {files[0].name} is {_section_format(shape, dtype)}; "
                "sections must be alike",
                where,
            )

    def load(section: int) -> np.ndarray:
        loaded: np.ndarray = tifffile.imread(files[section])
        require_alike(files[section], (loaded.shape, loaded.dtype))
        return loaded

    for file in files[1:] if not compared else []:
        require_alike(file, _section_type(file, where))
    return StoredArray(Sections((len(files), *shape), dtype, load), str(folder))


def _section_type(file: Path, where: str) -> tuple[tuple[int, int], np.dtype]:
    try:
        with tifffile.TiffFile(file) as opened:
            pages, page = len(opened.pages), opened.pages[0]
            shape, dtype = page.shape, page.dtype
    except DAMAGED as error:
        raise UserError(f"{file} cannot be opened as TIFF: {error}", where) from None
    if pages != 1 or len(shape) != 2 or dtype is None:
        raise UserError(f"{file} must hold one grey section, but has {pages} pages of shape {shape}", where)
    return (int(shape[0]), int(shape[1])), np.dtype(dtype)


def _open_pages(file: tifffile.TiffFile, path: Path, where: str, images: bool) -> StoredArray:
    series = file.series
    if len(series) > 1 and _are_sections(series):
        height, width = series[0].shape
        sections = Sections((len(series), height, width), np.dtype(series[0].dtype), lambda z: series[z].asarray())
        return StoredArray(sections, str(path), _metadata(file))
    if len(series) != 1:
        shapes = ", ".join(str(tuple(s.shape)) for s in series[:4])
        raise UserError(
            f"{path} holds {len(series)} images of different kinds ({shapes}); a stack has pages of one size", where
        )
    stack = series[0]
    shape = (1, *stack.shape) if images and len(stack.shape) == 2 else tuple(stack.shape)
    if len(shape) != 3 or "S" in stack.axes or stack.dtype is None:
        raise UserError(
            f"{path} has shape {tuple(stack.shape)} (axes {stack.axes}); a stack of grey sections has three axes: z,"
            " y, x",
            where,
        )
    return StoredArray(_page_array(stack, shape, path, where), str(path), _metadata(file))


def _are_sections(series: Sequence[tifffile.TiffPageSeries]) -> bool:
    """Whether a file holds sections that tifffile wrote one by one, each with a description of its own."""
    first = series[0]
    return len(first.shape) == 2 and all(
        each.kind == "shaped" and (each.shape, each.dtype, each.axes) == (first.shape, first.dtype, first.axes)
        for each in series
    )


def _page_array(
    stack: tifffile.TiffPageSeries, shape: tuple[int, ...], path: Path, where: str
) -> np.ndarray | Sections:
    if stack.dataoffset is not None and stack.parent is not None:
        dtype = np.dtype(stack.parent.byteorder + np.dtype(stack.dtype).char)
        return np.memmap(path, dtype, "r", offset=stack.dataoffset, shape=shape)
    pages = list(stack.pages)
    depth, height, width = shape
    if len(pages) != depth:
        what = f"{path} has {depth} sections, but {len(pages)} page{'s' if len(pages) > 1 else ''}"
        raise UserError(f"{what}; save it with a page per section", where)

    def read_section(section: int) -> np.ndarray:
        page = pages[section]
        assert page is not None
        return page.asarray()

    return Sections((depth, height, width), np.dtype(stack.dtype), read_section)


def _metadata(file: tifffile.TiffFile) -> dict[str, Any]:
    """What the file says about its voxel size."""
    tags = file.pages.first.tags
    names = {"y_resolution": "YResolution", "x_resolution": "XResolution"}
    told: dict[str, Any] = {key: tags[name].value for key, name in names.items() if name in tags}
    return {**told, "ome": file.ome_metadata, "imagej": file.imagej_metadata}


def _section_format(shape: tuple[int, ...], dtype: np.dtype) -> str:
    return f"{by(shape)} {dtype.name}"
