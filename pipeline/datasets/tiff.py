"""TIFF stacks: one file with a page per section, or a folder with a numbered file per section."""

from __future__ import annotations

import logging
import math
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
from .section_files import numbered_sections

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


@contextmanager
def open_tiff(
    path: Path, where: str, *, images: bool = False, compared: bool = False, grey: bool = False
) -> Iterator[StoredArray]:
    """Open a multi-page file or a folder of numbered files as one array.

    Args:
        path: the file or folder.
        where: dotted config path, for messages.
        images: a file of a single page is a stack of one section.
        compared: that the files of a folder are alike has been seen before, and is looked at again only as each is
            read.
        grey: numbers are grey values, larger ones brighter; of labels they are ids, whatever colours they are shown in.

    Raises:
        UserError: it is no stack of grey sections of one size, or the numbering of the files is not beyond doubt.
    """
    if path.is_dir():
        yield _open_folder(path, where, compared, grey)
        return
    with ExitStack() as stack:
        try:
            with logged_errors_raised():
                file = stack.enter_context(tifffile.TiffFile(path))
                opened = _open_pages(file, path, where, images)
                if grey:
                    _require_grey(file.pages.first, path, where)
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


def _open_folder(folder: Path, where: str, compared: bool, grey: bool) -> StoredArray:
    files = numbered_sections(folder, where)
    shape, dtype = _section_type(files[0], where, grey)

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
        require_alike(file, _section_type(file, where, grey))
    return StoredArray(Sections((len(files), *shape), dtype, load), str(folder))


def _section_type(file: Path, where: str, grey: bool) -> tuple[tuple[int, int], np.dtype]:
    try:
        with tifffile.TiffFile(file) as opened:
            pages, page = len(opened.pages), opened.pages.first
            shape, dtype = page.shape, page.dtype
            if grey:
                _require_grey(page, file, where)
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


def _require_grey(page: tifffile.TiffPage, path: Path, where: str) -> None:
    """Refuse numbers that are no brightness: nothing further on would notice."""
    is_stated = "PhotometricInterpretation" in page.tags  # tifffile has MINISWHITE where nothing is
    if is_stated and page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        raise UserError(f"{path} says that 0 is white (MINISWHITE); invert it, and save it so that 0 is black", where)
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE and not _is_ramp(page.colormap):
        raise UserError(f"the numbers in {path} are colours of a palette; save it in grey", where)


def _is_ramp(palette: np.ndarray | None) -> bool:
    """Whether a palette, (3, colours) of red, green and blue, goes from black to white in equal steps."""
    if palette is None:
        return False
    return bool((np.ptp(palette, axis=0) == 0).all() and np.ptp(np.diff(palette[0].astype(int))) <= 1)


def _metadata(file: tifffile.TiffFile) -> dict[str, Any]:
    """What the file says about its voxel size."""
    tags = file.pages.first.tags
    names = {"y_resolution": "YResolution", "x_resolution": "XResolution"}
    told: dict[str, Any] = {key: tags[name].value for key, name in names.items() if name in tags}
    return {**told, "ome": file.ome_metadata, "imagej": file.imagej_metadata}


def _section_format(shape: tuple[int, ...], dtype: np.dtype) -> str:
    return f"{by(shape)} {dtype.name}"
