"""What a worker does: open what the task needs once, then take blocks until there are none."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import daisy.v2 as daisy
from numcodecs import blosc

from .stage import BlockFunction, BlockTask
from .tracking import forget_failure, record_failure, record_memory

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def work(task: BlockTask) -> None:
    """The life of a worker process. A block that raises is reported as failed; the worker goes on with the next one."""
    client = daisy.Client()
    with task.process() as process_block:
        limit_threads(task.run.config.cluster.threads_per_worker)
        while True:
            with client.acquire_block() as block:
                if block is None:
                    record_memory(task)
                    return
                if not attempt(task, process_block, block):
                    block.status = daisy.BlockStatus.FAILED


def attempt(task: BlockTask, process_block: BlockFunction, daisy_block: daisy.Block) -> bool:
    """Compute one block; whether it succeeded. The error of a failed block is left for the driver to report."""
    block = task.grid.block_of(daisy_block.write_roi)
    try:
        process_block(block)
    except Exception as error:
        record_failure(task, block, error)
        return False
    forget_failure(task, block)
    return True


def limit_threads(threads: int) -> None:
    """Keep the numerical libraries of this process to a number of threads."""
    blosc.set_nthreads(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


@contextlib.contextmanager
def thread_environment(threads: int) -> Iterator[None]:
    """Let processes that are started inside inherit a number of threads."""
    former = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
