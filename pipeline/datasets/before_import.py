"""What a source will be once it is imported, from the metadata of its files: for refusals that come before hours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from funlib.geometry import Coordinate

from ..config import PublicSource
from ..run import Run
from ..volumes.sources import DATASETS
from ..volumes.volume import Volume
from .importing import is_imported, open_kind


@dataclass(frozen=True)
class ForeseenSource:
    """A source, imported or not.

    Attributes:
        shape: extent of raw in voxels.
        voxel_size: nanometres, order z, y, x.
        is_labelled: whether it has labels.
        raw: as it lies in its files or in the run; None of a phantom that is not imported yet.
    """

    shape: Coordinate
    voxel_size: tuple[float, float, float]
    is_labelled: bool
    raw: Volume | None


@contextmanager
def foresee(run: Run, name: str) -> Iterator[ForeseenSource | None]:
    """Open a source without importing it; None of a public data set that is not imported yet.

    Raises:
        StorageUnavailable: a server does not answer.
        UserError: the source is missing or ambiguous, or differs from the one that was imported before.
    """
    source = run.source(name)
    if len(source.datasets_in_place()) == len(DATASETS) or is_imported(name, source.section, source.container):
        raw = source.open_raw()
        yield ForeseenSource(raw.shape, raw.voxel_size, source.has_labels(), raw)
    elif isinstance(source.section, PublicSource):
        yield None  # what it is stands in files that would have to be downloaded
    else:
        with open_kind(name, source.section, source.unlabelled_id).open() as opened:
            raw_data = opened.datasets["raw"]
            stored = None if opened.source is None else opened.source.raw
            yield ForeseenSource(raw_data.shape, raw_data.voxel_size, "labels" in opened.datasets, stored)
