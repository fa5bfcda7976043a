"""Small files and folders of any location, and how TensorStore reaches it: retries, waits, accounts.

TensorStore must not be used in a process that was forked from one that had used it: start processes with `spawn` or
`forkserver`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import tensorstore as ts

from ..errors import UserError, writing
from .locations import Location
from .storage_errors import StorageUnavailable, raise_explained, status_of

RETRIES = {"max_retries": 4, "initial_delay": "250ms", "max_delay": "2s"}
"""Of one request: a refused connection is an error after about five seconds."""
METADATA_WAIT = 30.0
"""Seconds that a small file of a server may take."""
DATA_WAIT = 300.0
"""Seconds that a box of a server may take."""
AT_A_TIME = 256
"""Files that are deleted at a time."""


_limits: dict[str, int] = {}


def limit_storage_threads(threads: int | None) -> None:
    """Keep TensorStore to a number of threads in arrays that this process opens from now on; None: as it likes."""
    wanted = {} if threads is None else {"limit": threads}
    if _limits != wanted:
        _limits.clear()
        _limits.update(wanted)
        context.cache_clear()


def storage_threads() -> int | None:
    """The number of threads that TensorStore is kept to; None if to none."""
    return _limits.get("limit")


@cache
def context() -> ts.Context:
    """TensorStore's resources in this process: limited retries, nothing cached, as many threads as processors or as
    `limit_storage_threads` says.
    """
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS", "30")
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES", "1")
    threads = dict(_limits) or {"limit": len(os.sched_getaffinity(0))}
    return ts.Context(
        {
            "cache_pool": {"total_bytes_limit": 0},
            "data_copy_concurrency": threads,
            **({"file_io_concurrency": threads} if _limits else {}),
            "http_request_retries": RETRIES,
            "s3_request_retries": RETRIES,
            "gcs_request_retries": RETRIES,
        }
    )


def kvstore_spec(location: Location) -> dict[str, Any]:
    """TensorStore's description of a location, with what the environment says of accounts and endpoints.

    `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` and `AWS_REGION` name an S3-compatible server. Without any sign of
    credentials, buckets are read as the public may: asking for those of a virtual machine takes long elsewhere.
    """
    spec = location.kvstore()
    if spec["driver"] != "s3":
        return spec
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if endpoint:
        spec["endpoint"] = endpoint.rstrip("/")
    if endpoint or region:
        spec["aws_region"] = region or "us-east-1"
    spec["aws_credentials"] = {"type": aws_credentials()}
    return spec


def aws_credentials() -> str:
    """Which of TensorStore's ways to Amazon credentials the environment suggests."""
    if "AWS_ACCESS_KEY_ID" in os.environ:
        return "environment"
    names = ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE")
    files = [Path(os.environ[name]) for name in names if name in os.environ]
    files += [Path("~/.aws/credentials").expanduser(), Path("~/.aws/config").expanduser()]
    told: tuple[str, ...] = ("AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    told += ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_EC2_METADATA_SERVICE_ENDPOINT")
    return "default" if any(name in os.environ for name in told) or any(f.exists() for f in files) else "anonymous"


def wait(future: Any, location: Location, seconds: float, doing: str) -> Any:
    """The result of a request.

    Raises:
        StorageUnavailable: the server does not answer, or not in time.
        UserError: anything else that keeps the data away.
    """
    try:
        return result_of(future, location, seconds)
    except (ValueError, OSError, NotImplementedError) as error:
        raise_explained(error, location, doing)


def result_of(future: Any, location: Location, seconds: float) -> Any:
    """The result of a request, whose errors are TensorStore's; files of this machine are waited for without end.

    Raises:
        StorageUnavailable: the server has not answered in time.
    """
    try:
        return future.result() if location.is_local else future.result(timeout=seconds)
    except TimeoutError as error:
        raise StorageUnavailable(f"the server has not answered for {seconds:g} s", location.name) from error


def open_store(location: Location) -> ts.KvStore:
    """The folder at a location as a store of keys."""
    try:
        opening = ts.KvStore.open(kvstore_spec(location), context=context())
    except ValueError as error:
        raise_explained(error, location, "opened")
    store: ts.KvStore = wait(opening, location, METADATA_WAIT, "opened")
    return store


