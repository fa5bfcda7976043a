"""How it stands with the driver of a run."""

from __future__ import annotations

import socket

import psutil

from ...run import Run
from ..tracking.driver_lock import LockState, lock_state
from ..tracking.driver_record import DriverRecord, read_driver
from .model import DriverStatus, Life

CLOCK_SLACK = 2.0
"""Seconds by which the clocks of processes, files and machines may differ."""


def read_driver_status(run: Run) -> tuple[DriverStatus, DriverRecord | None, LockState]:
    """The driver, and the two sources that tell of it: its notice, and the lock on the run directory."""
    lock, notice = lock_state(run), read_driver(run)
    if lock.held and (notice is None or (notice.host, notice.process) != (lock.host, lock.process)):
        return DriverStatus(Life.WORKS, lock.host, lock.process, began=lock.since), None, lock
    if notice is None:
        return DriverStatus(_life_without_notice(lock), lock.host, lock.process), None, lock
    status = DriverStatus(
        _life(lock, notice),
        notice.host,
        notice.process,
        notice.job,
        notice.executor,
        notice.began,
        notice.ended or None,
    )
    return status, notice, lock


def lives_here(host: str, process: int, began: float) -> bool | None:
    """Whether a process that was at work at some time still lives; None if it runs, or ran, on another machine."""
    if host != socket.gethostname():
        return None
    try:
        return bool(psutil.Process(process).create_time() <= began + CLOCK_SLACK)
    except psutil.NoSuchProcess:
        return False


def _life(lock: LockState, notice: DriverRecord) -> Life:
    if lock.held:
        return Life.WORKS
    if notice.ended and lives_here(notice.host, notice.process, notice.began):
        return Life.BETWEEN
    if lock.held is None and not notice.ended:
        return Life.UNKNOWN
    return Life.GONE


def _life_without_notice(lock: LockState) -> Life:
    if lock.held is None:
        return Life.UNKNOWN
    return Life.GONE if lock.since else Life.NONE
