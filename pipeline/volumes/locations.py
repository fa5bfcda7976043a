"""Where an array lies: a path, or a URL of a file, of a web server, or of a bucket.

A location never shows a password or the query of a URL: `name` is made for messages, `kvstore` for TensorStore alone.
Like a path, it gives the places inside it by `/`; a local one can be used wherever a path can.
"""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

from ..errors import UserError, hide_passwords

SCHEMES = ("file", "http", "https", "s3", "gs")
"""Kinds of URLs that are understood."""

_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_LITERAL_PASSWORD = re.compile(r"^[A-Za-z0-9+.-]+://[^/@:]*:(?!\$)[^/@]+@")
_BUCKET = re.compile(r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$")


@dataclass(frozen=True)
class Location:
    """A place that holds an array, a container of arrays, or a file.

    Attributes:
        scheme: one of `SCHEMES`.
        root: host and port of a web server, name of a bucket; empty for files.
        path: the rest, without a slash at its end; absolute for files.
        account: `user:password` of a web server; never shown.
        query: of the URL of a web server, without `?`; never shown, for it may be a signature.
    """

    scheme: str
    root: str
    path: str
    account: str = field(default="", repr=False)
    query: str = field(default="", repr=False)

    @staticmethod
    def of(text: str | Path, folder: Path | None = None, where: str = "") -> Location:
        """The location that a path or URL names.

        Args:
            text: `~` and `${VARIABLES}` are expanded.
            folder: what a relative path is relative to. Default: the current directory.
            where: dotted config path, for messages.

        Raises:
            UserError: an unknown kind of URL, no host or bucket, a variable that is not set, or a password in the text.
        """
        text = str(text)
        if _LITERAL_PASSWORD.match(text):
            raise UserError(
                "the URL holds a password, which would be written into the run; put it into an environment variable"
                " and name that: https://user:${PASSWORD}@host/...",
                where,
            )
        expanded = expand_variables(text, where)
        found = _URL.match(expanded)
        if found is None:
            path = Path(expanded).expanduser()
            return Location("file", "", os.path.normpath((folder or Path.cwd()) / path))
        scheme = found.group(1).lower()
        if scheme not in SCHEMES:
            known = ", ".join(f"{name}://" for name in SCHEMES)
            if _URL.match(expanded.partition("://")[2]):
                raise UserError(f"leave {scheme}:// out: the format is found by looking, or given as format", where)
            raise UserError(f"{scheme}:// is no kind of URL that can be read; there are {known} and plain paths", where)
        return _of_url(scheme, expanded, where)

    def __str__(self) -> str:
        return self.name

    def __fspath__(self) -> str:
        return str(self.file)

    def __truediv__(self, name: str) -> Location:
        return self.child(name)

    @property
    def is_local(self) -> bool:
        """Whether it is a file or folder of this machine."""
        return self.scheme == "file"

    @property
    def file(self) -> Path:
        """The path of a local location."""
        if not self.is_local:
            raise ValueError(f"{self.name} is no local file")
        return Path(self.path)

    @property
    def name(self) -> str:
        """The location as people read it: no account, no query."""
        return self.path if self.is_local else f"{self.scheme}://{self.root}/{self.path}".rstrip("/")

    @property
    def parent(self) -> Location | None:
        """The folder around it; None at the top."""
        inside = self.path.strip("/")
        if not inside:
            return None
        head = self.path.rstrip("/").rpartition("/")[0]
        return replace(self, path=head or ("/" if self.is_local else ""))

    def child(self, name: str) -> Location:
        """A place inside; the location itself for an empty name."""
        inside = name.strip("/")
        if not inside:
            return self
        return replace(self, path=f"{self.path.rstrip('/')}/{inside}" if self.path else inside)

    def kvstore(self) -> dict[str, Any]:
        """TensorStore's description of the folder, without what depends on the environment (see `storage`)."""
        folder = self.path.rstrip("/") + "/" if self.path.strip("/") else self.path
        if self.is_local:
            return {"driver": "file", "path": folder or "/"}
        if self.scheme == "s3":
            return {"driver": "s3", "bucket": self.root, "path": folder}
        if self.scheme == "gs":
            return {"driver": "gcs", "bucket": self.root, "path": folder}
        query = f"?{self.query}" if self.query else ""
        spec: dict[str, Any] = {
            "driver": "http",
            "base_url": f"{self.scheme}://{self.root}{query}",
            "path": f"/{folder}",
        }
        if self.account:
            token = base64.b64encode(self.account.encode()).decode()
            spec["headers"] = [f"Authorization: Basic {token}"]
        return spec


Place: TypeAlias = Path | Location
"""What functions on containers take."""


def located(place: Place) -> Location:
    """A place as a location."""
    return place if isinstance(place, Location) else Location("file", "", str(place.absolute()))


def expand_variables(text: str, where: str = "") -> str:
    """A text with `${VARIABLES}` replaced by what the environment says.

    Raises:
        UserError: one of them is not set.
    """
    expanded = os.path.expandvars(text)
    missing = re.search(r"\$\{?(\w+)\}?", expanded)
    if missing:
        raise UserError(
            f"the environment variable {missing.group(1)} is not set (in {hide_passwords(text)!r});"
            " set it, or write the path itself here",
            where,
        )
    return expanded


def _of_url(scheme: str, text: str, where: str) -> Location:
    parts = urlsplit(text)
    account, _, host = parts.netloc.rpartition("@")
    path = unquote(parts.path)
    if scheme == "file":
        if host not in ("", "localhost"):
            raise UserError(f"file://{host} names another machine; a file URL has three slashes: file:///{host}", where)
        return Location("file", "", os.path.normpath(path or "/"))
    if scheme in ("s3", "gs"):
        if not _BUCKET.match(host):
            raise UserError(f"{host!r} is no name of a bucket; expected {scheme}://bucket/path", where)
        return Location(scheme, host, path.strip("/"))
    if not host:
        raise UserError(f"the URL names no host; expected {scheme}://host/path", where)
    return Location(scheme, host, path.strip("/"), account, parts.query)
