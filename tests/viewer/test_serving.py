"""Files are handed out to who has the token, and no other files than those of the layers."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import neuroglancer
import pytest

from pipeline.config import dump_config, parse_config
from pipeline.errors import UserError
from pipeline.run import Run
from pipeline.viewer import open_viewer
from pipeline.viewer.serving import RunViewer


@pytest.fixture(autouse=True)
def clean_up() -> Iterator[None]:
    """Each test has a server of its own."""
    yield
    neuroglancer.stop()


@pytest.fixture
def viewer(raw_run: Run) -> RunViewer:
    """A viewer of a run with raw alone."""
    return open_viewer(raw_run)


def answer(viewer: RunViewer, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """Status, content and header fields (lower case) of the server's answer; the path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", neuroglancer.server.global_server.port, timeout=300)
    connection.request(method, path, headers=headers)
    got = connection.getresponse()
    found = got.status, got.read(), {name.lower(): value for name, value in got.getheaders()}
    connection.close()
    return found


def test_ranges_of_files_are_those_of_the_file(raw_run: Run, viewer: RunViewer) -> None:
    stored = (raw_run.volume.file / "raw/s0/c/0/0/0").read_bytes()
    path = f"/data/{viewer.token}/raw/s0/c/0/0/0"
    for wanted, part in (("10-19", stored[10:20]), ("-7", stored[-7:]), ("5-", stored[5:])):
        status, content, headers = answer(viewer, path, Range=f"bytes={wanted}")
        assert (status, content) == (206, part)
        assert headers["content-range"].endswith(f"/{len(stored)}")
    status, content, headers = answer(viewer, path, Origin="https://neuroglancer-demo.appspot.com")
    assert (status, content) == (200, stored)
    assert headers["access-control-allow-origin"] == "*"
    assert answer(viewer, path, "HEAD")[2]["content-length"] == str(len(stored))
    status, _, headers = answer(viewer, path, "OPTIONS")
    assert status == 204 and "range" in headers["access-control-allow-headers"]


def test_a_file_that_was_computed_anew_is_not_taken_for_the_old_one(raw_run: Run, viewer: RunViewer) -> None:
    file, path = raw_run.volume.file / "raw/s0/c/0/0/0", f"/data/{viewer.token}/raw/s0/c/0/0/0"
    etag = answer(viewer, path)[2]["etag"]
    assert answer(viewer, path, **{"If-None-Match": etag})[0] == 304
    beside = file.with_name("new")
    beside.write_bytes(b"new")
    beside.replace(file)
    assert answer(viewer, path, **{"If-None-Match": etag})[:2] == (200, b"new")


def test_without_the_token_there_is_nothing(viewer: RunViewer) -> None:
    wrong = "0" * len(viewer.token)
    right = viewer.token
    for path in ("/v/{}/", "/data/{}/raw/zarr.json", "/events/{}?c=a&gc=&gs="):
        assert answer(viewer, path.format(wrong))[0] == 404
    for token in (right[:-1], right + "0", "", "é"):
        assert answer(viewer, f"/data/{token.encode().hex() if token == 'é' else token}/raw/zarr.json")[0] == 404
    assert answer(viewer, f"/data/{right}/raw/zarr.json")[0] == 200
    assert answer(viewer, "/")[0] == answer(viewer, "/data/")[0] == 404


@pytest.mark.parametrize(
    "path",
    [
        "raw/../../config.json",
        "raw/%2e%2e/%2e%2e/config.json",
        "raw/..%2f..%2fconfig.json",
        "raw//etc/passwd",
        "raw/%2fetc%2fpasswd",
        "raw/s0/../../zarr.json",
        "raw/s0",
        "raw/",
        "raw",
        "config.json",
        "fragments/zarr.json",
        "../config.json",
        "raw/zarr.json%00",
        f"raw/{'a' * 5000}",
    ],
)
def test_no_path_leads_out_of_the_folders_of_the_layers(raw_run: Run, viewer: RunViewer, path: str) -> None:
    raw_run.save_config()
    assert (raw_run.directory / "config.json").exists()
    assert answer(viewer, f"/data/{viewer.token}/{path}")[0] in (400, 403, 404)


def test_links_lead_nowhere_else_than_within_the_container(raw_run: Run, viewer: RunViewer, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    folder = raw_run.volume.file / "raw"
    (folder / "file").symlink_to(secret)
    (folder / "folder").symlink_to(tmp_path)
    (folder / "same").symlink_to(folder / "zarr.json")
    os.mkfifo(folder / "pipe")
    assert answer(viewer, f"/data/{viewer.token}/raw/same")[0] == 200
    for name in ("file", "folder/secret", "pipe"):
        assert answer(viewer, f"/data/{viewer.token}/raw/{name}")[0] == 404


def test_nothing_is_handed_out_that_a_browser_would_run(raw_run: Run, viewer: RunViewer) -> None:
    (raw_run.volume.file / "raw" / "page.html").write_text("<script>alert(1)</script>")
    headers = answer(viewer, f"/data/{viewer.token}/raw/page.html")[2]
    assert headers["content-type"] == "application/octet-stream"
    assert headers["x-content-type-options"] == "nosniff"


def test_credentials_of_the_user_are_not_handed_out(viewer: RunViewer) -> None:
    assert answer(viewer, f"/credentials/{viewer.token}", "POST")[0] == 403


def test_it_listens_on_this_machine_alone(viewer: RunViewer) -> None:
    sockets = neuroglancer.server.global_server.http_server._sockets.values()
    assert {listener.getsockname()[0] for listener in sockets} == {"127.0.0.1"}


def test_a_port_that_is_taken_is_a_users_error(raw_run: Run) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        document = dump_config(raw_run.config) | {"view": {"port": other.getsockname()[1]}}
        with pytest.raises(UserError, match="cannot be listened on"):
            open_viewer(Run(parse_config(document)))
