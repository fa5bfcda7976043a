"""Where neuroglancer reads a volume itself: the URL of its files, and their place in the world.

Volumes lie at whole voxels of raw. neuroglancer places a level of OME-NGFF by the centre of its first voxel; the runs
of this program and most of EM mean its corner, so the difference is stated with the layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import neuroglancer

from ..volumes import RunVolume
from ..volumes.aligned import Labels
from ..volumes.containers import multiscales_of
from ..volumes.dialects import ngff
from ..volumes.locations import Location
from ..volumes.nanometres import Nanometres
from ..volumes.placement import Placement, combined
from ..volumes.readable import Readable
from ..volumes.stated_placement import statements
from ..volumes.volume import Volume
from .serving import RunViewer

SPACE = "zyx"
PRECOMPUTED = "neuroglancer-precomputed"
INTEGERS = ("uint8", "uint16", "uint32", "uint64")
SHOWN_TYPES = (*INTEGERS, "int8", "int16", "int32", "float32")
"""Types of voxels that neuroglancer draws."""


@dataclass(frozen=True)
class Files:
    """The files of a volume.

    Attributes:
        location: of the array, or of the pyramid around it.
        container: that its files lie in, if they are on this machine.
        format: `zarr3`, `zarr2`, `n5` or `PRECOMPUTED`: the client's word for it.
        axes: one letter per axis, in neuroglancer's order.
        stated: the place that neuroglancer reads from their metadata; None if it reads none.
        centred: it takes the stated offset for that of the first voxel's centre.
        begin: of labels that cover a part of raw, their first voxel, in raw's.
        has_lengths: whether neuroglancer reads from their metadata how long voxels are; else it takes them to be 1.
    """

    location: Location
    container: Location
    format: str
    axes: str
    stated: Placement | None = None
    centred: bool = False
    begin: tuple[int, ...] = (0, 0, 0)
    has_lengths: bool = False


class NotReadable(Exception):
    """Why neuroglancer cannot read a volume itself."""


def files_of(volume: Readable) -> Files:
    """The files of a volume that neuroglancer can read.

    Raises:
        NotReadable: it cannot; says why.
    """
    if isinstance(volume, Labels):
        return _files_of_labels(volume)
    if volume.dtype.name not in SHOWN_TYPES:
        raise NotReadable(f"its type is {volume.dtype.name}")
    if isinstance(volume, RunVolume):
        return _files_of_run(volume)
    if isinstance(volume, Volume):
        return _files_in_place(volume)
    raise NotReadable("it is no array of chunks")


def source_at(
    viewer: RunViewer, files: Files, name: str, voxel_size: Sequence[float], first: Sequence[int], channels: bool
) -> neuroglancer.LayerDataSource:
    """What a layer reads.

    Args:
        viewer: hands out files of this machine.
        files: of the volume.
        name: of the layer.
        voxel_size: nanometres, z, y, x.
        first: where its first voxel is to lie, counted in its voxels from 0 nm.
        channels: whether the first axis counts them.

    Raises:
        NotReadable: neuroglancer would show it elsewhere.
    """
    url = f"{url_of(viewer, files, name)}/|{files.format}:"
    first = [f + b for f, b in zip(first, files.begin, strict=True)]
    if files.format == PRECOMPUTED:
        return _unmoved(url, files, voxel_size, first)
    shift = [float(f) for f in first]
    if files.stated is not None:
        stated = files.stated.offset
        shift = [f - o / s + files.centred / 2 for f, o, s in zip(first, stated, voxel_size, strict=True)]
    letters = ("c" if channels else "") + SPACE
    unit = {} if files.has_lengths else {axis: size * 1e-9 for axis, size in zip(SPACE, voxel_size, strict=True)}
    matrix = [[unit.get(axis, 1.0) * (letter == axis) for axis in files.axes] for letter in letters]
    moved = [
        [*row, (shift[SPACE.index(letter)] if letter in SPACE else 0.0)]
        for row, letter in zip(matrix, letters, strict=True)
    ]
    transform = neuroglancer.CoordinateSpaceTransform(
        output_dimensions=_dimensions([letter if letter != "c" else "c^" for letter in letters], letters, voxel_size),
        matrix=moved,
    )
    return neuroglancer.LayerDataSource(url=url, transform=transform)


def url_of(viewer: RunViewer, files: Files, name: str) -> str:
    """The URL of files, on this machine through the viewer's server.

    Raises:
        NotReadable: whoever has the page would see what must not be shown.
    """
    location = files.location
    if location.is_local:
        return viewer.serve(name, location.file, files.container.file)
    if location.account or location.query:
        raise NotReadable("its URL holds a password or signature, which stays here")
    return location.name


def _files_of_run(volume: RunVolume) -> Files:
    array = volume.array
    axes = ("c" if volume.channels is not None else "") + SPACE
    if array.format == 2:
        return Files(array.location, array.location, "zarr2", axes)
    pyramid = array.location.parent
    assert pyramid is not None, "an array lies in a group"
    return Files(pyramid, pyramid, "zarr3", axes, Placement(volume.voxel_size, volume.offset), True, has_lengths=True)


def _files_of_labels(labels: Labels) -> Files:
    aligned = labels.aligned
    if any(factor != 1 for factor in aligned.factor):
        raise NotReadable("its voxels are larger than those of raw")
    if labels.unlabelled_id not in (None, 0):
        raise NotReadable("voxels that are not annotated have an id")
    if aligned.volume.dtype.name not in INTEGERS:
        raise NotReadable(f"its type is {aligned.volume.dtype.name}")
    return replace(files_of(aligned.volume), begin=tuple(aligned.begin))


def _files_in_place(volume: Volume) -> Files:
    node, choice = volume.found.array, volume.choice
    container = volume.found.groups[-1][0].location if volume.found.groups else node.location
    if node.format == "precomputed":
        if volume.found.level not in (None, 0):
            raise NotReadable("it is a coarser level")
        return Files(node.location, container, PRECOMPUTED, "xyz", _stated(volume))
    if node.format not in ("zarr2", "zarr3", "n5"):
        raise NotReadable(f"{node.format} has no chunks that a browser can read")
    if choice.fixed or choice.channels is not None or sorted(choice.axes) != sorted(SPACE):
        raise NotReadable(f"its axes are {choice.axes}")
    axes = choice.axes[::-1] if node.format == "n5" else choice.axes
    alone = Files(node.location, container, node.format, axes)
    if node.format == "n5":
        stated = _stated(volume)
        if stated.voxel_size is not None and not _close(stated.voxel_size, volume.voxel_size):
            raise NotReadable("the config gives it another voxel size")
        return replace(alone, has_lengths=stated.voxel_size is not None)
    if not volume.found.groups:
        return alone
    group, inside = volume.found.groups[0]
    for multiscale in multiscales_of(group)[:1]:
        level = ngff.level_of(multiscale, inside)
        if level is None or level is not multiscale["datasets"][0]:
            continue
        stated = combined(ngff.statements(multiscale, level), volume.name, required=False)
        if stated.voxel_size is not None and _close(stated.voxel_size, volume.voxel_size):
            return replace(alone, location=group.location, stated=stated, centred=True, has_lengths=True)
    return alone


def _stated(volume: Volume) -> Placement:
    return combined(statements(volume.found, volume.choice), volume.name, required=False)


def _unmoved(url: str, files: Files, voxel_size: Sequence[float], first: Sequence[int]) -> neuroglancer.LayerDataSource:
    """A source that lies where its metadata say, if that is where it is to lie."""
    stated = files.stated
    if stated is None or stated.voxel_size is None or not _close(stated.voxel_size, voxel_size):
        raise NotReadable("the config gives it another voxel size")
    if any(abs(o / s - f) > 1e-3 for o, s, f in zip(stated.offset, voxel_size, first, strict=True)):
        raise NotReadable("the config or its metadata place it between voxels, or elsewhere")
    return neuroglancer.LayerDataSource(url=url)


def _close(one: Nanometres, other: Sequence[float]) -> bool:
    return all(abs(a - b) <= 1e-6 * abs(b) for a, b in zip(one, other, strict=True))


def _dimensions(names: Sequence[str], axes: str, voxel_size: Sequence[float]) -> neuroglancer.CoordinateSpace:
    """Axes with their lengths in nanometres; channels have none."""
    sizes = dict(zip(SPACE, voxel_size, strict=True))
    return neuroglancer.CoordinateSpace(
        names=list(names),
        units=["nm" if axis in SPACE else "" for axis in axes],
        scales=[sizes.get(axis, 1) for axis in axes],
    )
