"""Skeletons from files: SWC, NML of WEBKNOSSOS and KNOSSOS, npz, and neuroglancer's precomputed skeletons."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import psutil

from ..errors import UserError
from ..small_files import DamagedFile, understanding
from ..units import disk_size
from ..volumes.dialects.units import nanometres_per
from ..volumes.locations import Location
from .precomputed_skeletons import is_precomputed, read_precomputed
from .skeletons import Skeletons

Scale = tuple[float, float, float]
"""Nanometres of a unit of the positions, z, y, x."""

EXPECTED = (
    "expected an SWC file or a folder of them, an NML file, an npz file, or a folder or URL of precomputed skeletons"
)
COLUMNS_OF_SWC = 7
COPIES = 3
"""Times that the arrays of an npz file are in memory at once: as stored, in order, and as the types that count."""
FARTHEST = 1e15
"""Nanometres; what lies farther away was never imaged, and its voxels could not be counted."""


def open_skeletons(place: str | Path, scale: Scale | None = None) -> Skeletons:
    """Read skeletons, whatever they are stored as.

    Args:
        place: an SWC file (one skeleton) or a folder of them; an NML file (a skeleton per `thing`); an npz file, see
            `read_npz`; a folder or URL of precomputed skeletons, or of a precomputed segmentation that names some.
        scale: nanometres of a unit of the positions. Default: what the file says; SWC and npz say nothing and count
            nanometres.

    Raises:
        StorageUnavailable: a server does not answer.
        UserError: there is no such file, it is no such thing, or it holds no edge.
    """
    location = Location.of(place)
    with np.errstate(over="ignore", invalid="ignore"):  # of positions that are refused here
        skeletons = _read(location, scale)
    if not np.isfinite(skeletons.positions).all():
        raise UserError("a node has a position that is no finite number", location.name)
    if np.abs(skeletons.positions).max(initial=0) > FARTHEST:
        raise UserError(f"a node lies farther away than {FARTHEST:g} nm, where there is no volume", location.name)
    if not len(skeletons.edges):
        raise UserError("there is no skeleton with an edge in it", location.name)
    if not skeletons.lengths.any():
        raise UserError("no edge of the skeletons has a length: each joins a place to itself", location.name)
    return skeletons


def _read(location: Location, scale: Scale | None) -> Skeletons:
    if not location.is_local:
        return _scaled(read_precomputed(location), scale)
    path = location.file
    readers = {".swc": read_swc, ".nml": read_nml, ".npz": read_npz}
    if path.is_file() and path.suffix.lower() in readers:
        return readers[path.suffix.lower()](path, scale)
    if not path.is_dir():
        says = "is none of these" if path.exists() else "there is no such file or folder"
        raise UserError(f"{says}; {EXPECTED}", location.name)
    if is_precomputed(location):
        return _scaled(read_precomputed(location), scale)
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in (".swc", ".nml"))
    if not files:
        raise UserError(f"the folder holds no skeletons; {EXPECTED}", location.name)
    return Skeletons.joined([readers[file.suffix.lower()](file, scale) for file in files])


def read_swc(path: Path, scale: Scale | None = None) -> Skeletons:
    """The skeleton of an SWC file: number, type, x, y, z, radius and parent (-1: none) per line; # begins a comment."""
    numbers: list[int] = []
    parents: list[int] = []
    places: list[tuple[float, float, float]] = []
    for line, text in enumerate(_lines(path), 1):
        words = text.partition("#")[0].split()
        if not words:
            continue
        try:
            if len(words) < COLUMNS_OF_SWC:
                raise ValueError
            x, y, z = (float(word) for word in words[2:5])
            number, parent = int(words[0]), int(words[6])
        except ValueError:
            raise UserError(f"line {line} has no 7 numbers: number, type, x, y, z, radius, parent", str(path)) from None
        numbers.append(number)
        parents.append(parent)
        places.append((z, y, x))
    node = _numbered(numbers, path)
    edges = [(node.get(parent, -1), index) for index, parent in enumerate(parents) if parent >= 0]
    lost = next((index for parent, index in edges if parent < 0), None)
    if lost is not None:
        raise UserError(f"node {numbers[lost]} has the parent {parents[lost]}, which is not there", str(path))
    _require_trees(numbers, edges, path)
    positions = np.array(places, np.float64).reshape(-1, 3)
    return _scaled(Skeletons.of((path.stem,), np.zeros(len(node)), positions, np.array(edges, np.int64)), scale)


