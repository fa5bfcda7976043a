"""A run directory: where each thing lies, and which part of which volume each stage works on."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from funlib.geometry import Coordinate

from .config import Config, Region, dump_config
from .errors import UserError
from .volumes import Box, Volume, open_volume, volume_exists


@dataclass(frozen=True)
class Run:
    """The layout of a run directory.

    Attributes:
        config: the validated config; its `run_directory` is absolute.
    """

    config: Config

    @property
    def directory(self) -> Path:
        """The run directory."""
        return Path(self.config.run_directory)

    @property
    def volume(self) -> Path:
        """The container of the volume that is segmented."""
        return self.directory / "volume.zarr"

    @property
    def luts(self) -> Path:
        """Folder of the lookup tables from fragments to segments."""
        return self.directory / "luts"

    @property
    def tracking(self) -> Path:
        """Folder of the markers of finished blocks."""
        return self.directory / "tracking"

    @property
    def logs(self) -> Path:
        """Folder of worker logs."""
        return self.directory / "logs"

    @property
    def summary(self) -> Path:
        """Scores, stages and versions, as JSON."""
        return self.directory / "summary.json"

    def network_directory(self, role: str) -> Path:
        """Folder of checkpoints and curves of the `teacher` or `student`."""
        return self.directory / role

    def container(self, source: str) -> Path:
        """The zarr container that a source is imported into: the main one for the segmented source."""
        if source == self.config.volumes.segment.source:
            return self.volume
        return self.directory / "sources" / f"{source}.zarr"

    def open_raw(self, source: str) -> Volume:
        """Raw intensities of an imported source, (z, y, x) uint8 or uint16."""
        return open_volume(self.container(source), "raw")

    def has_labels(self, source: str) -> bool:
        """Whether the imported source is labelled."""
        return volume_exists(self.container(source), "labels")

    def open_labels(self, source: str) -> Volume:
        """Labels of an imported source, (z, y, x) uint64.

        Raises:
            UserError: the source has no labels.
        """
        if not self.has_labels(source):
            raise UserError("this source has no labels", f"volumes.sources.{source}")
        return open_volume(self.container(source), "labels")

    def save_config(self) -> None:
        """Write the config as run to `config.json`, with `run_directory` `.` so that the directory can be moved."""
        document = dump_config(self.config)
        document["run_directory"] = "."
        write_json(self.directory / "config.json", document)


def region_box(region: Region, shape: Coordinate, where: str) -> Box:
    """The voxels of a region of a volume.

    Args:
        region: voxel bounds or a share of the sections.
        shape: extent of the source in voxels.
        where: dotted config path, for messages.

    Raises:
        UserError: the region is empty or reaches beyond the source.
    """
    if region.z_share is not None:
        begin = Coordinate(round(region.z_share[0] * shape[0]), 0, 0)
        end = Coordinate(round(region.z_share[1] * shape[0]), shape[1], shape[2])
    else:
        begin = Coordinate(region.begin or (0, 0, 0))
        end = Coordinate(region.end or shape)
    box = Box(begin, end)
    if box.size == 0:
        raise UserError(f"the region from voxel {tuple(begin)} to {tuple(end)} is empty", where)
    if not Box.of_shape(shape).contains(box):
        raise UserError(
            f"the region from voxel {tuple(begin)} to {tuple(end)} reaches beyond the source, which has {tuple(shape)} voxels",
            where,
        )
    return box


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or an empty one if the file does not exist."""
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return dict(document)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON object in one step: a reader sees the old or the new file, never half of one.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w") as file:
                json.dump(document, file, indent=2)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror or error}", str(path)) from error


def update_summary(run: Run, **sections: Any) -> None:
    """Merge sections into `summary.json`; a section that is a dictionary is merged key by key."""
    summary = read_json(run.summary)
    for name, value in sections.items():
        if isinstance(value, dict) and isinstance(summary.get(name), dict):
            summary[name].update(value)
        else:
            summary[name] = value
    write_json(run.summary, summary)
