"""Limits on the memory of jobs: control groups of version 1, which SLURM makes below `slurm_<node>`."""

from __future__ import annotations

from pathlib import Path

MEMORY = Path("/sys/fs/cgroup/memory")


def why_no_memory_limits() -> str | None:
    """What is missing for limits, if anything."""
    if not (MEMORY / "memory.limit_in_bytes").exists():
        return f"no limits on memory: no control groups of version 1 in {MEMORY}"
    try:
        (MEMORY / "emdistill_try").mkdir()
        (MEMORY / "emdistill_try").rmdir()
    except OSError as error:
        return f"no limits on memory: {error}"
    return None


def remove_memory_groups(node: str) -> None:
    """Remove what SLURM leaves of a node whose processes are gone."""
    groups = [folder for folder in (MEMORY / f"slurm_{node}").glob("**/") if folder.is_dir()]
    for group in sorted(groups, reverse=True):  # the inner ones first
        group.rmdir()
