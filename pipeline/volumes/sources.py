"""Raw, labels and mask of a source as the config describes it, read where they are.

What is said here about names and levels counts for files that are converted, too: whoever converts them brings a
function that opens what only it can open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..config import FileSource
from ..errors import UserError
from .aligned import Aligned, aligned
from .containers import level_count, levels_of
from .formats import IN_PLACE, Node, look
from .intensity import TYPES
from .locations import Location
from .opening import Wanted, open_at
from .volume import Volume

RAW_NAMES = ("raw", "volumes/raw", "main")
"""Datasets that are taken for raw intensities when the config names none."""
LABEL_NAMES = ("labels", "volumes/labels/neuron_ids", "stack")
"""Datasets that are taken for labels when the config names none."""
BODIES = "transforms"
"""A table with this name beside labels merges them; such labels are converted."""
DATASETS = ("raw", "labels", "mask")

Opener = Callable[[Location, Wanted], Volume | None]
"""Opens what is wanted at a location; None if nothing is named and nothing customary is there."""


@dataclass(frozen=True)
class Source:
    """The volumes of a source; labels and mask where they lie on raw.

    Attributes:
        raw: intensities, (z, y, x).
        labels: ids of objects.
        mask: where the source is to be used.
    """

    raw: Volume
    labels: Aligned | None = None
    mask: Aligned | None = None

    def volumes(self) -> dict[str, Volume]:
        """Those that there are, by name."""
        parts = {"labels": self.labels, "mask": self.mask}
        return {"raw": self.raw, **{name: part.volume for name, part in parts.items() if part is not None}}


@dataclass(frozen=True)
class SourceFiles:
    """The volumes of a file source.

    Attributes:
        source: its config section.
        where: dotted path of that section.
        open: opens one of them.
    """

    source: FileSource
    where: str
    open: Opener = open_at

    def all(self) -> Source:
        """Raw, labels and mask.

        Raises:
            StorageUnavailable: a server does not answer.
            UserError: anything is missing, ambiguous, or in another place.
        """
        raw = self.raw()
        return Source(raw, self.beside(raw, "labels", self.labels(raw)), self.beside(raw, "mask", self.mask()))

    def raw(self) -> Volume:
        """The intensities, in their place."""
        source = self.source
        location = self._location("path")
        wanted = Wanted(
            source.raw if source.raw is not None else self._inside_plain_folder(location, RAW_NAMES),
            RAW_NAMES,
            format=source.format,
            level=source.level,
            axes=source.axes,
            channel=source.channel,
            time=source.time,
            voxel_size=source.voxel_size,
            offset=source.offset,
            where=self.where,
            allow_links=source.allow_links,
        )
        raw = self._required(self.open(location, wanted), location, "raw")
        if raw.dtype.name not in TYPES:
            raise UserError(
                f"{raw.name} is {raw.dtype.name}; raw intensities are {', '.join(TYPES[:-1])} or {TYPES[-1]}: save them"
                " as one of these",
                f"{self.where}.raw",
            )
        if min(raw.shape) < 1:
            raise UserError(f"the volume has no voxels: its shape is {tuple(raw.shape)}", self.where)
        return raw

    def labels(self, raw: Volume | None) -> Volume | None:
        """The labels, wherever they lie; None if there are none. Raw is known so that it is not taken for them."""
        source = self.source
        if source.labels == "":
            return None
        location, dataset = self._place("labels")
        apart = source.labels_path is not None
        if dataset is None and not apart:
            dataset = self._inside_plain_folder(location, LABEL_NAMES)
        if dataset is None:
            node = look(location, None if apart else source.format)
            dataset = _label_image(node, f"{self.where}.labels") if node is not None else None
            if dataset is None and not apart and self._holds_raw_alone(location, node):
                return None
        found = self.open(location, self._wanted("labels", dataset, LABEL_NAMES, only=apart))
        if found is None:
            return self._required(None, location, "labels") if apart else None
        if raw is not None and (found.name, found.choice) == (raw.name, raw.choice):
            raise UserError(f"{raw.name} cannot be both raw and labels", f"{self.where}.labels")
        if found.dtype.kind not in "ui":
            raise UserError(
                f"{found.name} is {found.dtype.name}; labels must be whole numbers, one per neurite: save them as"
                " uint32 or uint64",
                f"{self.where}.labels",
            )
        return found

    def mask(self) -> Volume | None:
        """The mask, wherever it lies; None if there is none."""
        source = self.source
        if source.mask is None and source.mask_path is None:
            return None
        location, dataset = self._place("mask")
        wanted = self._wanted("mask", dataset, (), only=source.mask_path is not None)
        found = self._required(self.open(location, wanted), location, "mask")
        if found.dtype.kind not in "uib":
            raise UserError(
                f"{found.name} is {found.dtype.name}; a mask must be of whole numbers or bool", f"{self.where}.mask"
            )
        return found

    def beside(self, raw: Volume, what: str, volume: Volume | None) -> Aligned | None:
        """Labels or mask where they lie on raw; of a pyramid the level that fits raw's."""
        if volume is None:
            return None
        size, offset = self.source.voxel_size, self.source.offset
        level = volume.found.level
        while isinstance(level, int) and level + 1 < level_count(volume.found) and self._is_finer(volume, raw):
            level += 1
            location, dataset = self._place(what)
            again = self.open(
                location, self._wanted(what, self._group_of(volume, location) or dataset, (), level=level)
            )
            if again is None:
                break
            volume = again
        return aligned(volume, raw, what, self.where, voxel_size=size, offset=offset)

    def is_in_place(self, what: str) -> bool:
        """Whether one of the volumes, if there is one, can and shall be read where it is.

        Raises:
            StorageUnavailable: a server does not answer.
            UserError: the path is none.
        """
        if self.source.copy_ or self.source.sections is not None:
            return False
        location, dataset = self._place(what)
        node = look(location, self.source.format if what == "raw" else None)
        if node is None:
            names = [dataset] if dataset else [*RAW_NAMES, *LABEL_NAMES]
            node = next((found for name in names if (found := look(location.child(name))) is not None), None)
        if node is None or node.format not in IN_PLACE:
            return False
        return what != "labels" or not self._has_bodies(location, dataset)

    def _has_bodies(self, location: Location, dataset: str | None) -> bool:
        inside = location.child(dataset if dataset is not None else "stack")
        folder = inside.parent
        last = inside.path.rpartition("/")[2]
        return last == "stack" and folder is not None and look(folder.child(BODIES)) is not None

    def _place(self, what: str) -> tuple[Location, str | None]:
        """Where one of the volumes lies, and the dataset that the config names."""
        source = self.source
        own = {"raw": None, "labels": source.labels_path, "mask": source.mask_path}[what]
        named = {"raw": source.raw, "labels": source.labels, "mask": source.mask}[what]
        return self._location(f"{what}_path" if own is not None else "path"), named

    def _location(self, key: str) -> Location:
        return Location.of(getattr(self.source, key), where=f"{self.where}.{key}")

    def _wanted(
        self,
        what: str,
        dataset: str | None,
        candidates: tuple[str, ...],
        *,
        only: bool = False,
        level: int | None = None,
    ) -> Wanted:
        axes = self.source.axes
        if axes is not None and set(axes) - set("zyxn"):
            axes = None  # channel and time are axes of raw; labels say their own
        path_key = f"{what}_path" if getattr(self.source, f"{what}_path") is not None else "path"
        return Wanted(
            dataset,
            candidates,
            only,
            level=level,
            axes=axes,
            placed=False,
            where=self.where,
            key=what,
            path_key=path_key,
            allow_links=self.source.allow_links,
        )

    def _inside_plain_folder(self, location: Location, names: Sequence[str]) -> str | None:
        """The customary name of a volume in a folder that is no container itself."""
        if (location.is_local and not location.file.is_dir()) or look(location, self.source.format) is not None:
            return None
        return next((name for name in names if look(location.child(name)) is not None), None)

    def _required(self, found: Volume | None, location: Location, what: str) -> Volume:
        if found is None:
            from .containers import listing

            node = look(location)
            names = listing(node) if node is not None and node.format in IN_PLACE else _names_in_file(location)
            raise UserError(f"name the dataset to use; {location.name} has {names}", f"{self.where}.{what}")
        return found

    @staticmethod
    def _holds_raw_alone(location: Location, node: Node | None) -> bool:
        """Whether there is no place for labels: an array, a pyramid, or a folder that is no container."""
        if node is None:
            return not location.is_local or location.file.is_dir()
        return node.is_array or bool(levels_of(node))

    @staticmethod
    def _is_finer(volume: Volume, raw: Volume) -> bool:
        size = volume.placement.voxel_size
        return size is not None and any(a < b * 0.999 for a, b in zip(size, raw.voxel_size, strict=True))

    @staticmethod
    def _group_of(volume: Volume, location: Location) -> str:
        """Path in the container of the pyramid that a volume is a level of."""
        array = volume.found.array
        if array.format == "precomputed" or not volume.found.groups:
            return array.location.path[len(location.path) :].strip("/")
        return volume.found.groups[0][0].location.path[len(location.path) :].strip("/")


