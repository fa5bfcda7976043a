"""A run as it will be once its sources are imported, so that blocks can be planned before anything is converted.

An import that is to come is made in a temporary folder, without its voxels: arrays of which there are only the
metadata, and records of what is read in place. Plans ask for shape, place, type and chunks alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from typing_extensions import override

from ..config import PublicSource
from ..datasets import foresee, is_ready
from ..datasets.preparing import look_at
from ..run import Run, write_json
from ..volumes import ensure_container
from ..volumes.intensity import intensity_range
from ..volumes.locations import Location, located
from ..volumes.run_sources import RunSource
from .importing import plan_conversions


@dataclass(frozen=True)
class ForeseenRun(Run):
    """A run, some sources of which are as they will be.

    Attributes:
        foreseen: their names.
        folder: where they lie for now.
    """

    foreseen: frozenset[str]
    folder: Path

    @override
    def container(self, source: str) -> Location:
        return located(self.folder / f"{source}.zarr") if source in self.foreseen else super().container(source)

    @override
    def source(self, name: str) -> RunSource:
        found = super().source(name)
        return replace(found, record=self.folder / f"{name}.json") if name in self.foreseen else found


@contextmanager
def foreseen_run(run: Run, sources: Collection[str]) -> Iterator[Run | None]:
    """The run as it will be once some sources are imported; nothing is written into it.

    Args:
        run: the run.
        sources: names in `volumes.sources`.

    Yields:
        A run to be planned with, and not to be computed; None if a public data set would have to be downloaded for it.

    Raises:
        StorageUnavailable: a server does not answer.
        UserError: a source is missing, ambiguous, or does not fit the config.
    """
    waiting = frozenset(name for name in sources if not is_ready(run, name))
    if any(isinstance(run.config.volumes.sources[name], PublicSource) for name in waiting):
        yield None
    elif not waiting:
        yield run
    else:
        with tempfile.TemporaryDirectory() as folder:
            planned = ForeseenRun(run.config, waiting, Path(folder))
            for name in sorted(waiting):
                _import_without_voxels(planned, run, name)
            yield planned


def _import_without_voxels(planned: ForeseenRun, run: Run, name: str) -> None:
    source = planned.source(name)
    in_place = source.datasets_in_place()
    tasks = plan_conversions(planned, [name])
    if tasks:
        ensure_container(source.container, run.config.storage.format)
    for task in tasks:
        task.prepare()
    if "raw" not in in_place and source.intensity_setting(source.open_raw().dtype) == "percentiles":
        with foresee(run, name) as found:
            if found is not None and found.raw is not None:
                measured = intensity_range(found.raw, "percentiles", where=f"{source.where}.intensity")
                write_json(source.record, {"intensity": measured.as_json()})
    look_at(source, in_place, with_chunks=False)
