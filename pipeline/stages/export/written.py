"""What an export has written besides blocks, with a checksum of each file, so that the audit can tell damage.

The checksums lie in the run, in `tracking/exports/<place>.json`. Several exports may share a place; of a file that two
of them write, the later one counts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from isal.isal_zlib import crc32
from typing_extensions import override

from ...command_names import SCRIPTS
from ...engine.blocks.stage import DriverStep, Stage
from ...engine.tracking.progress import read_record, recorded_key
from ...run import Run
from ...small_files import DamagedFile, read_json, write_json
from ...volumes.exports import exists_at, write_file
from ...volumes.locations import Location
from ...volumes.placed_files import checksum_of_file, copy_file
from .place import place_key


class WrittenFile(NamedTuple):
    """A file of an export.

    Attributes:
        folder: inside the export; empty for its top.
        name: of the file.
        content: all of it; or a file on a disk that has it, for as long as the next one is not asked for.
    """

    folder: str
    name: str
    content: bytes | Path


@dataclass(frozen=True)
class FilesStep(DriverStep):
    """A few files of an export, replaced whenever they are made.

    Attributes:
        to: path or URL of the export.
    """

    to: str

    script = SCRIPTS["export"]

    @property
    @abstractmethod
    def sign(self) -> tuple[str, str]:
        """Folder and name of a file without which nothing has been written."""

    @abstractmethod
    def files(self) -> Iterator[WrittenFile]:
        """What there is to write."""

    @override
    def stored_key(self) -> str | None:
        folder, name = self.sign
        return recorded_key(self) if exists_at(Location.of(self.to).child(folder), name) else None

    @override
    def prepare(self) -> None:
        """Nothing: the files are replaced."""

    @override
    def drop(self) -> None:
        """Nothing: the files are replaced."""

    @override
    def execute(self) -> None:
        notes = _read_notes(_notes_path(self.run, self.to))
        place = Location.of(self.to)
        for folder, name, content in self.files():
            if isinstance(content, Path):
                checksum = copy_file(place.child(folder), name, content)
            else:
                write_file(place.child(folder), name, content)
                checksum = crc32(content)
            notes[f"{folder}/{name}"] = {"step": self.name, "checksum": checksum}
        write_json(_notes_path(self.run, self.to), notes)

    @override
    def damage(self) -> str:
        notes = _read_notes(_notes_path(self.run, self.to))
        own = {path: note["checksum"] for path, note in notes.items() if note["step"] == self.name}
        folder, name = self.sign
        if f"{folder}/{name}" not in notes:
            return "there is no checksum of its files"
        for path, checksum in own.items():
            folder, _, name = path.rpartition("/")
            found = checksum_of_file(Location.of(self.to).child(folder), name)
            if found != checksum:
                return f"{path.lstrip('/')} is {'missing' if found is None else 'damaged'}"
        return ""


def made_otherwise(stage: Stage, setting: str) -> Any:
    """The setting with which what lies at the place of a stage was made; None if it is that of now, or unknown."""
    now = stage.settings()[setting]
    recorded = read_record(stage).get("settings", {}).get(setting, now)
    return None if recorded == now else recorded


def _notes_path(run: Run, to: str) -> Path:
    return run.tracking / "exports" / f"{place_key(to)}.json"


def _read_notes(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except DamagedFile:
        return {}