def _names_in_file(location: Location) -> str:
    from .file_arrays import dataset_names, open_hdf5

    node = look(location) if location.is_local else None
    if node is None or node.format != "hdf5":
        return "none"
    with open_hdf5(location.file) as file:
        names = [name for name, _ in zip(dataset_names(file), range(11), strict=False)]
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "") or "none"


def _label_image(node: Node, where: str) -> str | None:
    """The one label image that an OME-NGFF container declares.

    Raises:
        UserError: there are several.
    """
    if node.is_array or node.format not in ("zarr2", "zarr3"):
        return None
    group = look(node.location.child("labels"), node.format)
    if group is None or group.is_array:
        return None
    ome: Any = group.attributes.get("ome")
    declared = (ome if isinstance(ome, Mapping) else group.attributes).get("labels")
    names = [name for name in declared if isinstance(name, str)] if isinstance(declared, list) else []
    if len(names) > 1:
        raise UserError(
            f"{node.name} has several label images ({', '.join(names)}); name one: labels/{names[0]}", where
        )
    return f"labels/{names[0]}" if names else None


def stored_label_type(dtype: np.dtype, unlabelled_id: int | None) -> np.dtype:
    """The type that converted labels have: uint64; int64 where a negative id means "not annotated"."""
    signed = dtype.kind == "i" and unlabelled_id is not None and unlabelled_id < 0
    return np.dtype(np.int64 if signed else np.uint64)
