"""What TensorStore has done in this process: chunks decoded, files read and written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts

from pipeline.volumes import Box, StoredArray
from pipeline.volumes.volume import Volume

CHUNKS, READS, WRITES = "cache/chunk_cache/reads", "kvstore/file/read", "kvstore/file/write"
"""Chunks that were asked for and so decoded, requests to files, files that were written and renamed."""
BYTES_READ = "kvstore/file/bytes_read"


def counted(metric: str) -> int:
    """How often something has happened since the process began."""
    found = ts.experimental_collect_matching_metrics(f"/tensorstore/{metric}")
    return sum(int(entry["values"][0]["value"]) for entry in found if entry["name"] == f"/tensorstore/{metric}")


def dataset_of(array: StoredArray) -> str:
    """The name of an array in its container."""
    parts = array.folder.parts
    place = max(index for index, part in enumerate(parts) if part.endswith(".zarr"))
    return "/".join(part for part in parts[place + 1 :] if part != "s0")


def count_chunks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """From here on, chunks that are decoded, by dataset; of one thread."""
    counts: Counter[str] = Counter()
    read = StoredArray.read

    def counting(array: StoredArray, box: Box) -> np.ndarray:
        before = counted(CHUNKS)
        data = read(array, box)
        counts[dataset_of(array)] += counted(CHUNKS) - before
        return data

    read_source = Volume.read

    def counting_source(volume: Volume, box: Box) -> np.ndarray:
        before = counted(CHUNKS)
        data = read_source(volume, box)
        counts[volume.name.removesuffix("/s0").rpartition("/")[2]] += counted(CHUNKS) - before
        return data

    monkeypatch.setattr(StoredArray, "read", counting)
    monkeypatch.setattr(Volume, "read", counting_source)
    return counts


def file_names(folder: Path) -> list[str]:
    """Names of all files below a folder, sorted."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
