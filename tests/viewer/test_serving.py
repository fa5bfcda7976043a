"""Files are handed out to who has the token, and no other files than those of the layers."""

from __future__ import annotations

import http.client
import json
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
from pipeline.viewer.requests import MOST_BYTES
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


def post(viewer: RunViewer, route: str, body: bytes, length: int | None = None, token: str | None = None) -> int:
    """Status of the answer to a body that says it has a length."""
    connection = http.client.HTTPConnection("127.0.0.1", neuroglancer.server.global_server.port, timeout=30)
    connection.putrequest("POST", route.format(token or viewer.token))
    connection.putheader("Content-Length", str(len(body) if length is None else length))
    connection.endheaders(body)
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_body_that_is_too_large_is_refused_before_it_is_read(viewer: RunViewer) -> None:
    """Or anybody who reaches the port could fill the memory, without the token."""
    for token in (viewer.token, "0" * len(viewer.token)):
        assert post(viewer, "/state/{}", b"", MOST_BYTES + 1, token) == 400


STATE = b'{"s": {"layers": []}, "g": "1", "pg": "x", "c": "me"}'


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/state/{}", b""),
        ("/state/{}", b"[]"),
        ("/state/{}", b"{}"),
        ("/state/{}", b"[" * 100_000),
        ("/state/{}", STATE.replace(b'{"layers": []}', b"7")),
        ("/state/{}", STATE.replace(b"[]", b"7")),
        ("/action/{}", b"\xff"),
        ("/action/{}", b'{"action": "emdistill-next", "state": 7}'),
        ("/action/{}", b'{"action": [], "state": {}}'),
        ("/action/{}", b'{"action": "screenshot", "state": {"mousePosition": "x"}}'),
        ("/action/{}", b'{"action": "screenshot", "state": {"viewerState": {"layers": 7}}}'),
        ("/volume_response/{}/1/info", b"7"),
        ("/volume_response/{}/1/chunk", b""),
        ("/volume_response/{}/1/chunk?p=7", b""),
    ],
)
def test_a_body_that_nobody_understands_is_400_without_a_traceback(
    viewer: RunViewer,
    route: str,
    body: bytes,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert post(viewer, route, body) == 400
    assert post(viewer, route, body, token="0" * len(viewer.token)) == 404
    assert answer(viewer, f"/data/{viewer.token}/raw/zarr.json")[0] == 200
    assert "Traceback" not in capfd.readouterr().err + caplog.text


def test_what_the_page_sends_is_understood(viewer: RunViewer) -> None:
    viewer.set_state({}, "x")
    assert post(viewer, "/state/{}", STATE) == 200
    assert post(viewer, "/state/{}", STATE) == 412, "somebody else has changed it since"
    assert post(viewer, "/action/{}", b'{"action": "a", "state": {"mousePosition": [1, 2, 3]}}') == 200


def test_a_page_that_takes_an_old_state_for_the_newest_is_sent_the_newest_again(viewer: RunViewer) -> None:
    """Or all that it says from then on is refused, and the next key sets its view back."""
    viewer.set_state({}, "x")
    assert post(viewer, "/state/{}", STATE) == 200
    viewer.set_state({"position": [1, 2, 3]})
    newest = viewer.shared_state.raw_state_and_generation
    events = http.client.HTTPConnection("127.0.0.1", neuroglancer.server.global_server.port, timeout=60)
    events.request("GET", f"/events/{viewer.token}?c=me&gc={viewer.config_state.state_generation}&gs=me/1")
    lines = (json.loads(line[len(b"data: ") :]) for line in events.getresponse() if line.startswith(b"data: "))
    sent = next(lines)
    assert (sent["s"], sent["g"]) == newest
    late = json.dumps({"s": sent["s"], "g": "2", "pg": "me/1", "c": "me"}).encode()
    assert post(viewer, "/state/{}", late) == 412
    again = next(lines)
    assert again["s"] == sent["s"]
    assert again["g"] != sent["g"], "the page waits for no state that it knows"
    assert post(viewer, "/state/{}", late.replace(b"me/1", again["g"].encode())) == 200
    events.close()


def test_positions_beyond_all_volumes_are_400(viewer: RunViewer) -> None:
    place = f"/neuroglancer/raw/{viewer.token}.0/1/0,0,0/{'9' * 30},1,1"
    assert answer(viewer, place)[0] == 400


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
