"""Look at the sources of a run, and say what is there or would be.

What is read in place is looked at once: `sources/<name>.json` of the run then says how to recognise it, and the
intensities that were measured.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..config import FileSource, PublicSource, Source
from ..errors import UserError
from ..run import Run, write_json
from ..volumes.identity import Identity, what_changed
from ..volumes.intensity import IntensityRange, intensity_range, strong_difference
from ..volumes.present_chunks import as_json, present_chunks
from ..volumes.run_sources import RunSource
from ..volumes.sources import DATASETS
from ..volumes.volume import Volume
from .describing import describe
from .importing import imported_identity, is_imported, open_kind, section_hash

logger = logging.getLogger(__name__)

_LABELS = ("labels",)
"""Keys of a source that name what raw does not depend on: whether it has changed is seen by comparing it."""


def is_ready(run: Run, name: str) -> bool:
    """Whether raw of a source can be read: converted, or looked at where it is."""
    source = run.source(name)
    return source.is_converted("raw") or "raw" in source.read_record().get("volumes", {})


def look_at(source: RunSource, in_place: Sequence[str], *, with_chunks: bool = True) -> None:
    """Note what tells whether volumes that are read in place have changed, and intensities to be measured.

    Args:
        source: to be read.
        in_place: which of its datasets are.
        with_chunks: list the chunks, too, which takes minutes where there are millions.

    Raises:
        StorageUnavailable: a server does not answer.
        UserError: a volume cannot be read, lies elsewhere than raw, or has changed since the run began to use it.
    """
    record = source.read_record()
    volumes = volumes_in_place(source, in_place)
    now = _identities(source, volumes)
    section = section_hash(source.section, _LABELS)
    if "volumes" in record:
        _require_unchanged(source, record, now)
        wanted = {**record, "volumes": {**now, **record["volumes"]}}
    else:
        wanted = {**record, "section": section, "volumes": now} if now else dict(record)
    if with_chunks:
        _list_chunks(source, volumes, wanted.get("volumes", {}))
    raw = source.open_raw()
    if source.intensity_setting(raw.dtype) == "percentiles" and "intensity" not in record and not _is_older(source):
        measured = intensity_range(raw, "percentiles", where=f"{source.where}.intensity")
        logger.info("%s: %s", source.name, measured.text)
        wanted["intensity"] = measured.as_json()
    if wanted != record:
        write_json(source.record, wanted)


def require_unchanged(run: Run, name: str) -> None:
    """Refuse a source, converted or read in place, that is no longer what the run began with.

    Of what was converted, the source itself may be gone; then its config section alone must be the same.

    Raises:
        StorageUnavailable: a server does not answer.
        UserError: says what differs, and what to redo.
    """
    source = run.source(name)
    record, in_place = source.read_record(), source.datasets_in_place()
    if len(in_place) < len(DATASETS):
        is_imported(name, source.section, source.container)
    if "volumes" in record:
        _require_unchanged(source, record, _identities(source, volumes_in_place(source, in_place)))


def _is_older(source: RunSource) -> bool:
    """Whether raw was imported by a version that measured no intensities, and networks are used to that."""
    imported = imported_identity(source.container) if source.is_converted("raw") else None
    return imported is not None and "version" not in imported and not source.record.exists()


def volumes_in_place(source: RunSource, in_place: Sequence[str]) -> dict[str, Volume]:
    """Those of raw, labels and mask that are read in place, as they are, by name.

    Raises:
        StorageUnavailable: a server does not answer.
        UserError: one cannot be read, or lies elsewhere than raw.
    """
    files = source.files()
    if files is None or not in_place:
        return {}
    raw = source.open_raw()
    found = {"raw": raw} if "raw" in in_place else {}
    for name, volume in (("labels", files.labels), ("mask", lambda _: files.mask())):
        opened = volume(raw) if name in in_place else None
        part = files.beside(raw, name, opened)
        if part is not None:
            found[name] = part.volume
    return found


def _identities(source: RunSource, volumes: dict[str, Volume]) -> dict[str, Any]:
    """What tells whether volumes changed."""
    if not volumes:
        return {}
    assert isinstance(source.section, FileSource)
    samples = source.section.samples
    return {name: _named(volume.identity(samples), volume.name) for name, volume in volumes.items()}


def _list_chunks(source: RunSource, volumes: dict[str, Volume], noted: dict[str, Any]) -> None:
    """Note which chunks are there, of volumes of which that is not noted yet and can be found out."""
    for name, volume in volumes.items():
        assert isinstance(source.section, FileSource)
        if "chunks" not in noted[name]:
            present = present_chunks(volume, source.section.listed_chunks)
            noted[name] = {**noted[name], "chunks": None if present is None else as_json(present)}


def _named(identity: Identity, name: str) -> Any:
    return {**identity, "name": name}


def _require_unchanged(source: RunSource, record: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse what differs from what the run began with.

    Raises:
        UserError: says what differs, and what to redo.
    """
    before = record["volumes"]
    for name, identity in now.items():
        if name not in before:
            continue
        old: Any = dict(before[name])
        if old.pop("name", None) != identity.get("name"):
            old["files"] = None  # a copy elsewhere has other times
        changed = what_changed(old, identity)
        if changed is not None:
            raise UserError(
                f"the source has changed since it was imported: {changed}, in the {name} {identity.get('name')};"
                f" {_what_to_redo(source, name)}",
                source.where,
            )
    gone = [name for name in before if name not in now and not source.is_converted(name)]
    sections = (section_hash(source.section, _LABELS), section_hash(source.section))  # the latter of earlier versions
    if record.get("section") not in sections or gone:
        what = f"its {gone[0]} are gone" if gone else "its config section"
        raise UserError(
            f"the source has changed since it was imported: {what}; {_what_to_redo(source, 'raw')}", source.where
        )


