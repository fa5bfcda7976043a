"""Arrays that a run has converted, read strictly: every file must be there, for the formats take a lost one for zeros.

The array is wrapped, not the volume, so that no way of reading goes around it. A file is looked for once per process
and opened array, when the first box touches it: to do so before every read would cost as much as small boxes do.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from funlib.geometry import Coordinate

from ..command_names import command_line
from ..errors import UserError
from .boxes import Box, cells_of
from .links import OwnFilesArray
from .volume import Volume, VoxelArray


@dataclass(frozen=True)
class CompleteArray:
    """An array of which no file may be missing; see `VoxelArray`.

    Attributes:
        array: the array.
        volume: the same, with what names its files.
        cure: what to do about a file that is lost or damaged.
        known: (z, y, x) bool over its files: those that have been seen.
    """

    array: VoxelArray
    volume: Volume
    cure: str
    known: np.ndarray = field(repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of all axes."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of the voxels."""
        return self.array.dtype

    @property
    def chunks(self) -> tuple[int, int, int]:
        """Voxels along z, y, x that can only be decoded together."""
        return self.array.chunks

    @property
    def shards(self) -> tuple[int, int, int]:
        """Voxels along z, y, x of a file."""
        return self.array.shards

    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box inside.

        Raises:
            UserError: a file is lost or damaged; says what to run.
        """
        self._require_files(box)
        try:
            return self.array.read(box)
        except UserError as error:
            raise UserError(f"{error.what}; {self.cure}", error.where) from error

    def write(self, box: Box, data: np.ndarray) -> None:
        """What is converted is written by its stage alone."""
        raise ValueError(f"{self.volume.name} is opened to be read only")

    def _require_files(self, box: Box) -> None:
        size = Coordinate(self.shards)
        cells = tuple(slice(b // s, -(-e // s)) for b, e, s in zip(box.begin, box.end, size, strict=True))
        if self.known[cells].all():
            return
        for position in cells_of(box, size):
            if self.known[position]:
                continue
            begin = Coordinate(position) * size
            voxel = Box(begin, begin + Coordinate(1, 1, 1))
            missing = self.volume.missing(voxel)
            if missing:
                raise UserError(f"chunk {missing[0]} is missing; {self.cure}", self.volume.name)
            if isinstance(self.volume.array, OwnFilesArray):
                self.volume.array.require_own(voxel)
            self.known[position] = True


def complete(volume: Volume, cure: str) -> Volume:
    """A volume that a run has converted, with every file required.

    Args:
        volume: as it was opened.
        cure: what to do about a file that is lost or damaged, for messages.
    """
    files = [-(-extent // size) for extent, size in zip(volume.shape, volume.shards, strict=True)]
    array = volume.array.array if isinstance(volume.array, OwnFilesArray) else volume.array  # looked at once, too
    return replace(volume, array=CompleteArray(array, volume, cure, np.zeros(files, dtype=bool)))


def cure_of_converted(container: Path, run_directory: Path, is_complete: bool, has_records: bool) -> str:
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
    return f"delete {container} and import the source anew with {command_line('import_data.py', config)}"
