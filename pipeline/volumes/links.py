"""Links that lead out of a file or container: refused, unless the config names where they may lead.

A file of somebody else can make its voxels come from any file that its reader may read: HDF5 by external storage,
external links and virtual datasets, containers of chunks by symbolic links. What the config names itself, a path that
is a symbolic link for example, is the user's own business.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import UserError
from .axes import AxisChoice
from .boxes import ZERO, Box
from .containers import Found
from .locations import expand_variables
from .stored_keys import touched_keys
from .volume import VoxelArray, WrappedArray

MOST_FOLDERS = 100_000
"""Folders of chunks that are remembered as looked at."""


@dataclass(frozen=True)
class AllowedLinks:
    """Where links of a source may lead.

    Attributes:
        places: files and folders, as the config names them.
        where: dotted path of the config section.
    """

    places: tuple[str, ...] = ()
    where: str = ""

    def require(self, target: str | Path, what: str) -> None:
        """Refuse a link that leads elsewhere.

        Args:
            target: the file that it leads to.
            what: that has the link, and of which kind, for the message.

        Raises:
            UserError: it is not allowed.
        """
        path = Path(os.path.realpath(target))
        for place in self.places:
            if path.is_relative_to(os.path.realpath(Path(expand_variables(place, self.where)).expanduser())):
                return
        raise UserError(
            f"{what} to {path}, outside of what the config names; if it is meant to be read, name that file or a"
            " folder around it in allow_links",
            f"{self.where}.allow_links" if self.where else "",
        )


def require_own_dataset(file: h5py.File, dataset: str, path: Path, allowed: AllowedLinks) -> None:
    """Refuse a path in an HDF5 file, or the dataset there, that leads to other files; those are not opened.

    Args:
        file: open for reading.
        dataset: path of what is to be opened; that it exists is not required.
        path: of the file.
        allowed: where links may lead.

    Raises:
        UserError: it leads elsewhere.
    """
    for target in _linked_files(file, dataset, path.parent):
        allowed.require(target, f"{path}/{dataset} is an external link")
    found = file.get(dataset) if dataset in file else None
    if isinstance(found, h5py.Dataset):
        for target, kind in _foreign_files(found, path, set()):
            allowed.require(target, f"{path}/{dataset} is {kind} and leads")


def _linked_files(file: h5py.File, dataset: str, folder: Path) -> Iterator[Path]:
    """The files that external links on a path through groups name; soft links are followed inside the file."""
    parts, seen = [part for part in dataset.split("/") if part], 0
    inside = ""
    while parts and seen < 100:
        seen += 1
        inside = f"{inside}/{parts.pop(0)}"
        try:
            link = file.get(inside, getlink=True)
        except (KeyError, RuntimeError):
            return
        if isinstance(link, h5py.ExternalLink):
            yield _place_of(link.filename, folder)
            return
        if isinstance(link, h5py.SoftLink):
            aim = link.path if link.path.startswith("/") else f"{inside.rpartition('/')[0]}/{link.path}"
            parts, inside = [part for part in aim.split("/") if part] + parts, ""


def _foreign_files(dataset: h5py.Dataset, path: Path, seen: set[str]) -> Iterator[tuple[Path, str]]:
    """Other files that a dataset takes its voxels from, and how."""
    seen.add(str(dataset.name))
    for name, _, _ in dataset.external or ():
        yield Path.cwd() / name, "external storage"  # HDF5 takes it from the working directory
    if not dataset.is_virtual:
        return
    for source in dataset.virtual_sources():
        if source.file_name not in (".", ""):
            yield _place_of(source.file_name, path.parent), "a virtual dataset"
        elif source.dset_name not in seen and isinstance(found := dataset.file.get(source.dset_name), h5py.Dataset):
            yield from _foreign_files(found, path, seen)
        for target in _linked_files(dataset.file, source.dset_name, path.parent):
            yield target, "a virtual dataset"


def _place_of(name: str, folder: Path) -> Path:
    """Where HDF5 looks for a file that another one names: in the folder of that one first, then where it stands."""
    beside = folder / name
    return beside if beside.exists() or not Path(name).exists() else Path(name).absolute()


@dataclass(frozen=True)
class OwnFilesArray(WrappedArray):
    """An array of chunks on this machine whose files must lie in its container; see `VoxelArray`.

    Folders are looked at once, files each time: that takes a hundredth of the time to decode them.

    Attributes:
        array: the array.
        folder: where its files lie.
        keys: names of the files of a box.
        root: the container that the config names.
        allowed: where links may lead besides.
    """

    folder: Path
    keys: Callable[[Box], Sequence[str]] = field(repr=False)
    root: Path
    allowed: AllowedLinks
    _own: set[str] = field(default_factory=set, repr=False)

    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box inside.

        Raises:
            UserError: a file is a link that leads elsewhere; or as the array itself.
        """
        self.require_own(box)
        return self.array.read(box)

    def require_own(self, box: Box) -> None:
        """Refuse links that lead elsewhere among the files of a box.

        Raises:
            UserError: there is one.
        """
        for key in self.keys(box):
            path = f"{self.folder}/{key}"
            parent = path.rpartition("/")[0]
            if parent not in self._own:
                self._require_own(parent)
                if len(self._own) < MOST_FOLDERS:
                    self._own.add(parent)
            if os.path.islink(path):  # noqa: PTH114  this is done for every chunk, and ten times as fast
                self._require_own(path)

    def _require_own(self, path: str) -> None:
        if not Path(os.path.realpath(path)).is_relative_to(self.root):
            self.allowed.require(path, f"{path} is a symbolic link")


def own_files(
    array: VoxelArray, found: Found, choice: AxisChoice, shape: Sequence[int], container: Path, allowed: AllowedLinks
) -> VoxelArray:
    """An array of chunks on this machine that reads no file outside of its container.

    Args:
        array: as it was opened.
        found: the metadata that it was found with.
        choice: how its axes are read.
        shape: stored, in C order.
        container: that the config names.
        allowed: where links may lead.

    Raises:
        UserError: its folder is a link that leads elsewhere.
    """
    folder, root = found.array.location.file, Path(os.path.realpath(container))
    level = found.level if found.level is not None else 0

    def keys(box: Box) -> Sequence[str]:
        return touched_keys(found.array, choice, shape, box, level)

    checked = OwnFilesArray(array, folder, keys, root, allowed)
    checked._require_own(str(folder))
    try:
        keys(Box(ZERO, ZERO + 1))
    except ValueError:  # its files are not named by positions in three axes: they are looked at now
        _require_own_tree(folder, root, allowed)
        return array
    return checked


def _require_own_tree(folder: Path, root: Path, allowed: AllowedLinks) -> None:
    """Refuse links out of a container anywhere below a folder."""
    for inside, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(inside, name)
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
                allowed.require(path, f"{path} is a symbolic link")


def hdf5_dataset(file: h5py.File, dataset: str, path: Path, allowed: AllowedLinks) -> Any:
    """What lies at a path of an HDF5 file, None if nothing does; of another file only if that is allowed.

    Raises:
        UserError: it leads elsewhere.
    """
    require_own_dataset(file, dataset, path, allowed)
    return file.get(dataset)
