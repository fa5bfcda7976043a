"""The container of a run: which format it has, what is noted about it, and how other programs find its arrays.

In format 3 every array is an OME-NGFF image (https://ngff.openmicroscopy.org/0.5/): a group of its name, with the array
as level `s0`. The group `OME` of the container lists them. Format 2 has plain zarr 2 groups and arrays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..small_files import as_kind, json_object
from .locations import Location, Place, located
from .run_arrays import StorageFormat
from .storage import METADATA_WAIT, delete_below, open_store, read_present, remove_file, wait
from .tensors import write_group

LEVEL = "s0"
"""The array in the group of an image; coarser levels of a pyramid would be `s1`, `s2`, …"""
MEND = "write it as it was, from a copy, or delete the container and make all in it anew"
"""What to do about a damaged group: what it says is not written down anywhere else."""
_NGFF = "0.5"
_SERIES = "OME"


@dataclass(frozen=True)
class ArrayFiles:
    """The metadata of an array as they are stored.

    Attributes:
        folder: of the array.
        format: 2 or 3.
        files: their content by name.
    """

    folder: Location
    format: StorageFormat
    files: Mapping[str, bytes]

    @property
    def name(self) -> str:
        """The file that describes the array."""
        return str(self.folder / (".zarray" if self.format == 2 else "zarr.json"))

    def parsed(self, cure: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """What describes the array itself, and what is noted about it.

        Raises:
            DamagedFile: a file says something else; names it and the cure.
        """
        if self.format == 3:
            metadata = json_object(self.files["zarr.json"], self.name, cure)
            return metadata, as_kind(metadata.get("attributes", {}), dict[str, Any], self.name, cure)
        noted = json_object(self.files.get(".zattrs", b"{}"), str(self.folder / ".zattrs"), cure)
        return json_object(self.files[".zarray"], self.name, cure), noted


def container_format(container: Place) -> StorageFormat | None:
    """The format of what is there; None if there is nothing."""
    files = read_present(located(container), (".zgroup", "zarr.json"))
    return 2 if ".zgroup" in files else 3 if "zarr.json" in files else None


def find_files(container: Place, dataset: str) -> ArrayFiles | None:
    """The metadata of an array, in the format that it has; None if there is no such array."""
    folder, inside = located(container) / dataset, f"{LEVEL}/zarr.json"
    files = read_present(folder, (".zarray", ".zattrs", inside))
    if ".zarray" in files:
        return ArrayFiles(folder, 2, files)
    return ArrayFiles(folder / LEVEL, 3, {"zarr.json": files[inside]}) if inside in files else None


def ensure_container(container: Place, wanted: StorageFormat) -> StorageFormat:
    """Make a container, unless there is one; the format that it has.

    Raises:
        UserError: it cannot be written.
    """
    present = container_format(container)
    if present is None:
        collection = {"ome": {"version": _NGFF, "bioformats2raw.layout": 3}}
        _write_group(located(container), wanted, collection if wanted == 3 else {})
    return present or wanted


def container_attributes(container: Place) -> dict[str, Any]:
    """What is noted about a container; empty if there is none.

    Raises:
        UserError: the file is damaged.
    """
    return _attributes(located(container))


def note_in_container(container: Place, **changes: Any) -> None:
    """Note something about a container, None to forget it; the rest stays.

    Raises:
        UserError: it cannot be written.
    """
    noted = {**container_attributes(container), **changes}
    kept = {name: value for name, value in noted.items() if value is not None}
    _write_group(located(container), container_format(container) or 3, kept)


def prepare_group(
    container: Place,
    dataset: str,
    storage_format: StorageFormat,
    voxel_size: Sequence[float],
    offset: Sequence[float],
    channels: bool,
) -> Location:
    """Delete an array of this name, make the groups around the new one, and give the folder that it goes to.

    Args:
        container: of the run.
        dataset: name of the array.
        storage_format: of the container.
        voxel_size, offset: nanometres, order z, y, x.
        channels: whether the array has a first axis that counts them.

    Raises:
        UserError: the folder cannot be written.
    """
    remove_array(container, dataset)
    whole = located(container)
    names = dataset.split("/")
    for depth in range(1, len(names)):
        group = whole / "/".join(names[:depth])
        if container_format(group) is None:
            _write_group(group, storage_format, {})
    if storage_format == 2:
        return whole / dataset
    image = multiscale(dataset, voxel_size, offset, channels)
    _write_group(whole / dataset, 3, {"ome": {"version": _NGFF, "multiscales": [image]}})
    _list_series(whole, dataset)
    return whole / dataset / LEVEL


def remove_array(container: Place, dataset: str) -> None:
    """Delete an array, and what lists it. Its metadata go first: killed at any moment, it is whole or none."""
    whole = located(container)
    found = find_files(whole, dataset)
    if found is not None:
        remove_file(found.folder, ".zarray" if found.format == 2 else "zarr.json")
    if "zarr.json" in read_present(whole / dataset, ("zarr.json",)):
        _list_series(whole, dataset, remove=True)
    delete_below(whole / dataset)


def names_in(container: Place, group: str) -> list[str]:
    """Names of the arrays in a group of a container, sorted."""
    whole = located(container)
    if whole.is_local:
        folder = (whole / group).file
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    else:  # a bucket would list every shard
        names = [name.removeprefix(f"{group}/") for name in _series(whole) if name.startswith(f"{group}/")]
    return sorted(name for name in names if find_files(whole, f"{group}/{name}") is not None)


def multiscale(name: str, voxel_size: Sequence[float], offset: Sequence[float], channels: bool) -> dict[str, Any]:
    """OME-NGFF's description of one array as a pyramid of one level.

    The translation is our `offset`, as is the custom of EM: of a volume that begins at 0, the finest level has none.
    """
    axes: list[dict[str, str]] = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    scale = [float(size) for size in voxel_size]
    translation = [float(first) for first in offset]
    if channels:
        axes, scale, translation = [{"name": "c", "type": "channel"}, *axes], [1.0, *scale], [0.0, *translation]
    transformations = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": translation}]
    return {
        "name": name,
        "axes": axes,
        "datasets": [{"path": LEVEL, "coordinateTransformations": transformations}],
    }


def _series(container: Location) -> list[str]:
    """The images that a container lists."""
    ome = _attributes(container / _SERIES).get("ome")
    return list(ome.get("series", [])) if isinstance(ome, Mapping) else []


def _list_series(container: Location, dataset: str, *, remove: bool = False) -> None:
    """Add an image to those that the container lists, or take it out."""
    listed = _series(container)
    series = [name for name in listed if name != dataset] + ([] if remove else [dataset])
    if series != listed:
        _write_group(container / _SERIES, 3, {"ome": {"version": _NGFF, "series": series}})


def _attributes(group: Location) -> dict[str, Any]:
    """What is noted about a group.

    Raises:
        DamagedFile: the file says something else.
    """
    for name, content in read_present(group, ("zarr.json", ".zattrs")).items():
        where = str(group / name)
        document = json_object(content, where, MEND)
        found = document.get("attributes", {}) if name == "zarr.json" else document
        return as_kind(found, dict[str, Any], where, MEND)
    return {}


def _write_group(group: Location, storage_format: StorageFormat, attributes: Mapping[str, Any]) -> None:
    if storage_format == 3:
        write_group(group, attributes)
        return
    if not read_present(group, (".zgroup",)):
        write_document(group, ".zgroup", {"zarr_format": 2})
    write_document(group, ".zattrs", attributes)


def write_document(folder: Location, name: str, document: Mapping[str, Any]) -> None:
    """Write a small JSON file in one step.

    Raises:
        UserError: the folder cannot be written.
    """
    writing = open_store(folder).write(name, json.dumps(document, indent=4).encode())
    wait(writing, folder, METADATA_WAIT, "written")
