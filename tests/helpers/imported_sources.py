"""Import of one source into a container, without a config file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import FileSource, Source, dump_config, parse_config
from pipeline.datasets import is_imported
from pipeline.run import Run
from pipeline.stages.importing import ensure_imported


def run_of_sources(directory: Path, block: Sequence[int], sources: dict[str, Any], **sections: Any) -> Run:
    """A run that segments the first of some sources, whatever it does with it; blocks in this process."""
    document = {
        "run_directory": str(directory),
        "volumes": {"sources": sources, "segment": {"source": next(iter(sources))}, "import_block": list(block)},
        "student": {"network": {"name": "section_unet"}, "distillation": None},
        "cluster": {"executor": "serial"},
        **sections,
    }
    return Run(parse_config(document))


def import_source(name: str, source: Source, container: Path, block: Sequence[int], **sections: Any) -> bool:
    """Copy a source into the container `volume.zarr` of a run; whether anything was done."""
    assert container.name == "volume.zarr"
    if isinstance(source, FileSource):
        source = source.model_copy(update={"copy_": True})
    run = run_of_sources(container.parent, block, {name: dump_config(source)}, **sections)
    before = is_imported(name, source, container)
    ensure_imported(run)
    return not before


def with_sparse_raw(run: Run, container: Path) -> Run:
    """The run with raw of a container that is read in place, where chunks that are not there are zeros; looked at."""
    volumes = run.config.volumes
    sources = {volumes.segment.source: FileSource(path=str(container), raw="raw")}
    volumes = volumes.model_copy(update={"sources": sources, "train": (), "validate_": None})
    changed = Run(run.config.model_copy(update={"volumes": volumes}))
    ensure_imported(changed)
    return changed
