"""Whether sources that are read where they are still are what the run began with: every chunk, and sampled voxels."""

from __future__ import annotations

from typing import Any

from ..config import FileSource
from ..run import Run
from ..volumes.identity import Identity, what_changed
from ..volumes.present_chunks import from_json, lost_chunks, present_chunks
from ..volumes.run_sources import RunSource
from ..volumes.volume import Volume
from .preparing import volumes_in_place

NAMED = 3
"""Lost chunks that a message names."""


def audit_sources(run: Run) -> list[str]:
    """What is wrong with the sources of the config that are read in place, a line for each volume; empty if nothing is.

    Chunks that were there at first use must still be there, and the sampled ones must hold the same voxels.

    Raises:
        StorageUnavailable: a server does not answer.
        UserError: a source is gone or cannot be read.
    """
    wrong = []
    for name in sorted(run.config.volumes.sources):
        source = run.source(name)
        known = source.read_record().get("volumes", {})
        volumes = volumes_in_place(source, source.datasets_in_place()) if known else {}
        for dataset in sorted(volumes.keys() & known.keys()):
            volume = volumes[dataset]
            trouble = _trouble(source, volume, known[dataset])
            if trouble:
                wrong.append(f"{dataset} of the source {name}, {volume.name}: {trouble}")
    return wrong


def _trouble(source: RunSource, volume: Volume, known: dict[str, Any]) -> str:
    """What is wrong with one volume; empty if nothing is."""
    assert isinstance(source.section, FileSource)
    if known.get("chunks") is not None:
        before = from_json(known["chunks"])
        now = present_chunks(volume, before.size)
        lost = [] if now is None else lost_chunks(volume, before, now)
        if lost:
            names = ", ".join(lost[:NAMED]) + (", …" if len(lost) > NAMED else "")
            return f"{len(lost)} of {int(before.sum())} chunks are lost ({names}); put them back"
    before_use = Identity(metadata=known["metadata"], files=None, voxels=known["voxels"])
    changed = what_changed(before_use, volume.identity(source.section.samples))
    return f"{changed} are others than when the run began to use it" if changed else ""
