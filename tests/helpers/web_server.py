"""A web server with byte ranges on this machine, which can be slow, refuse, and drop connections."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class QuietServer(ThreadingHTTPServer):
    """Says nothing of clients that were killed."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class WebServer:
    """Serves a folder.

    Attributes:
        url: of the folder.
        requests: paths asked for, in their order.
        delay: seconds before each answer.
        dropped: connections that are still to be closed in the middle of an answer.
        failures: answers that are still to be 503.
        denied: answer 403 instead of 404.
        ranges: serve parts of files.
        password: `user:password` that is required, in Base64.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[str] = []
        self.delay = 0.0
        self.dropped = 0
        self.failures = 0
        self.denied = False
        self.ranges = True
        self.password = ""
        self._lock = threading.Lock()
        self._server = QuietServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, name: str) -> bool:
        """Whether one of a counted kind of trouble is due now."""
        with self._lock:
            left = getattr(self, name)
            setattr(self, name, max(0, left - 1))
            return bool(left)

    def run(self) -> None:
        """Answer until it is closed."""
        self._server.serve_forever(poll_interval=0.02)

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16  # one packet for head and body

            def do_GET(self) -> None:
                server.requests.append(self.path)
                time.sleep(server.delay)
                if server.take("failures"):
                    return self.answer(503, b"")
                if server.password and self.headers.get("Authorization") != f"Basic {server.password}":
                    return self.answer(401, b"")
                file = server.folder / self.path.split("?")[0].lstrip("/")
                if not file.is_file():
                    return self.answer(403 if server.denied else 404, b"")
                data = file.read_bytes()
                wanted = re.match(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
                if not wanted or not server.ranges:
                    return self.answer(200, data)
                first, last = self.bounds(wanted, len(data))
                return self.answer(206, data[first : last + 1], f"bytes {first}-{last}/{len(data)}")

            def bounds(self, wanted: re.Match[str], size: int) -> tuple[int, int]:
                if not wanted.group(1):
                    return max(0, size - int(wanted.group(2))), size - 1
                last = int(wanted.group(2)) if wanted.group(2) else size - 1
                return int(wanted.group(1)), min(last, size - 1)

            def answer(self, status: int, data: bytes, part: str = "") -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                if part:
                    self.send_header("Content-Range", part)
                self.end_headers()
                if status < 300 and server.take("dropped"):
                    self.wfile.write(data[: len(data) // 2])
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.close()
                else:
                    self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        return Handler


@contextmanager
def serving(folder: Path) -> Iterator[WebServer]:
    """A web server of a folder, as long as the context lasts."""
    server = WebServer(folder)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()