def read_nml(path: Path, scale: Scale | None = None) -> Skeletons:
    """The skeletons of an NML file, one per `thing`. Positions count voxels, whose size stands in `parameters`."""
    with understanding(path, "is it an NML file?"):
        root = _parsed(path)
        size = np.array(_scale_of(root, path) if scale is None else scale, np.float64)
        parts = [_thing(thing, size, path) for thing in root.iter("thing")]
    return Skeletons.joined(parts)


def read_npz(path: Path, scale: Scale | None = None) -> Skeletons:
    """The skeletons of an npz file; positions in nanometres, z, y, x.

    Either `positions` (N, 3), `skeleton` (N,) the id of the skeleton of each node, and `edges` (E, 2) nodes; or what
    em_erl writes (`node_coords_zyx`, `node_skeleton_index`, `skeleton_id`, `edge_u`, `edge_v` and the lengths of edges,
    `edge_len`, which then count, unless there is a scale; also as its first versions wrote it, without names).
    """
    with understanding(path):
        arrays = _arrays(path)
        if {"positions", "skeleton", "edges"} <= set(arrays):
            ids, owner = np.unique(arrays["skeleton"], return_inverse=True)
            positions, edges = _rows(arrays, "positions", 3, "fiu"), _rows(arrays, "edges", 2, "iu")
            skeletons = Skeletons.of(_texts(ids), owner, positions, edges)
        elif {"node_coords_zyx", "node_skeleton_index", "skeleton_id", "edge_u", "edge_v"} <= set(arrays):
            skeletons = _of_em_erl(arrays)
        elif {"arr_0", "arr_1", "arr_2"} <= set(arrays):
            skeletons = _of_early_em_erl(arrays)
        else:
            raise ValueError(f"it holds {', '.join(arrays)}, not positions, skeleton and edges")
        _require_whole(skeletons)
    return _scaled(skeletons, scale)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        _require_room(path)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise DamagedFile(f"cannot be read as npz: {error}", str(path)) from error


def _require_room(path: Path) -> None:
    """Refuse an archive that would fill the memory: a few megabytes of it can unpack to gigabytes.

    Raises:
        UserError: its arrays say that they take more than the free memory bears, with the copies that are made of them.
        BadZipFile: it is no archive.
    """
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    free = psutil.virtual_memory().available
    if COPIES * size > free:
        raise UserError(
            f"its arrays take {disk_size(size)} when they are unpacked, and {COPIES} times that to be read; "
            f"{disk_size(free)} of memory are free",
            str(path),
        )


def _rows(arrays: Mapping[str, np.ndarray], name: str, columns: int, kinds: str) -> np.ndarray:
    """An array of so many columns, of a kind of numbers that nothing is lost of.

    Raises:
        ValueError: it is another one.
    """
    array = arrays[name]
    if array.ndim != 2 or array.shape[1] != columns or array.dtype.kind not in kinds:
        numbers = "whole numbers" if kinds == "iu" else "numbers"
        raise ValueError(
            f"{name} has the shape {array.shape} and the type {array.dtype}, not {columns} {numbers} a row"
        )
    return array


def _of_em_erl(arrays: Mapping[str, np.ndarray]) -> Skeletons:
    edges = np.stack([arrays["edge_u"], arrays["edge_v"]], axis=1)
    owner, positions = arrays["node_skeleton_index"], _rows(arrays, "node_coords_zyx", 3, "fiu")
    skeletons = Skeletons.of(_texts(arrays["skeleton_id"]), owner, positions, edges)
    return _with_lengths(skeletons, arrays.get("edge_len"))


def _of_early_em_erl(arrays: Mapping[str, np.ndarray]) -> Skeletons:
    nodes = arrays["arr_2"]
    rows = [arrays[f"arr_{index}"].reshape(-1, 3) for index in range(3, len(arrays))]
    edges = np.concatenate([np.zeros((0, 3)), *rows])
    skeletons = Skeletons.of(_texts(arrays["arr_0"]), nodes[:, 0], nodes[:, 1:4], edges[:, :2])
    return _with_lengths(skeletons, edges[:, 2])


