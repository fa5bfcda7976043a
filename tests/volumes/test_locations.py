"""Paths and URLs: what they name, what they keep to themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.volumes.locations import Location


def test_a_relative_path_keeps_the_folder_that_it_is_relative_to() -> None:
    assert Location.of("data/raw.zarr", Path("/lab/project")).path == "/lab/project/data/raw.zarr"
    assert Location.of("../raw.zarr", Path("/lab/project")).path == "/lab/raw.zarr"
    assert Location.of("/else/raw.zarr", Path("/lab/project")).path == "/else/raw.zarr"
    assert Location.of("raw.zarr").path == str(Path.cwd() / "raw.zarr")


def test_file_urls_are_paths() -> None:
    assert Location.of("file:///lab/a%20b/raw.zarr/") == Location("file", "", "/lab/a b/raw.zarr")


@pytest.mark.parametrize(
    ("url", "spec"),
    [
        ("s3://bucket/em/raw.zarr", {"driver": "s3", "bucket": "bucket", "path": "em/raw.zarr/"}),
        ("gs://bucket", {"driver": "gcs", "bucket": "bucket", "path": ""}),
        ("https://host:8/em/", {"driver": "http", "base_url": "https://host:8", "path": "/em/"}),
        ("http://host/em?key=1", {"driver": "http", "base_url": "http://host?key=1", "path": "/em/"}),
    ],
)
def test_urls_name_places(url: str, spec: dict[str, str]) -> None:
    assert Location.of(url).kvstore() == spec


def test_children_and_parents_are_inverse() -> None:
    for text in ("/a/b", "s3://bucket/a/b", "https://host/a/b"):
        location = Location.of(text)
        assert location.child("c/d/").parent == location.child("c")
        assert location.child("") == location
    assert Location.of("s3://bucket/a").parent == Location.of("s3://bucket")
    assert Location.of("s3://bucket").parent is None
    assert Location.of("/a").parent == Location("file", "", "/")


def test_secrets_of_a_url_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EM_PASSWORD", "s3cret")
    location = Location.of("https://reader:${EM_PASSWORD}@host/em?signature=abc")
    assert location.name == "https://host/em"
    assert "s3cret" not in repr(location) and "abc" not in repr(location)
    assert location.kvstore()["headers"] == ["Authorization: Basic cmVhZGVyOnMzY3JldA=="]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("https://reader:s3cret@host/em", "environment variable"),
        ("ftp://host/em", "ftp:// is no kind of URL"),
        ("precomputed://https://host/em", "leave precomputed:// out"),
        ("s3://My_Bucket!/em", "is no name of a bucket"),
        ("https:///em", "names no host"),
        ("file://host/em", "names another machine"),
        ("${NOT_SET_ANYWHERE}/raw.zarr", "NOT_SET_ANYWHERE is not set"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        Location.of(text, where="volumes.sources.s.path")
    assert refused.value.where == "volumes.sources.s.path"
    assert "s3cret" not in str(refused.value)
