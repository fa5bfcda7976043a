"""A run directory: where each thing lies, and which part of which volume each stage works on."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from funlib.geometry import Coordinate

from . import __version__
from .config import Config, Region, config_hash, dump_config
from .config.paths import portable
from .errors import UserError, writing
from .volumes import Box
from .volumes.locations import Location, located
from .volumes.run_containers import names_in

if TYPE_CHECKING:
    from .volumes.aligned import Labels, Mask
    from .volumes.intensity import IntensityRange
    from .volumes.run_sources import RunSource
    from .volumes.volume import Volume

RESULTS_DEPEND_ON = ("torch", "gunpowder", "daisy", "zarr", "numpy", "scipy", "scikit-image", "waterz", "higra")

SEGMENTATIONS = "segmentation"
"""Group of the volume that holds one array per threshold."""


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
    def arrays(self) -> Location:
        """Where the containers of arrays lie: the run directory, unless `storage.location` says otherwise.

        Raises:
            UserError: that is no place where arrays can lie.
        """
        chosen = self.config.storage.location
        if chosen is None:
            return located(self.directory)
        return Location.of(chosen, where="storage.location")

    @property
    def volume(self) -> Location:
        """The container of the volume that is segmented."""
        return self.arrays / "volume.zarr"

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

    @property
    def config_hash(self) -> str:
        """Hash of the config, wherever the run directory lies."""
        return config_hash({**dump_config(self.config), "run_directory": "."})

    def network_directory(self, role: str) -> Path:
        """Folder of checkpoints and curves of the `teacher` or `student`."""
        return self.directory / role

    def container(self, source: str) -> Location:
        """The zarr container that a source is converted into: the main one for the segmented source."""
        if source == self.config.volumes.segment.source:
            return self.volume
        return self.arrays / f"sources/{source}.zarr"

    def source(self, name: str) -> RunSource:
        """A source, wherever it is read from."""
        from .volumes.run_sources import RunSource  # workers of most stages start sooner without TensorStore

        section = self.config.volumes.sources[name]
        record = self.directory / "sources" / f"{name}.json"
        return RunSource(name, section, self.container(name), record, self.config.targets.unlabelled_id)

    def open_raw(self, source: str) -> Volume:
        """Raw intensities of a source, (z, y, x).

        Raises:
            StorageUnavailable: a server does not answer.
            UserError: the source has to be converted and is not, or cannot be read.
        """
        return self.source(source).open_raw()

    def intensity(self, source: str) -> IntensityRange:
        """The raw intensities of a source that are black and white for the networks."""
        return self.source(source).intensity()

    def has_labels(self, source: str) -> bool:
        """Whether a source is labelled."""
        return self.source(source).has_labels()

    def open_labels(self, source: str) -> Labels:
        """Labels of a source on raw's voxels, (z, y, x) uint64.

        Raises:
            UserError: the source has no labels, or they lie elsewhere than raw.
        """
        return self.source(source).open_labels()

    def open_mask(self, source: str) -> Mask | None:
        """Where a source is to be used; None for everywhere."""
        return self.source(source).open_mask()

    def segmentation_names(self) -> list[str]:
        """Names of the segmentations in the volume, sorted: their thresholds with two decimals, such as `0.50`."""
        return names_in(self.volume, SEGMENTATIONS)

    def save_config(self) -> None:
        """Write the config as run to `config.json`, so that the directory can be moved: `run_directory` is `.`, paths
        inside it are relative to it, and all others are absolute.
        """
        document = portable(dump_config(self.config), self.directory)
        write_json(self.directory / "config.json", {**document, "run_directory": "."})


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
            f"the region from voxel {tuple(begin)} to {tuple(end)} reaches beyond the source of {tuple(shape)} voxels",
            where,
        )
    return box


def package_versions() -> dict[str, str]:
    """Versions of this package, of Python, and of the packages that results may depend on."""
    return {
        "emdistill": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in RESULTS_DEPEND_ON},
    }


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Hash of a file's content in hexadecimal digits; the file is read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def place_hash(directory: Path) -> str:
    """Hash of a directory's absolute path, eight hexadecimal digits; a copy elsewhere has another."""
    return hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:8]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or an empty one if the file does not exist.

    Raises:
        ValueError: the file is no JSON.
    """
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return dict(document)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file with one per line, such as `curves.jsonl`; empty if the file does not exist.

    A line that a crash cut short is left out.
    """
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON object in one step: a reader sees the old or the new file, never half of one.

    Raises:
        UserError: the folder cannot be written.
    """
    text = json.dumps(document, indent=2) + "\n"
    with replaced_file(path) as file:
        file.write(text.encode())


@contextmanager
def replaced_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` in one step when the block ends without an error.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            with suppress(OSError):  # file systems that cannot do this need it not
                sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to disk: a renamed file then survives a loss of power.

    Raises:
        OSError: the file system cannot do that.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_summary(run: Run) -> dict[str, Any]:
    """The content of `summary.json`; empty if nothing has run yet.

    Raises:
        UserError: the file is damaged.
    """
    try:
        return read_json(run.summary)
    except ValueError as error:
        raise UserError(f"is no JSON ({error}); delete it, it is written anew", str(run.summary)) from None


def update_summary(run: Run, **sections: Any) -> None:
    """Merge sections into `summary.json`; a section that is a dictionary is merged key by key, one level deep.

    The hash of the config and the versions of the packages are written along with every update.
    """
    summary = read_summary(run)
    sections |= {"config_hash": run.config_hash, "versions": package_versions()}
    for name, value in sections.items():
        if isinstance(value, dict) and isinstance(summary.get(name), dict):
            summary[name].update(value)
        else:
            summary[name] = value
    write_json(run.summary, summary)
