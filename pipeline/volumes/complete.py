"""Arrays that a run has written, whose errors say what to run. Those that it has converted are read strictly: every
file must be there, for the formats take a lost one for zeros.

Of these the array is wrapped, not the volume, so that no way of reading goes around it. A file is looked for once per
process and opened array, when the first box touches it: to do so before every read would cost as much as small boxes
do.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from funlib.geometry import Coordinate
from typing_extensions import override

from ..command_names import command_line
from ..errors import UserError
from .arrays import RunVolume, open_volume
from .boxes import Box
from .links import OwnFilesArray
from .locations import Place, located
from .storage_errors import StorageUnavailable
from .volume import Volume, WrappedArray


@dataclass(frozen=True)
class ComputedVolume(RunVolume):
    """An array that a stage has written.

    Attributes:
        cure: what to do about a damaged shard, for messages.
    """

    cure: str = ""

    @override
    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box that lies inside the volume; axes as stored.

        Raises:
            StorageUnavailable: a server does not answer.
            UserError: a shard is damaged; says what to run.
        """
        try:
            return super().read(box)
        except StorageUnavailable:
            raise
        except UserError as error:
            raise UserError(f"{error.what}; {self.cure}", error.where) from error


@dataclass(frozen=True)
class CompleteArray(WrappedArray):
    """An array of which no file may be missing; see `VoxelArray`.

    Attributes:
        array: the array.
        volume: the same, with what names its files.
        cure: what to do about a file that is lost or damaged.
        seen: by position along z, (y, x) bool over its files: those that have been seen.
    """

    volume: Volume
    cure: str
    seen: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box inside.

        Raises:
            UserError: a file is lost or damaged; says what to run.
        """
        self._require_files(box)
        try:
            return self.array.read(box)
        except StorageUnavailable:
            raise
        except UserError as error:
            raise UserError(f"{error.what}; {self.cure}", error.where) from error

    def _require_files(self, box: Box) -> None:
        size = Coordinate(self.shards)
        _, rows, columns = (slice(b // s, -(-e // s)) for b, e, s in zip(box.begin, box.end, size, strict=True))
        for z in range(box.begin[0] // size[0], -(-box.end[0] // size[0])):
            seen = self._seen_of(z)
            if not seen[rows, columns].all():
                for row, column in np.argwhere(~seen[rows, columns]).tolist():
                    y, x = rows.start + row, columns.start + column
                    self._require_file(Coordinate(z, y, x) * size)
                    seen[y, x] = True

    def _seen_of(self, z: int) -> np.ndarray:
        """(y, x) bool over the files of a layer: those that have been seen."""
        if z not in self.seen:
            files = (-(-e // s) for e, s in zip(self.shape[-2:], self.shards[1:], strict=True))
            self.seen[z] = np.zeros(tuple(files), dtype=bool)
        return self.seen[z]

    def _require_file(self, begin: Coordinate) -> None:
        voxel = Box(begin, begin + Coordinate(1, 1, 1))
        missing = self.volume.missing(voxel)
        if missing:
            raise UserError(f"chunk {missing[0]} is missing; {self.cure}", self.volume.name)
        if isinstance(self.volume.array, OwnFilesArray):
            self.volume.array.require_own(voxel)


def complete(volume: Volume, cure: str) -> Volume:
    """A volume that a run has converted, with every file required.

    Args:
        volume: as it was opened.
        cure: what to do about a file that is lost or damaged, for messages.
    """
    array = volume.array.array if isinstance(volume.array, OwnFilesArray) else volume.array  # looked at once, too
    return replace(volume, array=CompleteArray(array, volume, cure))


def open_computed(container: Place, dataset: str, run_directory: Path) -> RunVolume:
    """An array that a stage has written, for those who score it or show it.

    Args:
        container, dataset: as of `open_volume`.
        run_directory: of the run.

    Raises:
        UserError: there is none, or its metadata are damaged.
    """
    opened = open_volume(container, dataset)
    return ComputedVolume(**vars(opened), cure=cure_of_computed(run_directory))


def cure_of_computed(run_directory: Path) -> str:
    """What to do about a lost or damaged file of a stage, for messages."""
    return f"{command_line('audit.py', run_directory / 'config.json', '--requeue')} has it made again"


def cure_of_converted(container: Place, run_directory: Path, is_complete: bool, has_records: bool) -> str:
    """What to do about a lost or damaged file of a converted source, for messages.

    Args:
        container: that holds it.
        run_directory: of the run.
        is_complete: the source was converted to its end.
        has_records: by a version that keeps a checksum of every block.
    """
    config = run_directory / "config.json"
    if not is_complete:
        return f"{command_line('import_data.py', config)} goes on with the import, which is not complete"
    if has_records:
        return (
            f"{command_line('audit.py', config, '--requeue')} and then {command_line('import_data.py', config)} have"
            " it converted again"
        )
    return f"delete {located(container).name} and import the source anew with {command_line('import_data.py', config)}"
