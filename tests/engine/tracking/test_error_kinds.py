"""ErrorKind that passes is waited for, trouble that lasts is not, and a full disk is never mistaken for either."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import numpy as np
import psycopg
import pytest
from funlib.geometry import Coordinate

from pipeline.config import ClusterConfig
from pipeline.engine.tracking.error_kinds import ErrorKind, is_out_of_memory, kind_of, pauses
from pipeline.errors import UserError
from pipeline.run import write_json
from pipeline.stages.halving_predictor import HalvingPredictor
from pipeline.volumes import Box
from pipeline.volumes.storage_errors import StorageUnavailable


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (ConnectionResetError("gone"), ErrorKind.TRANSIENT),
        (OSError(errno.ESTALE, "Stale file handle"), ErrorKind.TRANSIENT),
        (OSError(errno.EIO, "Input/output error"), ErrorKind.TRANSIENT),
        (TimeoutError("slow"), ErrorKind.TRANSIENT),
        (sqlite3.OperationalError("database is locked"), ErrorKind.TRANSIENT),
        (sqlite3.OperationalError("no such table: nodes"), ErrorKind.UNKNOWN),
        (OSError(errno.ENOSPC, "No space left on device"), ErrorKind.DISK_FULL),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), ErrorKind.DISK_FULL),
        (sqlite3.OperationalError("database or disk is full"), ErrorKind.DISK_FULL),
        (UserError("chunk 0.0.0 is missing"), ErrorKind.PERMANENT),
        (StorageUnavailable("the server has not answered for 30 s", "s3://lab/em.zarr"), ErrorKind.TRANSIENT),
        (ValueError("shapes differ"), ErrorKind.PERMANENT),
        (ZeroDivisionError("division by zero"), ErrorKind.PERMANENT),
        (KeyError("offsets"), ErrorKind.PERMANENT),
        (RuntimeError("something in C++"), ErrorKind.UNKNOWN),
        (MemoryError(), ErrorKind.MEMORY),
    ],
)
def test_each_error_has_its_line_in_the_table(error: Exception, trouble: ErrorKind) -> None:
    assert kind_of(error) is trouble


def test_what_a_database_calls_a_lost_connection_passes() -> None:
    """Also where the graph store made a user's error of it: while a server restarts, it cannot be opened."""
    lost = psycopg.errors.AdminShutdown("terminating connection due to administrator command")
    assert kind_of(lost) is ErrorKind.TRANSIENT
    refused = UserError("the PostgreSQL graph 'a' cannot be opened", "rag.url")
    refused.__cause__ = psycopg.OperationalError("connection refused")
    assert kind_of(refused) is ErrorKind.TRANSIENT


def test_the_cause_of_an_error_counts(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        write_json(Path("/proc/nowhere/file.json"), {})
    assert kind_of(caught.value) is ErrorKind.PERMANENT
    wrapped = UserError("cannot be written", str(tmp_path))
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert kind_of(wrapped) is ErrorKind.DISK_FULL


def test_pauses_double_up_to_a_limit_and_differ_between_blocks() -> None:
    cluster = ClusterConfig(passing_retries=8, passing_pause=1.0, longest_pause=10.0)
    first = list(pauses(cluster, "0 rag 1"))
    assert len(first) == 8
    assert first == list(pauses(cluster, "0 rag 1"))
    assert first != list(pauses(cluster, "0 rag 2"))
    for attempt, pause in enumerate(first):
        assert 0.5 * min(2**attempt, 10) <= pause <= 1.5 * min(2**attempt, 10)


def test_an_accelerator_with_too_little_memory_gets_smaller_parts_from_then_on() -> None:
    sizes: list[int] = []

    def affinities_of(seen: np.ndarray, box: Box) -> np.ndarray:
        assert seen.size == box.size
        sizes.append(box.size)
        if box.size > 40:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        z, y, x = np.meshgrid(*(np.arange(b, e) for b, e in zip(box.begin, box.end, strict=True)), indexing="ij")
        return np.stack([z, y, x])

    predict_box = HalvingPredictor(lambda box: np.zeros(box.size), affinities_of)
    box = Box(Coordinate(1, 2, 3), Coordinate(5, 8, 8))
    whole = np.stack(np.meshgrid(np.arange(1, 5), np.arange(2, 8), np.arange(3, 8), indexing="ij"))
    np.testing.assert_array_equal(predict_box(box), whole)
    assert predict_box.halvings == 2
    sizes.clear()
    np.testing.assert_array_equal(predict_box(box), whole)
    assert max(sizes) <= 40, "the size that is too large is not tried again"


def test_an_accelerator_without_memory_for_a_voxel_is_an_error() -> None:
    def never(seen: np.ndarray, box: Box) -> np.ndarray:
        raise RuntimeError("CUDA out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        HalvingPredictor(lambda box: np.zeros(1), never)(Box(Coordinate(0, 0, 0), Coordinate(2, 2, 2)))
    assert not is_out_of_memory(RuntimeError("no kernel image"))