def _with_lengths(skeletons: Skeletons, lengths: np.ndarray | None) -> Skeletons:
    if lengths is None:
        return skeletons
    lengths = np.asarray(lengths, np.float64)
    if lengths.shape != (len(skeletons.edges),) or not np.isfinite(lengths).all() or (lengths < 0).any():
        raise ValueError("the lengths of edges are not one number of 0 or more for each")
    return Skeletons(skeletons.names, skeletons.owner, skeletons.positions, skeletons.edges, lengths)


def _require_whole(skeletons: Skeletons) -> None:
    """Refuse arrays that do not belong together."""
    owner, edges = skeletons.owner, skeletons.edges
    if len(owner) != len(skeletons.positions):
        raise ValueError(f"{len(skeletons.positions)} positions, but {len(owner)} nodes that belong to a skeleton")
    if owner.min(initial=0) < 0 or owner.max(initial=-1) >= len(skeletons.names):
        raise ValueError("a node belongs to a skeleton that is not there")
    if edges.min(initial=0) < 0 or edges.max(initial=-1) >= len(owner):
        raise ValueError("an edge names a node that is not there")
    if (owner[edges[:, 0]] != owner[edges[:, 1]]).any():
        raise ValueError("an edge joins two skeletons")


def _scaled(skeletons: Skeletons, scale: Scale | None) -> Skeletons:
    if scale is None:
        return skeletons
    positions = skeletons.positions * np.array(scale, np.float64)
    return Skeletons.of(skeletons.names, skeletons.owner, positions, skeletons.edges)


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from file
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", str(path)) from error


def _numbered(numbers: Sequence[int], path: Path) -> dict[int, int]:
    """The place of each node by its number."""
    node = {number: index for index, number in enumerate(numbers)}
    if len(node) < len(numbers):
        twice = next(number for index, number in enumerate(numbers) if node[number] != index)
        raise UserError(f"two nodes have the number {twice}", str(path))
    return node


def _require_trees(numbers: Sequence[int], edges: Sequence[tuple[int, int]], path: Path) -> None:
    """Refuse nodes that are their own ancestors: an edge of such a ring would count twice, or have no length."""
    above = np.arange(len(numbers))
    roots = np.ones(len(numbers), bool)
    if edges:
        parents, children = np.array(edges, np.int64).T
        above[children], roots[children] = parents, False
    for _ in range(len(numbers).bit_length()):
        above = above[above]
    ring = np.flatnonzero(~roots[above])
    if len(ring):
        raise UserError(
            f"node {numbers[int(above[ring[0]])]} is its own ancestor; the parent of a root is -1", str(path)
        )


def _parsed(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError) as error:
        raise DamagedFile(f"is no XML that can be read: {error}", str(path)) from error


def _scale_of(root: ElementTree.Element, path: Path) -> Scale:
    """Nanometres of a voxel, z, y, x."""
    element = root.find("./parameters/scale")
    if element is None:
        raise UserError("says no scale; give the nanometres of a voxel with --skeleton-scale Z Y X", str(path))
    unit = nanometres_per(element.get("unit", "nanometer"))
    if unit is None:
        raise UserError(f"the scale has the unit {element.get('unit')!r}, which is no length", str(path))
    z, y, x = (float(element.attrib[axis]) * float(unit) for axis in "zyx")
    if not all(0 < size < math.inf for size in (z, y, x)):
        raise UserError(f"the scale is {z:g}, {y:g}, {x:g} nm; sizes are above 0", str(path))
    return z, y, x


def _thing(thing: ElementTree.Element, size: np.ndarray, path: Path) -> Skeletons:
    nodes = list(thing.iter("node"))
    number = _numbered([int(node.attrib["id"]) for node in nodes], path)
    ends = [(int(edge.attrib["source"]), int(edge.attrib["target"])) for edge in thing.iter("edge")]
    lost = next((end for pair in ends for end in pair if end not in number), None)
    name = thing.get("id", "")
    if lost is not None:
        raise UserError(f"an edge of thing {name} names node {lost}, which is not in it", str(path))
    voxels = np.array([[float(node.attrib[axis]) for axis in "zyx"] for node in nodes], np.float64).reshape(-1, 3)
    edges = np.array([(number[a], number[b]) for a, b in ends], np.int64)
    return Skeletons.of((name,), np.zeros(len(nodes)), voxels * size, edges)


def _texts(ids: np.ndarray) -> tuple[str, ...]:
    return tuple(str(value) for value in np.asarray(ids).ravel().tolist())
