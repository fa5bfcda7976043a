"""Machine code that many processes keep in one place: none of them gets what was compiled for other arguments."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pipeline.segmentation.compiled import CodeFiles

STAMP = (1.0, 10)
STRIDED, CONTIGUOUS = (("array(uint64, 3d, A)",), "cpu"), (("array(uint64, 3d, C)",), "cpu")


def files(folder: Path, stamp: tuple[float, int] = STAMP) -> CodeFiles:
    """The cache of a function as one process sees it."""
    return CodeFiles(str(folder), "contacts._add-1.py311", stamp)


def test_only_what_was_compiled_from_this_source_for_these_arguments_is_used(tmp_path: Path) -> None:
    cache = files(tmp_path)
    assert cache.load(STRIDED) is None
    cache.save(STRIDED, "code")
    assert cache.load(STRIDED) == "code"
    assert files(tmp_path, (2.0, 10)).load(STRIDED) is None, "the source has changed"
    assert cache.load(CONTIGUOUS) is None
    (stored,) = tmp_path.iterdir()
    cache.save(CONTIGUOUS, "other code")
    (other,) = set(tmp_path.iterdir()) - {stored}
    stored.write_bytes(other.read_bytes())
    assert cache.load(STRIDED) is None, "a file of other arguments in its place"
    cache.save(STRIDED, "code")
    whole = stored.read_bytes()
    for damaged in (b"", whole[:-1], whole[:40], whole[:-1] + b"?"):
        stored.write_bytes(damaged)
        assert cache.load(STRIDED) is None
    cache.flush()
    assert not list(tmp_path.iterdir())


COUNT = """
import sys
import numpy as np
from pipeline.segmentation.contacts import count_contacts
dtype, axis = sys.argv[1], int(sys.argv[2])
ids = np.random.default_rng(0).integers(1, 6, (6, 7, 8)).astype(np.uint64)
before, behind = [slice(None)] * 3, [slice(None)] * 3
before[axis], behind[axis] = slice(None, -1), slice(1, None)
affinities = np.ones((1, *ids.shape), dtype) * np.dtype(dtype).type(255 if dtype == "uint8" else 1)
_, counts, sums = count_contacts(affinities, ids, [(tuple(behind), tuple(before))])
expected = int((ids[tuple(behind)] != ids[tuple(before)]).sum())
assert counts.sum() == expected == sums.sum(), (dtype, axis, counts.sum(), expected)
"""


def test_workers_that_start_together_all_count_right(tmp_path: Path) -> None:
    """In an empty cache: contiguous arrays (contacts along z) and others, two types of affinities, then all again.

    numba's own files were mixed up so, once, on a busy machine: from then on a third of a graph's blocks were wrong.
    """
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    kept: list[dict[Path, int]] = []
    for _ in range(2):
        started = [
            subprocess.Popen([sys.executable, "-c", COUNT, dtype, axis], env=environment, stderr=subprocess.PIPE)
            for dtype in ("uint8", "float64")
            for axis in ("0", "2")
        ]
        for process in started:
            assert process.communicate()[1] == b"" and process.returncode == 0
        kept.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("contacts._add_contacts*")})
    assert kept[0] == kept[1], "what was kept is loaded, and not compiled again"
    assert len(kept[0]) == 4
