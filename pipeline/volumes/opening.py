"""Open a volume of any format at any place, as the metadata and the config describe it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from ..small_files import understanding
from .axes import AxisChoice, choose_axes
from .codecs import refuse_compressed_files
from .containers import Found, find_array, only_array
from .dialects.precomputed import scale_of
from .file_arrays import UNCHUNKED, FileArray, Image, dataset_names, find_in_hdf5, open_hdf5, open_npy
from .formats import IN_PLACE, Format, Node, look, require
from .links import AllowedLinks, own_files
from .locations import Location
from .placement import Placement, combined
from .stated_placement import stated_axes, statements, stored_shape
from .tensors import open_tensor
from .volume import Volume, VoxelArray


@dataclass(frozen=True)
class Wanted:
    """What the config says about an array; everything else is taken from its metadata.

    Attributes:
        dataset: path inside the container; None to look for a customary one.
        candidates: customary paths.
        only: if there is no candidate, the only array of the container.
        format: of the container.
        level: of a pyramid: number or path. Default: the finest.
        axes: one letter per stored axis, C order.
        channel, time: which one, if there are several.
        keep_channels: all channels, as the first axis.
        voxel_size, offset: nanometres, order z, y, x.
        placed: the voxel size must be known.
        images: an array of two axes is one section; where it lies in a volume is not known.
        where: dotted path of the config section.
        key: the key in that section that names the dataset.
        path_key: the key in that section that names the location.
        allow_links: files and folders that links may lead to.
    """

    dataset: str | None = None
    candidates: tuple[str, ...] = ()
    only: bool = False
    format: Format | None = None
    level: int | str | None = None
    axes: str | None = None
    channel: int | None = None
    time: int | None = None
    keep_channels: bool = False
    voxel_size: Sequence[float] | None = None
    offset: Sequence[float] | None = None
    placed: bool = True
    images: bool = False
    where: str = ""
    key: str = "raw"
    path_key: str = "path"
    allow_links: tuple[str, ...] = ()

    @property
    def links(self) -> AllowedLinks:
        """Where links may lead."""
        return AllowedLinks(self.allow_links, self.where)

    def path(self, key: str) -> str:
        """Dotted path of a key of the section."""
        return f"{self.where}.{key}" if self.where else ""


def open_at(location: Location, wanted: Wanted | None = None) -> Volume | None:
    """Open the volume at a location; TIFF is read elsewhere.

    Args:
        location: of a container or an array.
        wanted: what the config says.

    Returns:
        None if no dataset is named and no customary one exists.

    Raises:
        StorageUnavailable: the server does not answer.
        UserError: there is no such array, or its format, codec, axes or place are not understood.
    """
    with understanding(location.name, "correct it, or write the array again"):
        return _opened(location, wanted or Wanted())


def _opened(location: Location, wanted: Wanted) -> Volume | None:
    """As `open_at`; whatever is wrong with what the metadata say may raise anything."""
    node = _container(location, wanted)
    if node.format in IN_PLACE:
        return _open_in_place(node, wanted)
    if node.format == "hdf5":
        return _open_hdf5(node, wanted)
    if node.format == "npy":
        return _open_npy(node, wanted)
    raise UserError(f"{node.name} is a TIFF stack, which is converted before it is read", wanted.path(wanted.path_key))


def _container(location: Location, wanted: Wanted) -> Node:
    """What lies at a location; a folder that says nothing is a group if the array that is named lies in it."""
    node = look(location, wanted.format)
    if node is None and wanted.dataset is not None and not (location.is_local and location.file.is_file()):
        inside = look(location.child(wanted.dataset), wanted.format)
        node = Node(location, inside.format, is_array=False) if inside is not None else None
    return node or require(location, wanted.format, wanted.path(wanted.path_key))


def _open_in_place(node: Node, wanted: Wanted) -> Volume | None:
    key = wanted.path(wanted.key)
    level_key = wanted.path("level")
    found = find_array(node, wanted.dataset, wanted.candidates, level=wanted.level, where=key, level_where=level_key)
    if found is None and wanted.only:
        found = only_array(node, key)
    if found is None:
        return None
    scale = None
    if node.format == "precomputed":
        scale, said = scale_of(found.array.metadata, found.level or 0, found.name, level_key)
        location = found.array.location
        if location.is_local:
            refuse_compressed_files(location.file / str(said.get("key")), found.name, wanted.path(wanted.path_key))
    stored = stored_shape(found)
    choice, shape = _read_as(found, stored, wanted)
    array: VoxelArray = open_tensor(found.array, choice, scale)
    if node.location.is_local:
        array = own_files(array, found, choice, shape, node.location.file, wanted.links)
    return Volume(array, _placed(found, choice, wanted, stored), found, choice, shape)


def _open_hdf5(node: Node, wanted: Wanted) -> Volume | None:
    key = wanted.path(wanted.key)
    file = open_hdf5(node.location.file, wanted.path(wanted.path_key))
    found = find_in_hdf5(file, node.location, wanted.dataset, wanted.candidates, key, wanted.links)
    if found is None and wanted.only:
        first_two = [name for name, _ in zip(dataset_names(file), range(2), strict=False)]
        found = find_in_hdf5(file, node.location, first_two[0], (), key, wanted.links) if len(first_two) == 1 else None
    if found is None:
        return None
    array = file[found.groups[-1][1]]
    return _of_file(array, array.chunks, found, wanted)


def _open_npy(node: Node, wanted: Wanted) -> Volume:
    if wanted.dataset is not None:
        raise UserError(f"{node.name} is one array and has no datasets; leave it out", wanted.path(wanted.key))
    return _of_file(open_npy(node.location.file), None, Found(node), wanted)


def _of_file(array: Any, chunks: tuple[int, ...] | None, found: Found, wanted: Wanted) -> Volume:
    choice, shape = _read_as(found, array.shape, wanted)
    placement = _placed(found, choice, wanted, array.shape)
    chunks = chunks or tuple(min(UNCHUNKED, extent) for extent in array.shape)
    if len(array.shape) < len(shape):
        array, chunks = Image(array), (1, *chunks)
    return Volume(FileArray(array, choice, chunks, found.name), placement, found, choice, shape)


def _read_as(found: Found, shape: tuple[int, ...], wanted: Wanted) -> tuple[AxisChoice, tuple[int, ...]]:
    """How an array is read, and its shape; that of an image begins with an axis of one section."""
    stated = stated_axes(found, shape, wanted.path("axes")) if wanted.images else None
    if wanted.images and len(shape) > 3 and stated is None:
        raise UserError(
            f"{found.name} has {len(shape)} axes {tuple(shape)}, and which of them is which is not said; an image has"
            " two, a volume three"
        )
    if wanted.images and len(shape) == 2:
        as_section = (1, *shape)
        return choose_axes(as_section, f"z{stated}" if stated else None, found.name), as_section
    return _choice(found, shape, wanted), shape


def _choice(found: Found, shape: Sequence[int], wanted: Wanted) -> AxisChoice:
    stated = None if wanted.axes is not None else stated_axes(found, shape, wanted.path("axes"))
    return choose_axes(
        shape,
        stated,
        found.name,
        axes=wanted.axes,
        channel=wanted.channel,
        time=wanted.time,
        keep_channels=wanted.keep_channels,
        where=wanted.where,
    )


def _placed(found: Found, choice: AxisChoice, wanted: Wanted, stored: tuple[int, ...]) -> Placement:
    """Where an array of a stored shape lies; of an image, that is not known."""
    if wanted.images and len(stored) == 2:
        return Placement(None)
    if not wanted.placed and wanted.voxel_size is None:
        try:
            return combined(statements(found, choice), found.name, required=False)
        except UserError:  # who does not need the place need not mend it
            return Placement(None)
    return combined(
        statements(found, choice),
        found.name,
        voxel_size=wanted.voxel_size,
        offset=wanted.offset,
        where=wanted.where,
    )
