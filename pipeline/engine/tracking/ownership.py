"""Whose word is taken: what lies in `tracking/` is the user's own, or it is not believed.

What workers are told to run, where their driver is, and what is done stands in this folder. So it belongs to the user
alone: nobody else can enter it, whatever the umask says, and files in it that belong to somebody else are refused.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from ...errors import UserError, writing

FOR_OTHERS = 0o077
"""What group and others may do."""
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700


def own_folder(folder: Path) -> None:
    """Make a folder that its user alone may enter, or have one be so that is there.

    Raises:
        UserError: it belongs to somebody else, cannot be made, or its file system keeps no permissions.
    """
    with writing(folder):
        folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    found = folder.stat()
    _require_owner(folder, found)
    if stat.S_IMODE(found.st_mode) & FOR_OTHERS:
        with writing(folder):
            folder.chmod(PRIVATE_FOLDER)
        _require_private(folder)


def keep_private(folder: Path) -> None:
    """Take from others what they may do with what lies in a folder that `own_folder` has made.

    Raises:
        UserError: something in it belongs to somebody else.
    """
    for path in _inside(folder):
        with contextlib.suppress(FileNotFoundError):  # removed just now
            found = path.lstat()
            _require_owner(path, found)
            if stat.S_IMODE(found.st_mode) & FOR_OTHERS and not path.is_symlink():
                with writing(path):
                    path.chmod(PRIVATE_FOLDER if path.is_dir() else PRIVATE_FILE)


def require_own(path: Path, within: Path | None = None) -> None:
    """Make sure that only this user can have written a file, and the names of the folders that it lies in.

    Args:
        path: the file.
        within: the folder around all of them, which nobody else may enter; None: only the file is looked at.

    Raises:
        UserError: it belongs to somebody else, or others may change it.
        FileNotFoundError: there is none.
    """
    if within is not None:
        _require_owner(within, within.stat())
        _require_private(within)
        for folder in path.relative_to(within).parents:
            _require_owner(within / folder, (within / folder).stat())
    _require_owner(path, path.lstat())
    _require_private(path)


def user_name(number: int) -> str:
    """The name of a user, or the number of one that this machine does not know."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _require_owner(path: Path, found: os.stat_result) -> None:
    own = os.geteuid()
    if found.st_uid != own:
        raise UserError(
            f"belongs to the user {user_name(found.st_uid)}, and this is run by {user_name(own)}: nothing of it is "
            "believed or run; to go on with somebody else's run, copy its directory without tracking/",
            str(path),
        )


def _require_private(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & FOR_OTHERS:
        raise UserError(
            f"is open to other users (mode {mode:03o}), so it is not believed; start its driver anew, which closes it,"
            " or put the run directory on a file system that keeps permissions",
            str(path),
        )


def _inside(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent) / name for name in (*folders, *files))
