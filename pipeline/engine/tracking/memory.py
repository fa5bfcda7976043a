"""Too little memory, whatever it looks like: an exception, an abort of a library, a kill by the system."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from pathlib import Path

from ..blocks.stage import BlockTask

SIGNS = re.compile(
    r"MemoryError|bad_alloc|cannot allocate memory|unable to allocate|can't allocate memory|failed to map segment"
    r"|not enough memory|memory allocation failed|can't start new thread|pthread_create failed",
    re.IGNORECASE,
)
"""What Python, C++, the loader of libraries and numerical libraries say."""
KILLS = Path("/proc/vmstat")
"""Where Linux counts the processes that it has killed for memory, in all control groups."""


def is_memory_error(error: BaseException) -> bool:
    """Whether an error, or one that it came from, is about the memory of this machine, not of an accelerator."""
    return any(
        isinstance(link, MemoryError)
        or (isinstance(link, OSError) and link.errno == errno.ENOMEM)
        or SIGNS.search(f"{type(link).__name__}: {link}") is not None
        for link in _chain(error)
    )


def kills_for_memory() -> int:
    """How many processes of this machine the system has killed for memory; 0 where it does not say."""
    try:
        found = re.search(r"^oom_kill (\d+)$", KILLS.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def what_lowers_memory(task: BlockTask) -> str:
    """The keys that help a stage whose workers have too little memory."""
    cluster = task.run.config.cluster
    keys = ["predict.memory"] if task.stage == "predict" else []
    keys += ["predict.block_size", "cluster.threads_per_worker"]
    if cluster.executor == "slurm":
        return f"ask for more (cluster.slurm.memory), or lower {', '.join(keys)}"
    return f"lower {', '.join(['cluster.workers', *keys] if cluster.executor == 'local' else keys)}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was raised from, and what was being dealt with then."""
    seen: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in seen:
        seen.append(link)
        yield link
        link = link.__cause__ or link.__context__
