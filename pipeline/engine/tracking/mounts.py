"""Whether a lock that one machine takes on a file can be seen from the others."""

from __future__ import annotations

from pathlib import Path

import psutil

STAY_LOCAL = {"nolock", "local_lock=flock", "local_lock=all", "localflock", "nobrl"}
"""Mount options with which locks stay on their machine."""


def shares_locks(path: Path) -> bool:
    """Whether machines that share the file system of a path see each other's `flock` there.

    NFS (version 4, and 3 with its lock manager), GPFS and CephFS do so unless an option says otherwise, Lustre if the
    option `flock` says so. Of any other file system, and where there is no list of mounts, nothing is promised.
    """
    kind, options = _mount_of(path.resolve())
    if options & STAY_LOCAL:
        return False
    return kind in ("nfs", "nfs4", "gpfs", "ceph") or (kind == "lustre" and "flock" in options)


def _mount_of(path: Path) -> tuple[str, set[str]]:
    """Type and options of the file system that a path lies in: of the innermost mount, the latest one on its place."""
    try:
        mounts = psutil.disk_partitions(all=True)
    except OSError:
        return "", set()
    around = [mount for mount in mounts if path.is_relative_to(mount.mountpoint)]
    if not around:
        return "", set()
    deepest = max(len(Path(mount.mountpoint).parts) for mount in around)
    innermost = [mount for mount in around if len(Path(mount.mountpoint).parts) == deepest][-1]
    return innermost.fstype, set(innermost.opts.split(","))
