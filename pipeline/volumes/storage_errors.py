"""What goes wrong with stored arrays, in one line with the cure; and whether it may pass by itself.

TensorStore raises `ValueError` for nearly everything. Its text begins with a status word, and tells the number of an
error of the operating system.
"""

from __future__ import annotations

import os
import re
from typing import NoReturn

from ..errors import UserError, hide_passwords
from .locations import Location

TRANSIENT = ("ABORTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")
"""Status words of what a server or network does for a while."""

_STATUS = re.compile(r"^([A-Z_]{4,}): ")
_OS_ERROR = re.compile(r"\[os_error_code='(\d+)'\]")
_HTTP_CODE = re.compile(r"\[http_response_code='(\d+)'\]")
_DETAILS = re.compile(
    r"\s*\[(tensorstore_spec|http_response_body|x-amzn-requestid|curl_code|source locations)=?.*$", re.S
)
_CODEC = re.compile(r'Error parsing object member "(?:compressor|compression|codecs)": (.*)', re.S)
_UNKNOWN = re.compile(r'"([^"]+)" is not registered')
_QUERY = re.compile(r"(https?://[^\s\"'?]+)\?[^\s\"']+")
_HEADER = re.compile(r"(Authorization: *)[^\"'\]]+", re.I)


class StorageUnavailable(UserError):
    """A server or network that does not answer, or answers that it cannot now: the same may work in a minute."""


def not_unavailable(error: Exception) -> bool:
    """True of any error but that of a server that does not answer, which is raised: it tells nothing about the data.

    Raises:
        StorageUnavailable: that is what it is.
    """
    if isinstance(error, StorageUnavailable):
        raise error
    return True


def raise_explained(error: Exception, location: Location, doing: str = "read") -> NoReturn:
    """Raise an error of TensorStore as one for the user; the operating system's error, if there is one, is its cause.

    Args:
        error: what was raised.
        location: of the array.
        doing: `read`, `opened`, `listed` or `written`, for the message.

    Raises:
        StorageUnavailable: it may pass by itself.
        UserError: it stays.
    """
    number = _OS_ERROR.search(str(error))
    if number is None:
        raise _explanation(status_of(error), plain_text(error), str(error), location, doing) from error
    cause = OSError(int(number.group(1)), os.strerror(int(number.group(1))))
    raise UserError(f"cannot be {doing}: {cause.strerror}", location.name) from cause


def tells_of_content(error: Exception) -> bool:
    """Whether an error of TensorStore is about what is stored, and not about the way to it."""
    on_the_way = (*TRANSIENT, "PERMISSION_DENIED", "UNAUTHENTICATED", "NOT_FOUND")
    return not (_OS_ERROR.search(str(error)) or status_of(error) in on_the_way or _is_server_error(str(error)))


def status_of(error: Exception) -> str:
    """TensorStore's status word for an error; empty if it has none."""
    found = _STATUS.match(str(error))
    return found.group(1) if found else ""


def plain_text(error: Exception) -> str:
    """What an error says, without status word, technical attachments and secrets."""
    text = _DETAILS.sub("", _STATUS.sub("", str(error)))
    return hide_passwords(_HEADER.sub(r"\1***", _QUERY.sub(r"\1?***", text))).strip() or type(error).__name__


def _explanation(status: str, text: str, whole: str, location: Location, doing: str) -> UserError:
    name = location.name
    codec = _CODEC.search(text)
    if "NoSuchBucket" in whole or (status == "NOT_FOUND" and "bucket does not exist" in whole.lower()):
        return UserError(f"there is no bucket {location.root!r}; check its name{_endpoint_hint(location)}", name)
    if status in TRANSIENT or _is_server_error(whole):
        return StorageUnavailable(
            f"cannot be {doing}: {text}; check the address and the network, and run again when the server answers", name
        )
    if status in ("PERMISSION_DENIED", "UNAUTHENTICATED"):
        return UserError(f"cannot be {doing}: access is denied; {access_cure(location)}", name)
    if (
        "range" in text.lower()
        and location.scheme in ("http", "https")
        and status in ("FAILED_PRECONDITION", "OUT_OF_RANGE")
    ):
        return UserError(f"the web server does not serve parts of files (byte ranges): {text}; use one that does", name)
    if doing == "opened" and codec:
        unknown = _UNKNOWN.search(codec.group(1))
        what = unknown.group(1) if unknown else codec.group(1)
        return UserError(
            f"its codec cannot be read: {what}; write the array again with a common one (blosc, zstd, gzip)", name
        )
    if doing == "opened" and "filters are not supported" in text:
        return UserError("it has filters, which cannot be read; write the array again without", name)
    if doing == "opened":
        return UserError(f"the metadata cannot be read: {text}; correct them, or write the array again", name)
    if doing == "read":
        return UserError(f"a chunk is damaged or cannot be decoded: {text}; write it again", name)
    return UserError(f"cannot be {doing}: {text}", name)


def _is_server_error(whole: str) -> bool:
    code = _HTTP_CODE.search(whole)
    return code is not None and (code.group(1).startswith("5") or code.group(1) in ("408", "429"))


def access_cure(location: Location) -> str:
    """What gives access to a location."""
    if location.scheme == "s3":
        return (
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE of an account that may (without any of"
            " them, buckets are read as the public may)"
        )
    if location.scheme == "gs":
        return "set GOOGLE_APPLICATION_CREDENTIALS to the key file of an account that may"
    if location.is_local:
        return "give this user the right to it"
    return "name an account that may: https://user:${PASSWORD}@host/..."


def _endpoint_hint(location: Location) -> str:
    return " and, if it is not Amazon's, AWS_ENDPOINT_URL" if location.scheme == "s3" else ""
