"""What lies at a location: an array or a group of arrays of which format, from small files alone; nothing is opened.

zarr 2 and 3 (OME-NGFF is a zarr group with certain attributes), N5, neuroglancer precomputed; HDF5, TIFF and npy files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import UserError
from ..small_files import DamagedFile, json_object
from .locations import Location
from .storage import read_files

Format = Literal["zarr2", "zarr3", "n5", "precomputed", "hdf5", "tiff", "npy"]
"""Formats by the names that the config uses."""

IN_PLACE: tuple[Format, ...] = ("zarr2", "zarr3", "n5", "precomputed")
"""Formats of chunks that are read where they are; the others are converted."""

CALLED: Mapping[str, str] = {
    "zarr2": "zarr 2",
    "zarr3": "zarr 3",
    "n5": "N5",
    "precomputed": "neuroglancer precomputed",
    "hdf5": "HDF5",
    "tiff": "TIFF",
    "npy": "npy",
}
"""Formats by the names that people use."""

_METADATA_FILES = ("zarr.json", ".zarray", ".zgroup", ".zattrs", "attributes.json", "info")
_SIGNATURES: tuple[tuple[bytes, Format], ...] = (
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
    (b"\x93NUMPY", "npy"),
)


@dataclass(frozen=True)
class Node:
    """An array or a group, as its metadata describe it.

    Attributes:
        location: where it is.
        format: how it is stored.
        is_array: an array; otherwise a group, or a file that holds arrays.
        metadata: what describes the array itself (`.zarray`, `zarr.json`, `attributes.json`, `info`).
        attributes: what people and programs noted about it.
    """

    location: Location
    format: Format
    is_array: bool
    metadata: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Where it is, for messages."""
        return self.location.name


def look(location: Location, wanted: Format | None = None) -> Node | None:
    """What lies at a location; None if nothing that is known.

    Args:
        location: a folder, or a local file.
        wanted: the format, if it is known; others are then ignored.

    Raises:
        StorageUnavailable: the server does not answer.
        UserError: metadata are damaged, access is denied, or two formats are there at once.
    """
    if location.is_local and location.file.is_file():
        return _look_at_file(location, wanted)
    if location.is_local and not location.file.is_dir():
        return None
    files = read_files(location, _METADATA_FILES)
    documents = {name: _parsed(data, name, location) for name, data in files.items()}
    nodes = [node for node in _nodes(location, documents) if wanted in (None, node.format)]
    if len(nodes) > 1:
        names = " and ".join(CALLED[node.format] for node in nodes)
        raise UserError(f"is {names} at once; name the format in the config", location.name)
    if nodes:
        return nodes[0]
    if location.is_local and (wanted == "n5" or (wanted is None and location.path.endswith(".n5"))):
        return Node(location, "n5", is_array=False)  # in N5, any folder is a group
    return None


def require(location: Location, wanted: Format | None = None, where: str = "") -> Node:
    """What lies at a location.

    Raises:
        UserError: nothing that is known, or see `look`.
    """
    found = look(location, wanted)
    if found is not None:
        return found
    if location.is_local and not location.file.exists():
        raise UserError(f"there is no file or folder {location.name}", where)
    what = CALLED[wanted] if wanted else "zarr, OME-NGFF, N5, precomputed, HDF5, TIFF or npy"
    hint = "" if location.is_local else "; a server does not list what it has, so the URL must name the array or group"
    raise UserError(f"{location.name} is no {what}{hint}", where)


def _look_at_file(location: Location, wanted: Format | None) -> Node | None:
    try:
        with location.file.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", location.name) from error
    for signature, format_ in _SIGNATURES:
        if start.startswith(signature) and wanted in (None, format_):
            return Node(location, format_, is_array=format_ != "hdf5")
    return None


def _nodes(location: Location, documents: Mapping[str, Any]) -> list[Node]:
    """An entry for each format whose metadata are there."""
    found = []
    attributes = documents.get(".zattrs", {})
    if ".zarray" in documents:
        found.append(Node(location, "zarr2", True, documents[".zarray"], attributes))
    elif ".zgroup" in documents or attributes:
        found.append(Node(location, "zarr2", False, documents.get(".zgroup", {}), attributes))
    if "zarr.json" in documents:
        document = documents["zarr.json"]
        is_array = document.get("node_type") == "array"
        found.append(Node(location, "zarr3", is_array, document, document.get("attributes", {})))
    if "attributes.json" in documents:
        document = documents["attributes.json"]
        found.append(Node(location, "n5", "dimensions" in document and "dataType" in document, document, document))
    if "scales" in documents.get("info", {}):
        found.append(Node(location, "precomputed", True, documents["info"], {}))
    return found


def _parsed(data: bytes, name: str, location: Location) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: it is none.
    """
    try:
        return json_object(data, location.name)
    except DamagedFile as error:
        raise UserError(f"{name} {error.what}; correct it, or write the array again", location.name) from error