def _what_to_redo(source: RunSource, name: str) -> str:
    redo = "everything made from it is redone: train again in a new run_directory"
    if name != "raw":
        redo = f"go on with the new {name} by deleting {source.record}, train again what was trained on the old ones"
        again = "predict again (02 --overwrite) and score again" if name == "mask" else "score again"
        redo += f" (teacher/, student/), and {again} with 06_evaluate.py"
        return f"{redo}; or use a new run_directory"
    return f"use a new run_directory, or delete {source.record} to start over: {redo}"


def tell_ranges(run: Run) -> None:
    """Say if the volume to segment has quite other intensities than those that networks are trained on."""
    volumes = run.config.volumes
    segmented = _range_of(run, volumes.segment.source)
    for name in sorted({region.source for region in volumes.train} - {volumes.segment.source}):
        trained = _range_of(run, name)
        if segmented is None or trained is None:
            continue
        difference = strong_difference(segmented, trained)
        if difference is not None:
            logger.warning(
                "%s, which is segmented, has other intensities than %s, which is trained on: %s; set"
                " volumes.sources.<name>.intensity if they were recorded alike",
                volumes.segment.source,
                name,
                difference,
            )


def _range_of(run: Run, name: str) -> IntensityRange | None:
    try:
        return run.intensity(name)
    except UserError:
        return None  # not imported yet


def describe_import(run: Run, sources: Iterable[str] | None = None) -> list[str]:
    """What every source is and what an import would do, one line each; data are looked at, nothing is written.

    Public data sets are not downloaded for it.

    Raises:
        StorageUnavailable: a server does not answer.
        UserError: a source is missing or ambiguous, or differs from the one that was imported before.
    """
    lines = []
    for name, section in chosen_sources(run, sources):
        source = run.source(name)
        in_place = source.datasets_in_place()
        if len(in_place) == len(DATASETS):
            lines.append(describe(source))
        elif is_imported(name, section, source.container):
            lines.append(f"{describe(source)}: already imported")
        elif isinstance(section, PublicSource):
            lines.append(f"{name}: would be downloaded and imported")
        else:
            with open_kind(name, section, source.unlabelled_id).open() as opened:
                lines.append(describe(source, opened, in_place))
    return lines


def chosen_sources(run: Run, names: Iterable[str] | None) -> Iterator[tuple[str, Source]]:
    """Sources by name with their config sections: all of the config, or those named.

    Raises:
        UserError: there is no such name.
    """
    sources = run.config.volumes.sources
    for name in sources if names is None else names:
        if name not in sources:
            raise UserError(f"there is no source {name!r}; there are {', '.join(sorted(sources))}", "volumes.sources")
        yield name, sources[name]
