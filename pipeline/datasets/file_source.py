"""File sources that are converted: open raw, labels and mask whatever their format, and refuse what is ambiguous."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..config import ChosenSections as SectionsConfig
from ..config import FileSource
from ..errors import UserError
from ..volumes.aligned import Aligned
from ..volumes.axes import choose_axes
from ..volumes.containers import Found
from ..volumes.file_arrays import FileArray, dataset_names, open_hdf5
from ..volumes.formats import IN_PLACE, Node, look
from ..volumes.links import AllowedLinks, hdf5_dataset
from ..volumes.locations import Location
from ..volumes.nanometres import three_numbers
from ..volumes.opening import Wanted, open_at
from ..volumes.placement import Placement, combined
from ..volumes.sources import Source, SourceFiles, stored_label_type
from ..volumes.stated_placement import statements
from ..volumes.tensors import read_whole
from ..volumes.volume import Volume
from .ordered import ChosenSections, ConvertedVolume
from .source import OpenDataset, OpenSource
from .stamps import stamp
from .supervoxels import STACK, TABLE, Bodies
from .tiff import open_tiff

PATHS = ("path", "labels_path", "mask_path")


@dataclass(frozen=True)
class FileOpener:
    """Opens a file source; see `SourceOpener`.

    Attributes:
        source: its config section.
        where: dotted path of that section.
        unlabelled_id: the label that means "not annotated".
        compared: whether sections in files of their own have been seen to be alike.
    """

    source: FileSource
    where: str
    unlabelled_id: int | None = None
    compared: bool = False

    def identity(self) -> dict[str, Any] | None:
        """Size and modification time of files, and of arrays of chunks what tells whether they changed; None if they
        are gone.
        """
        try:
            stamps = self.stamps(of_chunks=False)
            if all(key in stamps for key in PATHS if getattr(self.source, key) is not None):
                return stamps
            return {**stamps, "volumes": self._identities_of_chunks(stamps)}
        except (UserError, OSError, ValueError):
            return None

    def _identities_of_chunks(self, stamps: dict[str, Any]) -> dict[str, Any]:
        """Of raw, labels and mask, those that are arrays of chunks: what tells whether they changed."""
        files = SourceFiles(self.source, self.where)
        found: dict[str, Volume | None] = {}
        if "path" not in stamps:
            found["raw"] = files.raw()
        if ("labels_path" if self.source.labels_path is not None else "path") not in stamps:
            found["labels"] = files.labels(found.get("raw"))
        if ("mask_path" if self.source.mask_path is not None else "path") not in stamps:
            found["mask"] = files.mask()
        present = {name: volume for name, volume in found.items() if volume is not None}
        return {name: volume.identity(self.source.samples) for name, volume in present.items()}

    def stamps(self, of_chunks: bool) -> dict[str, Any]:
        """Name, size and modification time of the files.

        Args:
            of_chunks: also of those that describe arrays of chunks, as imports of earlier versions noted them.
        """
        found = {}
        for key in PATHS:
            text = getattr(self.source, key)
            if text is None:
                continue
            location = Location.of(text, where=f"{self.where}.{key}")
            if location.is_local and (of_chunks or not _is_chunked(location)):
                found[key] = stamp(location.file)
        return found

    @contextmanager
    def open(self) -> Iterator[OpenSource]:
        """Open raw, labels and mask.

        Raises:
            UserError: anything is missing or ambiguous.
        """
        with ExitStack() as stack:
            files = SourceFiles(self.source, self.where, _Opener(stack, self.where, self.compared))
            found = files.all()
            if self.source.sections is not None:
                found = _only_chosen(found, self.source.sections, f"{self.where}.sections", self.source.allow_links)
            yield self._opened(found)

    def _opened(self, found: Source) -> OpenSource:
        """The source as it is stored."""
        raw = found.raw
        datasets = {"raw": self._dataset("raw", raw, raw.voxel_size, raw.offset)}
        for name, part in (("labels", found.labels), ("mask", found.mask)):
            if part is not None:
                datasets[name] = self._beside(name, part, raw)
        return OpenSource(datasets, found)

    def _beside(self, name: str, part: Aligned, raw: Volume) -> OpenDataset:
        """Labels or mask with the place that they have on raw."""
        offset = (o + b * s for o, b, s in zip(raw.offset, part.begin, raw.voxel_size, strict=True))
        size = (s * f for s, f in zip(raw.voxel_size, part.factor, strict=True))
        return self._dataset(name, part.volume, three_numbers(size), three_numbers(offset))

    def _dataset(
        self,
        name: str,
        volume: Volume,
        voxel_size: tuple[float, float, float],
        offset: tuple[float, float, float],
    ) -> OpenDataset:
        dtype = self._stored_type(name, volume.dtype)
        converted = ConvertedVolume(name, volume, dtype, self.unlabelled_id, self.where)
        return OpenDataset(volume.shape, voxel_size, offset, dtype, converted.read, volume.chunks)

    def _stored_type(self, name: str, dtype: np.dtype) -> np.dtype:
        if name == "raw":
            return dtype
        return stored_label_type(dtype, self.unlabelled_id) if name == "labels" else np.dtype(np.uint8)


@dataclass(frozen=True)
class _Opener:
    """Opens volumes of every format; files are closed with the stack."""

    stack: ExitStack
    where: str
    compared: bool

    def __call__(self, location: Location, wanted: Wanted) -> Volume | None:
        if is_tiff_at(location, wanted):
            return self._tiff(location, wanted)
        if location.is_local and location.file.is_file() and look(location) is None:
            raise UserError(
                f"{location.name} is no TIFF stack, HDF5 or npy file, N5, zarr or precomputed container (or is"
                " damaged)",
                wanted.path(wanted.path_key),
            )
        volume = open_at(location, wanted)
        if volume is None:
            return None
        stored = getattr(volume.array, "stored", None)
        if isinstance(stored, h5py.Dataset):
            self.stack.callback(stored.file.close)
        return _merged(volume, wanted.links) if wanted.key == "labels" else volume

    def _tiff(self, location: Location, wanted: Wanted) -> Volume:
        key = wanted.path(wanted.key)
        if wanted.dataset is not None:
            cure = "name the file of the labels in labels_path" if wanted.key == "labels" else "leave this out"
            raise UserError(f"{location.name} is a TIFF stack and has no datasets; {cure}", key)
        opened = self.stack.enter_context(
            open_tiff(location.file, wanted.path(wanted.path_key), compared=self.compared, grey=wanted.key == "raw")
        )
        array = opened.array
        found = Found(Node(location, "tiff", True, opened.metadata))
        choice = choose_axes(array.shape, None, opened.name, axes=wanted.axes, where=wanted.where)
        chunks = (1, *array.shape[1:])
        placement = Placement(None)
        if wanted.placed:
            placement = combined(
                statements(found, choice),
                opened.name,
                voxel_size=wanted.voxel_size,
                offset=wanted.offset,
                where=wanted.where,
            )
        return Volume(FileArray(array, choice, chunks, opened.name), placement, found, choice, tuple(array.shape))


def open_file(location: Location, wanted: Wanted, stack: ExitStack) -> Volume | None:
    """Open a volume of any format, TIFF too, as `open_at` does; files are closed with the stack."""
    return _Opener(stack, wanted.where, compared=False)(location, wanted)


def is_tiff_at(location: Location, wanted: Wanted) -> bool:
    """Whether a location is a TIFF file, or a folder that is no container: of TIFF files, then."""
    if not location.is_local or not location.file.exists():
        return False
    node = look(location, wanted.format)
    if location.file.is_dir():
        plain = node is None and wanted.dataset is None
        return plain and not any(look(location.child(name)) is not None for name in wanted.candidates)
    if node is None and location.file.suffix.lower() in (".tif", ".tiff"):
        return True
    return node is not None and node.format == "tiff"


def _is_chunked(location: Location) -> bool:
    node = look(location)
    if node is not None:
        return node.format in IN_PLACE
    return any(look(location.child(name)) is not None for name in ("raw", "labels", "volumes"))


def _merged(labels: Volume, links: AllowedLinks) -> Volume:
    """Labels, or their bodies if they are supervoxels and a table that merges them lies beside them."""
    location = labels.found.array.location
    if location.path.rpartition("/")[2] != STACK or location.parent is None:
        return labels
    if isinstance(labels.array, FileArray):
        table = None
        if labels.found.array.format == "hdf5":
            stored = labels.array.stored
            path = f"{stored.name.rpartition('/')[0]}/{TABLE}"
            table = hdf5_dataset(stored.file, path, Path(stored.file.filename), links)
        if table is None:
            return labels
        bodies = Bodies.of(labels.array.stored, np.asarray(table[:]), labels.name)
        return replace(labels, array=replace(labels.array, stored=bodies))
    node = look(location.parent.child(TABLE), labels.found.array.format)
    if node is None:
        return labels
    return replace(labels, array=_MergedArray(labels.array, Bodies.of(labels.array, read_whole(node), labels.name)))


@dataclass(frozen=True)
class _MergedArray:
    """Supervoxels of an array of chunks that are merged into bodies as they are read; see `VoxelArray`."""

    array: Any
    bodies: Bodies

    shape = property(lambda self: self.array.shape)
    dtype = property(lambda self: self.bodies.dtype)
    chunks = property(lambda self: self.array.chunks)
    shards = property(lambda self: self.array.chunks)

    def read(self, box: Any) -> np.ndarray:
        """The bodies of a box."""
        return self.bodies.merged(self.array.read(box))

    def write(self, box: Any, data: np.ndarray) -> None:
        """Sources are only read."""
        raise ValueError("supervoxels are opened to be read only")


def _only_chosen(found: Source, wanted: SectionsConfig, where: str, allow_links: tuple[str, ...]) -> Source:
    chosen = chosen_sections(found.raw, wanted, where, allow_links)

    def cut(volume: Volume) -> Volume:
        return replace(volume, array=ChosenSections(volume.array, chosen))

    def cut_part(part: Aligned | None) -> Aligned | None:
        if part is None:
            return None
        if part.volume.shape != found.raw.shape:
            raise UserError(f"{part.volume.name} must cover all of raw, so that its sections can be chosen", where)
        return replace(part, volume=cut(part.volume), raw=raw)

    raw = cut(found.raw)
    return Source(raw, cut_part(found.labels), cut_part(found.mask))


def chosen_sections(raw: Volume, wanted: SectionsConfig, where: str, allow_links: tuple[str, ...] = ()) -> np.ndarray:
    """The numbers of the sections to import, (n,) int64, ascending.

    Args:
        raw: the intensities, whose sections are listed beside it.
        wanted: the list of numbers in the same container, and the number that counts.
        where: dotted path of the config section.
        allow_links: of the source.

    Raises:
        UserError: there is no such list, it does not fit, or no section has the number.
    """
    key = f"{where}.dataset"
    numbers = _numbers(raw, wanted.dataset, key, AllowedLinks(allow_links, where.rpartition(".")[0]))
    if numbers.shape != (raw.shape[0],) or numbers.dtype.kind not in "uib":
        raise UserError(
            f"{wanted.dataset} is {numbers.dtype.name} of shape {tuple(numbers.shape)}; expected one whole "
            f"number for each of the {raw.shape[0]} sections of {raw.name}",
            key,
        )
    chosen = np.flatnonzero(numbers == wanted.equals)
    if len(chosen) == 0:
        present = ", ".join(str(number) for number in np.unique(numbers)[:10])
        raise UserError(f"no section has the number {wanted.equals}; {wanted.dataset} has {present}", f"{where}.equals")
    return chosen


def _numbers(raw: Volume, dataset: str, key: str, links: AllowedLinks) -> np.ndarray:
    """An array of the container that holds raw."""
    node = raw.found.array
    if node.format == "hdf5":
        path = raw.found.groups[-1][0].location.file
        with open_hdf5(path, key) as file:
            array = hdf5_dataset(file, dataset, path, links)
            if isinstance(array, h5py.Dataset):
                return np.asarray(array[:])
            names = ", ".join(name for name, _ in zip(dataset_names(file), range(10), strict=False))
        raise UserError(f"{path} has no dataset {dataset!r}; it has {names}", key)
    if node.format not in IN_PLACE:
        raise UserError(f"{raw.name} is a TIFF stack and has no datasets that could choose sections", key)
    for group, _ in raw.found.groups:
        found = look(group.location.child(dataset), node.format)
        if found is not None and found.is_array:
            return read_whole(found)
    raise UserError(f"{raw.name} has no dataset {dataset!r} beside it", key)
