"""Published data sets by name: downloaded once, checked, and read like any other file."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch

from ..config import FileSource, PublicSource
from ..errors import UserError
from ..run import file_digest, read_json, replaced_file, write_json
from .file_source import FileOpener
from .registry import DATASETS, PublicDataset, PublicFile
from .source import OpenSource

CHECKSUMS = "checksums.json"
"""File in the cache that records the checksums of files whose publisher states none."""


@dataclass(frozen=True)
class PublicOpener:
    """Opens a published data set; see `SourceOpener`.

    Attributes:
        source: its config section.
        where: dotted path of that section.
    """

    source: PublicSource
    where: str

    def identity(self) -> dict[str, Any] | None:
        """The data set is determined by its entry in the registry; an import stays valid when the download is
        deleted.
        """
        dataset = find_dataset(self.source.name, f"{self.where}.name")
        return {"files": [[file.name, file.checksum] for file in dataset.files]}

    @contextmanager
    def open(self) -> Iterator[OpenSource]:
        """Download what is missing and open it.

        Raises:
            UserError: the name is unknown, or a file cannot be had or is not what was published.
        """
        dataset = find_dataset(self.source.name, f"{self.where}.name")
        folder = cache_folder(self.source.cache)
        for file in dataset.files:
            fetch(file, folder, dataset, self.where)
        with FileOpener(_file_source(dataset, folder), self.where).open() as opened:
            yield opened


def find_dataset(name: str, where: str) -> PublicDataset:
    """The registered data set of a name.

    Raises:
        UserError: there is none.
    """
    if name not in DATASETS:
        raise UserError(f"there is no public data set {name!r}; there are {', '.join(sorted(DATASETS))}", where)
    return DATASETS[name]


def cache_folder(configured: str | None) -> Path:
    """The folder of downloads: as configured, `$EMDISTILL_CACHE`, or the user's cache folder."""
    chosen = configured or os.environ.get("EMDISTILL_CACHE")
    return Path(chosen).expanduser() if chosen else Path(pooch.os_cache("emdistill"))


def fetch(file: PublicFile, folder: Path, dataset: PublicDataset, where: str) -> Path:
    """Make sure that a published file lies in the cache, complete and unaltered.

    Args:
        file: what to fetch.
        folder: the cache.
        dataset: the data set that it belongs to, for messages.
        where: dotted config path, for messages.

    Returns:
        The file's path, or the folder into which an archive was unpacked.

    Raises:
        UserError: it cannot be downloaded (the message says what to place where by hand), or its checksum differs.
    """
    path = folder / file.name
    if not path.exists():
        _download(file, path, dataset, where)
    _verify(file, path, where)
    return _unpack(file, path, where) if file.members else path


def _file_source(dataset: PublicDataset, folder: Path) -> FileSource:
    labels = None if dataset.labels_file is None else str(folder / dataset.labels_file)
    return FileSource(
        path=str(folder / dataset.raw_file),
        raw=dataset.raw,
        labels_path=labels,
        labels=dataset.labels,
        voxel_size=dataset.voxel_size,
    )


def _download(file: PublicFile, path: Path, dataset: PublicDataset, where: str) -> None:
    if file.url is None:
        raise UserError(
            f"{dataset.name} has no direct download: obtain {file.name} from {dataset.page} and place it at {path}",
            where,
        )
    fetcher = pooch.create(
        path=path.parent,
        base_url="",
        registry={file.name: file.checksum},
        urls={file.name: file.url},
        retry_if_failed=1,
    )
    try:
        fetcher.fetch(file.name, downloader=pooch.HTTPDownloader(timeout=30))
    except Exception as error:  # requests, urllib3 and pooch raise many kinds; all mean that the file could not be had
        path.unlink(missing_ok=True)
        reason = str(error).split("\n")[0][:200]
        raise UserError(
            f"{file.url} cannot be downloaded ({type(error).__name__}: {reason}); fetch it by other means and place"
            f" it at {path}",
            where,
        ) from error


def _verify(file: PublicFile, path: Path, where: str) -> None:
    algorithm, expected = (file.checksum or "sha256:").split(":")
    actual = file_digest(path, algorithm)
    record = path.parent / CHECKSUMS
    known = read_json(record)
    if not expected:
        expected = known.setdefault(file.name, actual)
        if expected == actual:
            write_json(record, known)
    if actual != expected:
        origin = "published" if file.checksum else f"recorded at the first use in {record}"
        raise UserError(
            f"{path} has the {algorithm} {actual}, not {expected} as {origin}; the file is damaged or another"
            " version: delete it and run again",
            where,
        )


def _unpack(file: PublicFile, archive: Path, where: str) -> Path:
    """Unpack the members that are needed, each in one step, beside the archive."""
    folder = archive.with_suffix("")
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in file.members:
                target = folder / member
                if not target.exists() or target.stat().st_size != opened.getinfo(member).file_size:
                    _extract(opened, member, target)
    except (zipfile.BadZipFile, KeyError) as error:
        raise UserError(f"{archive} cannot be unpacked: {error}; delete it and run again", where) from error
    return folder


def _extract(archive: zipfile.ZipFile, member: str, target: Path) -> None:
    with archive.open(member) as source, replaced_file(target) as file:
        shutil.copyfileobj(source, file)
