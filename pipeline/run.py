"""A run directory: where each thing lies, and which part of which volume each stage works on."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NotRequired

from funlib.geometry import Coordinate
from pydantic import Field
from typing_extensions import TypedDict

from . import __version__
from .config import Config, Region, config_hash, dump_config
from .config.paths import portable
from .errors import UserError
from .small_files import Amount, Count, as_kind
from .small_files import read_json as read_json
from .small_files import read_json_lines as read_json_lines
from .small_files import replaced_file as replaced_file
from .small_files import write_json as write_json
from .volumes import Box
from .volumes.locations import Location, located
from .volumes.run_containers import names_in

if TYPE_CHECKING:
    from .volumes import RunVolume
    from .volumes.aligned import Labels, Mask
    from .volumes.intensity import IntensityRange
    from .volumes.run_sources import RunSource
    from .volumes.volume import Volume

RESULTS_DEPEND_ON = ("torch", "gunpowder", "daisy", "zarr", "numpy", "scipy", "scikit-image", "waterz", "higra")

MENDED = "delete it, it is written anew"
"""What to do about a damaged file that only reports."""

CERTAINTY = "certainty"
"""Array of the volume that says how sure the segmentation is, one voxel per block."""
SEGMENTATIONS = "segmentation"
"""Group of the volume that holds one array per threshold."""


class StageEntry(TypedDict, total=False):
    """What became of a stage."""

    blocks_done: Count
    blocks_failed: Count
    blocks_skipped: Count
    blocks_orphaned: Count
    blocks_empty: Count
    error: str | None
    seconds: Amount
    voxels_per_second: Amount
    peak_worker_memory: Count


class Best(TypedDict):
    """The threshold with the best scores, which stand beside it."""

    threshold: Amount
    voi_split: NotRequired[Amount]
    voi_merge: NotRequired[Amount]
    voi_sum: NotRequired[Amount]
    adapted_rand_error: NotRequired[float]


class Regions(TypedDict, total=False):
    """Config paths of the regions that the threshold was chosen on, and that the best scores were reported on."""

    chosen_on: str
    reported_on: str


class RankedBlocks(TypedDict):
    """How well the array `certainty` ranks blocks.

    `threshold`: of the segmentation. `blocks`: how many were compared. `spearman`: rank correlation of their certainty
    with their VOI, from -1 (the less certain, the worse, without exception) to 1; None where all are alike,
    or of fewer than five blocks.
    """

    threshold: Amount
    blocks: Count
    spearman: Annotated[float, Field(ge=-1, le=1)] | None


class Summary(TypedDict, total=False):
    """What `summary.json` may say, as far as anything reads it."""

    stages: dict[str, StageEntry]
    scores: dict[Annotated[str, Field(pattern=r"^\d+\.\d\d$")], dict[str, float]] | None
    best: Best | None
    regions: Regions | None
    certainty: RankedBlocks | None
    versions: dict[str, str]


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

    def open_computed(self, dataset: str) -> RunVolume:
        """An array that a stage has written into the volume, to be scored or looked at.

        Raises:
            UserError: there is none, or its metadata are damaged. Reading a damaged shard says what to run.
        """
        from .volumes.complete import open_computed

        return open_computed(self.volume, dataset, self.directory)

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

    def segment_sizes(self, threshold: str) -> Path:
        """Where the sizes of the segments at a threshold lie."""
        return self.luts / f"sizes_{threshold}.json"

    def segmentation_names(self) -> list[str]:
        """Names of the segmentations in the volume, sorted: their thresholds, such as `0.50` and `0.325`."""
        return names_in(self.volume, SEGMENTATIONS)

    def save_config(self) -> None:
        """Write the config as run to `config.json`, so that the directory can be moved: `run_directory` is `.`, paths
        inside it are relative to it, and all others are absolute.
        """
        write_json(self.directory / "config.json", self._config_document())

    def has_saved_config(self) -> bool:
        """Whether `config.json` of the directory says what the config of this run says."""
        return bool(read_json(self.directory / "config.json") == json.loads(json.dumps(self._config_document())))

    def _config_document(self) -> dict[str, Any]:
        return {**portable(dump_config(self.config), self.directory), "run_directory": "."}


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


def read_summary(run: Run) -> dict[str, Any]:
    """The content of `summary.json`; empty if nothing has run yet.

    Raises:
        DamagedFile: the file says something else.
    """
    summary = read_json(run.summary, MENDED)
    as_kind(summary, Summary, run.summary, MENDED)
    return summary


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
