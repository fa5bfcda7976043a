"""A process that computes blocks: its name, its threads, its memory, and what there is for it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import psutil
from numcodecs import blosc
from threadpoolctl import threadpool_limits

from ...config import ClusterConfig
from ...search_path import inherited
from ...volumes import limit_storage_threads, storage_threads

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
WORKER, PARENT, LOG = "EMDISTILL_WORKER", "EMDISTILL_PARENT", "EMDISTILL_LOG"
"""Environment variables: the worker's name, the process with which it dies if that is on this machine, and its log."""
GIGABYTE = 1 << 30
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
CONTROL_GROUP = Path("/sys/fs/cgroup")
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Names of settings in GNU's `mallopt`."""
UNKNOWN_JOB = 4 * GIGABYTE
"""What a job is taken to get that asks for no memory: what many clusters give per processor."""


def peak_memory() -> int:
    """Peak resident memory of this process in bytes.

    Not daisy's figure: it asks `getrusage`, whose answer starts at the size of the process that started the worker.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def memory_per_worker(cluster: ClusterConfig, stage: str) -> int:
    """Bytes that a worker of a stage can count on: what its job asks for, or its share of what is free here."""
    if cluster.executor == "slurm":
        asked = cluster.slurm.job(stage).memory
        return job_memory(asked) if asked is not None else UNKNOWN_JOB
    workers = 1 if cluster.executor == "serial" else cluster.workers_of(stage)
    return free_memory() // workers


def job_memory(text: str) -> int:
    """Bytes of a memory request as SLURM reads it: megabytes, or with a unit."""
    return int(text[:-1]) * UNITS[text[-1]] if text[-1] in UNITS else int(text) * UNITS["M"]


def free_memory() -> int:
    """Bytes that can be had on this machine, or in the control group that this process is confined to."""
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = ((CONTROL_GROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return free
    return free if limit == "max" else max(0, min(free, int(limit) - int(used)))


def keep_freed_memory() -> None:
    """Have the C library keep what is freed for what is asked for next.

    By default large pieces go back to the kernel at once, which hands them out again page by page, each set to zero:
    a fifth of the time of a network on a CPU, a twentieth of that of fragments. Only GNU's library has this setting;
    others are left alone.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(MMAP_THRESHOLD, GIGABYTE)
        library.mallopt(TRIM_THRESHOLD, GIGABYTE)


def worker_number() -> int:
    """The number at the end of the name of this worker process; 0 where there are no others."""
    return int(os.environ.get(WORKER, "0").rpartition("-")[2])


def limit_threads(threads: int) -> None:
    """Keep the numerical libraries that this process has loaded to a number of threads."""
    blosc.set_nthreads(threads)
    if any(os.environ.get(name) != value for name, value in thread_variables(threads).items()):
        threadpool_limits(threads)  # in a worker they have read it from their environment


@contextlib.contextmanager
def threads_restored() -> Iterator[None]:
    """Give this process its numbers of threads back in the end: it has more to do than blocks, a training perhaps."""
    storage, before = storage_threads(), blosc.set_nthreads(1)
    blosc.set_nthreads(before)
    try:
        with threadpool_limits(limits=None):  # notes them, and restores them
            yield
    finally:
        blosc.set_nthreads(before)
        limit_storage_threads(storage)


def thread_variables(threads: int) -> dict[str, str]:
    """Environment variables that keep the numerical libraries of a new process to a number of threads."""
    return dict.fromkeys(THREAD_VARIABLES, str(threads))


@contextlib.contextmanager
def thread_environment(threads: int) -> Iterator[None]:
    """Let processes that are started inside inherit a number of threads."""
    with inherited(thread_variables(threads)):
        yield
