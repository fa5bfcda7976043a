"""Whether a lock that one machine takes on a file can be seen from the others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
STAY_LOCAL = {"nolock", "local_lock=flock", "local_lock=all", "localflock", "nobrl"}
"""Mount options with which locks stay on their machine."""


def shares_locks(path: Path, mounts: Path = MOUNTS) -> bool:
    """Whether machines that share the file system of a path see each other's `flock` there.

    NFS (version 4, and 3 with its lock manager), GPFS and CephFS do so unless an option says otherwise, Lustre if the
    option `flock` says so. Of any other file system, and where there is no list of mounts, nothing is promised.
    """
    kind, options = _mount_of(path.resolve(), mounts)
    if options & STAY_LOCAL:
        return False
    return kind in ("nfs", "nfs4", "gpfs", "ceph") or (kind == "lustre" and "flock" in options)


def _mount_of(path: Path, mounts: Path) -> tuple[str, set[str]]:
    """Type and options of the file system that a path lies in: of the innermost mount, the latest one on its place."""
    found = [mount for mount in _mounts(mounts) if path.is_relative_to(mount[0])]
    if not found:
        return "", set()
    deepest = max(len(place.parts) for place, _, _ in found)
    _, kind, options = [mount for mount in found if len(mount[0].parts) == deepest][-1]
    return kind, options


def _mounts(mounts: Path) -> Iterator[tuple[Path, str, set[str]]]:
    """Place, type and options of each mount, as proc(5) describes `mountinfo`."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        before, _, after = line.partition(" - ")
        place, own_options = before.split(" ")[4:6]
        kind, _, options = after.split(" ", 2)
        yield Path(_unescaped(place)), kind, {*own_options.split(","), *options.split(",")}


def _unescaped(text: str) -> str:
    """Spaces and the like stand in octal."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), text)
