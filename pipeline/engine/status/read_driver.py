"""The state of the driver of a run."""

from __future__ import annotations

import socket

import psutil

from ...run import Run
from ..tracking.driver_lock import LockState, lock_state
from ..tracking.driver_record import DriverRecord, read_driver
from .model import DriverState, DriverStatus

CLOCK_SLACK = 2.0
"""Seconds by which the clocks of processes, files and machines may differ."""


def read_driver_status(run: Run) -> tuple[DriverStatus, DriverRecord | None, LockState]:
    """The driver, and the two sources that tell of it: its notice, and the lock on the run directory."""
    lock, notice = lock_state(run), read_driver(run)
    if lock.held and (notice is None or (notice.host, notice.process) != (lock.host, lock.process)):
        status = DriverStatus(DriverState.WORKS, lock.host, lock.process, began=lock.since, all_steps=lock.all_steps)
        return status, None, lock
    if notice is None:
        state = _state_without_notice(lock)
        return DriverStatus(state, lock.host, lock.process, all_steps=lock.all_steps), None, lock
    status = DriverStatus(
        _driver_state(lock, notice),
        notice.host,
        notice.process,
        notice.job,
        notice.executor,
        notice.began,
        notice.ended or None,
        lock.all_steps,
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


def _driver_state(lock: LockState, notice: DriverRecord) -> DriverState:
    if lock.held:
        return DriverState.WORKS
    if notice.ended and lives_here(notice.host, notice.process, notice.began):
        return DriverState.BETWEEN
    if lock.held is None and not notice.ended:
        return DriverState.UNKNOWN
    return DriverState.GONE


def _state_without_notice(lock: LockState) -> DriverState:
    if lock.held is None:
        return DriverState.UNKNOWN
    return DriverState.GONE if lock.since else DriverState.NONE
