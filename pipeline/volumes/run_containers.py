"""The container of a run: which format it has, what is noted about it, and how other programs find its arrays.

In format 3 every array is an OME-NGFF image (https://ngff.openmicroscopy.org/0.5/): a group of its name, with the array
as level `s0`. The group `OME` of the container lists them. Format 2 has plain zarr 2 groups and arrays.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..small_files import as_kind, read_json
from .locations import Location
from .run_arrays import StorageFormat
from .storage import METADATA_WAIT, open_store, wait
from .tensors import write_group

LEVEL = "s0"
"""The array in the group of an image; coarser levels of a pyramid would be `s1`, `s2`, …"""
MEND = "write it as it was, from a copy, or delete the container and make all in it anew"
"""What to do about a damaged group: what it says is not written down anywhere else."""
_NGFF = "0.5"
_SERIES = "OME"


def container_format(container: Path) -> StorageFormat | None:
    """The format of what is there; None if there is nothing."""
    if (container / ".zgroup").exists():
        return 2
    return 3 if (container / "zarr.json").exists() else None


def array_folder(container: Path, dataset: str) -> Path:
    """Where the files of an array lie, in the format of the container."""
    plain = container / dataset
    return plain if (plain / ".zarray").exists() or not (plain / LEVEL).exists() else plain / LEVEL


def ensure_container(container: Path, wanted: StorageFormat) -> StorageFormat:
    """Make a container, unless there is one; the format that it has.

    Raises:
        UserError: it cannot be written.
    """
    present = container_format(container)
    if present is None:
        collection = {"ome": {"version": _NGFF, "bioformats2raw.layout": 3}}
        _write_group(container, wanted, collection if wanted == 3 else {})
    return present or wanted


def container_attributes(container: Path) -> dict[str, Any]:
    """What is noted about a container; empty if there is none.

    Raises:
        UserError: the file is damaged.
    """
    return _attributes(container)


def note_in_container(container: Path, **changes: Any) -> None:
    """Note something about a container, None to forget it; the rest stays.

    Raises:
        UserError: it cannot be written.
    """
    noted = {**_attributes(container), **changes}
    _write_group(container, container_format(container) or 3, {k: v for k, v in noted.items() if v is not None})


def prepare_group(
    container: Path,
    dataset: str,
    storage_format: StorageFormat,
    voxel_size: Sequence[float],
    offset: Sequence[float],
    channels: bool,
) -> Path:
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
    names = dataset.split("/")
    for depth in range(1, len(names)):
        group = container.joinpath(*names[:depth])
        if container_format(group) is None:
            _write_group(group, storage_format, {})
    if storage_format == 2:
        return container / dataset
    image = multiscale(dataset, voxel_size, offset, channels)
    _write_group(container / dataset, 3, {"ome": {"version": _NGFF, "multiscales": [image]}})
    _list_series(container, dataset)
    return container / dataset / LEVEL


def remove_array(container: Path, dataset: str) -> None:
    """Delete an array, and what lists it. Its metadata go first: killed at any moment, it is whole or none."""
    folder = container / dataset
    if not folder.exists():
        return
    for name in ("zarr.json", ".zarray"):
        (array_folder(container, dataset) / name).unlink(missing_ok=True)
    if (folder / "zarr.json").exists():
        _list_series(container, dataset, remove=True)
    shutil.rmtree(folder, ignore_errors=True)


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


def _list_series(container: Path, dataset: str, *, remove: bool = False) -> None:
    """Add an image to those that the container lists, or take it out."""
    folder = container / _SERIES
    ome = _attributes(folder).get("ome")
    listed = list(ome.get("series", [])) if isinstance(ome, Mapping) else []
    series = [name for name in listed if name != dataset] + ([] if remove else [dataset])
    if series != listed:
        _write_group(folder, 3, {"ome": {"version": _NGFF, "series": series}})


def _attributes(group: Path) -> dict[str, Any]:
    """What is noted about a group.

    Raises:
        DamagedFile: the file says something else.
    """
    for name in ("zarr.json", ".zattrs"):
        if not (group / name).is_file():
            continue
        document = read_json(group / name, MEND)
        found = document.get("attributes", {}) if name == "zarr.json" else document
        return as_kind(found, dict[str, Any], group / name, MEND)
    return {}


def _write_group(group: Path, storage_format: StorageFormat, attributes: Mapping[str, Any]) -> None:
    location = Location("file", "", str(group.absolute()))
    if storage_format == 3:
        write_group(location, attributes)
        return
    if not (group / ".zgroup").exists():
        write_document(group, ".zgroup", {"zarr_format": 2})
    write_document(group, ".zattrs", attributes)


def write_document(folder: Path, name: str, document: Mapping[str, Any]) -> None:
    """Write a small JSON file in one step.

    Raises:
        UserError: the folder cannot be written.
    """
    location = Location("file", "", str(folder.absolute()))
    writing = open_store(location).write(name, json.dumps(document, indent=4).encode())
    wait(writing, location, METADATA_WAIT, "written")
