"""The sources of a run, however they got there: read where they are, or converted into a container of the run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from ..command_names import name_of
from ..config import FileSource, Source
from ..errors import UserError
from ..small_files import Number, as_kind, read_json
from .aligned import Aligned, Labels, Mask, aligned
from .arrays import volume_exists
from .complete import complete, cure_of_converted
from .identity import Identity
from .intensity import IntensityRange, Setting, intensity_range
from .locations import Location
from .opening import Wanted, open_at
from .present_chunks import WatchedVolume, from_json
from .run_containers import container_attributes
from .sources import DATASETS, SourceFiles
from .volume import Volume


class _Measured(TypedDict):
    """An `IntensityRange` as the record says it."""

    low: Number
    high: Number
    source: str


class SourceRecord(TypedDict, total=False):
    """What the record of a source may say."""

    section: str
    volumes: dict[str, Identity]
    intensity: _Measured


@dataclass(frozen=True)
class RunSource:
    """One source of a run.

    Attributes:
        name: in `volumes.sources`.
        section: its config.
        container: where the run keeps what was converted of it.
        record: JSON file of the run with what was found out about it: what tells whether it changed, and measured
            intensities.
        unlabelled_id: the label that means "not annotated".
    """

    name: str
    section: Source
    container: Location
    record: Path
    unlabelled_id: int | None = None

    @property
    def where(self) -> str:
        """Dotted path of its config section."""
        return f"volumes.sources.{self.name}"

    def is_converted(self, dataset: str) -> bool:
        """Whether `raw`, `labels` or `mask` lies in the run's container."""
        return volume_exists(self.container, dataset)

    def datasets_in_place(self) -> list[str]:
        """Those of raw, labels and mask that are read where they are, if they exist.

        Raises:
            StorageUnavailable: a server does not answer.
            UserError: a path is none.
        """
        files = self.files()
        if files is None:
            return []
        return [name for name in DATASETS if not self.is_converted(name) and files.is_in_place(name)]

    def files(self) -> SourceFiles | None:
        """The files of a source that has any."""
        return SourceFiles(self.section, self.where) if isinstance(self.section, FileSource) else None

    def open_raw(self) -> Volume:
        """Intensities, (z, y, x).

        Raises:
            StorageUnavailable: a server does not answer.
            UserError: the source has to be converted and is not, or cannot be read.
        """
        if self.is_converted("raw"):
            return self._open_converted("raw")
        raw = self._raw_in_place()
        if raw is None:
            raise UserError(f"the source is not imported yet; run {name_of('import_data.py')} first", self.where)
        return self._watched(raw, "raw")

    def has_labels(self) -> bool:
        """Whether there are labels, converted or in place."""
        if self.is_converted("labels"):
            return True
        files = self._files_in_place("labels")
        return files is not None and files.labels(self.open_raw()) is not None

    def open_labels(self) -> Labels:
        """Ids of objects on raw's voxels.

        Raises:
            UserError: there are none, or the source is not imported yet.
        """
        found = self._open_beside("labels")
        if found is None:
            self.open_raw()  # a source that has to be converted has no labels before it is
            raise UserError("this source has no labels; its labels_path names them", self.where)
        return Labels(found, self.unlabelled_id)

    def open_mask(self) -> Mask | None:
        """Where the source is to be used; None for everywhere."""
        found = self._open_beside("mask")
        return None if found is None else Mask(found)

    def intensity(self) -> IntensityRange:
        """The intensities of raw that are black and white for the networks.

        Raises:
            UserError: they are to be measured and are not.
        """
        raw = self.open_raw()
        setting = self.intensity_setting(raw.dtype)
        where = f"{self.where}.intensity"
        if setting != "percentiles":
            return intensity_range(raw, setting, where=where)
        measured = self.read_record().get("intensity")
        if measured is not None:
            return IntensityRange(**measured)
        if self._imported_before_ranges():
            return intensity_range(raw, "dtype", where=where)
        raise UserError(f"the intensities are not measured yet; run {name_of('import_data.py')} first", where)

    def intensity_setting(self, dtype: np.dtype) -> Setting:
        """What the config means for a type: never `auto`."""
        setting: Setting = self.section.intensity if isinstance(self.section, FileSource) else "auto"
        if setting == "auto":
            return "dtype" if dtype == np.uint8 else "percentiles"
        return setting

    def read_record(self) -> dict[str, Any]:
        """What the run knows about the source; empty if nothing yet."""
        record = read_json(self.record, "delete it, it is written anew")
        as_kind(record, SourceRecord, self.record, "delete it, it is written anew")
        return record

    def _imported_before_ranges(self) -> bool:
        """Whether raw was imported by a version that knew the full range of a type only."""
        automatic = not isinstance(self.section, FileSource) or self.section.intensity == "auto"
        return automatic and self.is_converted("raw") and not self.record.exists()

    def _files_in_place(self, dataset: str) -> SourceFiles | None:
        files = self.files()
        return files if files is not None and files.is_in_place(dataset) else None

    def _raw_in_place(self) -> Volume | None:
        if isinstance(self.section, FileSource) and not Location.of(self.section.path, where=self.where).is_local:
            return _raw_of_a_server(self.section, self.where)
        files = self._files_in_place("raw")
        return None if files is None else files.raw()

    def _open_converted(self, dataset: str) -> Volume:
        found = open_at(self.container, Wanted(dataset))
        assert found is not None, "it is named"
        attributes = container_attributes(self.container)
        has_records = "key" in found.found.array.attributes
        run_directory = self.record.parent.parent
        return complete(
            found, cure_of_converted(self.container, run_directory, attributes.get("import") is not None, has_records)
        )

    def _open_beside(self, dataset: str) -> Aligned | None:
        if self.is_converted(dataset):
            volume, raw = self._open_converted(dataset), self.open_raw()
            offset = raw.offset if volume.shape == raw.shape else None  # on raw's voxels, whatever its attributes say
            return aligned(volume, raw, dataset, self.where, offset=offset)
        files = self._files_in_place(dataset)
        if files is None:
            return None
        raw = self.open_raw()
        found = files.beside(raw, dataset, files.labels(raw) if dataset == "labels" else files.mask())
        return None if found is None else replace(found, volume=self._watched(found.volume, dataset))

    def _watched(self, volume: Volume, dataset: str) -> Volume:
        """A volume that is read in place, in which no chunk may be missing that was there at first use."""
        listed = self.read_record().get("volumes", {}).get(dataset, {}).get("chunks")
        if listed is None:
            return volume
        try:
            present = from_json(listed)
        except ValueError as error:
            raise UserError(f"{error}; delete it, it is written anew", str(self.record)) from None
        cure = f"put it back, or begin anew with what is there: in a new run_directory, or after deleting {self.record}"
        return WatchedVolume(**vars(volume), present=present, cure=cure)


@cache
def _raw_of_a_server(section: FileSource, where: str) -> Volume | None:
    """Raw that is read in place behind a server, opened once in this process: each opening takes several requests."""
    files = SourceFiles(section, where)
    return files.raw() if files.is_in_place("raw") else None