def read_files(location: Location, names: Sequence[str]) -> dict[str, bytes]:
    """Those of some small files in a folder that exist; all are asked for at once.

    A server may deny access to what does not exist, so a file that is denied counts as missing if another is there.

    Raises:
        StorageUnavailable: the server does not answer.
        UserError: access is denied to all of them, or the bucket does not exist.
    """
    store = open_store(location)
    asked = {name: store.read(name) for name in names}
    found, denied = {}, None
    for name, future in asked.items():
        try:
            result = result_of(future, location, METADATA_WAIT)
        except (ValueError, OSError) as error:
            if status_of(error) != "PERMISSION_DENIED":
                raise_explained(error, location)
            denied = error
            continue
        if result.state == "value":
            found[name] = bytes(result.value)
    if denied is not None and not found:
        raise_explained(denied, location)
    if not found and location.scheme in ("s3", "gs"):
        next(list_keys(location, limit=1), None)  # tells whether there is such a bucket at all
    return found


def list_keys(location: Location, limit: int | None = None) -> Iterator[str]:
    """Names of everything below a location, folders included in the names; no order.

    Args:
        location: not of a web server, which cannot list.
        limit: a bucket is asked for one narrow range of names only, which costs one request.

    Raises:
        UserError: the bucket does not exist, or access is denied.
    """
    keys = ts.KvStore.KeyRange() if limit is None else ts.KvStore.KeyRange("", "\x01")
    for key in wait(open_store(location).list(keys), location, DATA_WAIT, "listed"):
        yield key.decode()


def read_present(location: Location, names: Sequence[str]) -> dict[str, bytes]:
    """Those of some small files below a folder that exist, as `read_files`; of this machine without a detour.

    Raises:
        StorageUnavailable: the server does not answer.
        UserError: one of them may not be read.
    """
    if not location.is_local:
        return read_files(location, names)
    found = {}
    for name in names:
        try:
            found[name] = (location.file / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise UserError(f"cannot be read ({error.strerror})", str(location.file / name)) from error
    return found


def delete_below(location: Location) -> None:
    """Delete a folder with everything in it, if it is there.

    Raises:
        StorageUnavailable: the server does not answer.
        UserError: access is denied.
    """
    if location.is_local:
        shutil.rmtree(location.file, ignore_errors=True)
    else:
        wait(open_store(location).delete_range(ts.KvStore.KeyRange()), location, DATA_WAIT, "deleted")


def remove_file(location: Location, name: str) -> None:
    """Delete a file of a folder, if it is there.

    Raises:
        StorageUnavailable: the server does not answer.
        UserError: access is denied.
    """
    wait(open_store(location).write(name, None), location, METADATA_WAIT, "deleted")


def remove_files(location: Location, names: Sequence[str]) -> None:
    """Delete files of a folder, those that are there; a server is asked for many at a time.

    Raises:
        StorageUnavailable: the server does not answer.
        UserError: access is denied.
    """
    if location.is_local:
        for name in names:
            with writing(location.file / name):
                (location.file / name).unlink(missing_ok=True)
        return
    store = open_store(location)
    for first in range(0, len(names), AT_A_TIME):
        for deleting in [store.write(name, None) for name in names[first : first + AT_A_TIME]]:
            wait(deleting, location, METADATA_WAIT, "deleted")


def list_range(location: Location, begin: str, end: str) -> Iterator[str]:
    """Names below a location from one up to, but without, another, in no order; folders are part of the names.

    Args:
        location: of a bucket.
        begin, end: bounds of the names.

    Raises:
        StorageUnavailable: the server does not answer.
        UserError: the bucket does not exist, or access is denied.
    """
    for key in wait(open_store(location).list(ts.KvStore.KeyRange(begin, end)), location, DATA_WAIT, "listed"):
        yield key.decode()


def exists(location: Location, keys: Sequence[str]) -> list[bool]:
    """Which of some files exist below a location. Of a web server, their first bytes are read.

    Raises:
        StorageUnavailable: the server does not answer.
        UserError: access is denied.
    """
    if location.is_local:
        return [(location.file / key).is_file() for key in keys]
    store = open_store(location)
    if location.scheme in ("s3", "gs"):
        listed = [store.list(ts.KvStore.KeyRange(key, f"{key}\x00")) for key in keys]
        return [bool(wait(future, location, METADATA_WAIT, "listed")) for future in listed]
    read = [store.read(key, byte_range=slice(0, 1)) for key in keys]
    return [wait(future, location, METADATA_WAIT, "read").state == "value" for future in read]
