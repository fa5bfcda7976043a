"""Files of a run over HTTP, as they lie: neuroglancer reads their chunks itself.

They are served on the port of neuroglancer's own server, below the token of a viewer. What is served are the folders
of the arrays and exports that the viewer shows, and of these only files whose real path lies in their container.
"""

from __future__ import annotations

import hmac
import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import neuroglancer
import tornado.web

from ..config import ViewConfig
from ..errors import UserError
from .requests import bound

ROUTE = r"/data/([^/]+)/([^/]+)/(.*)"
"""Token of a viewer, name of a folder, path of a file in it."""


@dataclass(frozen=True)
class ServedFolder:
    """A folder whose files are handed out.

    Attributes:
        folder: what is served.
        container: no file is whose real path lies outside of it.
    """

    folder: Path
    container: Path


class Viewers(weakref.WeakValueDictionary[str, Any]):
    """Viewers by token; how long a look-up takes says nothing about how much of a token was right."""

    def get(self, key: str, default: Any = None) -> Any:
        """The viewer of a token."""
        found = default
        for token, viewer in list(self.items()):
            if hmac.compare_digest(token.encode(), str(key).encode()):
                found = viewer
        return found

    def __contains__(self, key: object) -> bool:
        return self.get(str(key)) is not None


class RunViewer(neuroglancer.Viewer):
    """A viewer with folders of its own that its server hands out."""

    def __init__(self) -> None:
        self.folders: dict[str, ServedFolder] = {}
        super().__init__(allow_credentials=False)  # it would hand out those of the user to who has the link
        self.volume_manager.update = lambda state: None  # it would search the whole state at every movement

    def serve(self, name: str, folder: Path, container: Path | None = None) -> str:
        """Hand out a folder, and say under which URL.

        Args:
            name: what it is called in the URL; slashes become dashes.
            folder: on this machine.
            container: that its files must lie in. Default: the folder itself.
        """
        name = name.replace("/", "-").replace(" ", "-")
        self.folders[name] = ServedFolder(folder, container or folder)
        return f"{neuroglancer.server.get_server_url()}/data/{self.token}/{name}"


class FileHandler(tornado.web.StaticFileHandler):
    """Answers for `ROUTE`, with byte ranges, and to pages of other addresses, too: the token is what lets in."""

    def initialize(self, viewers: Viewers) -> None:  # type: ignore[override]
        """Called by tornado for each request."""
        super().initialize(path="")
        self.viewers = viewers

    def prepare(self) -> None:
        """Find the folder; a wrong token and a wrong name are told alike."""
        token, name, path = self.path_args
        viewer = self.viewers.get(token)
        served = viewer.folders.get(name) if isinstance(viewer, RunViewer) else None
        if served is None:
            raise tornado.web.HTTPError(404)
        self.served = served
        self.root = str(served.folder)
        self.path_args = [path]

    def validate_absolute_path(self, root: str, absolute_path: str) -> str:
        """Refuse whatever is no plain file of the folder; links may lead about in their container alone."""
        try:
            real = Path(os.path.realpath(absolute_path))
            inside = Path(absolute_path).is_relative_to(root)
            found = inside and real.is_relative_to(os.path.realpath(self.served.container)) and real.is_file()
        except (OSError, ValueError):  # no name of a file: too long, or with a zero in it
            found = False
        if not found:
            raise tornado.web.HTTPError(404)
        return str(real)

    def compute_etag(self) -> str | None:
        """Changes with the file; tornado's own would read all of it."""
        found = Path(self.absolute_path or "").stat()
        return f'"{found.st_mtime_ns:x}-{found.st_size:x}"'

    def set_default_headers(self) -> None:
        """Let other pages read what they have the token for; nothing is believed that may have been computed anew."""
        self.set_header("Access-Control-Allow-Origin", "*")
        self.set_header("Access-Control-Allow-Headers", "range")
        self.set_header("Access-Control-Expose-Headers", "accept-ranges, content-length, content-range, etag")
        self.set_header("Cache-Control", "no-cache")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("X-Content-Type-Options", "nosniff")

    def get_content_type(self) -> str:
        """Bytes: nothing that a browser would run."""
        return "application/json" if str(self.absolute_path).endswith(".json") else "application/octet-stream"

    def options(self, path: str) -> None:
        """Other pages may ask for ranges."""
        self.set_status(204)
        self.finish()


def start_server(view: ViewConfig) -> None:
    """Start neuroglancer's server at the configured address and port; one that runs already keeps its own.

    Raises:
        UserError: the port is taken, or the address is none of this machine.
    """
    if neuroglancer.is_server_running():
        return
    neuroglancer.set_server_bind_address(view.host, view.port)
    try:
        neuroglancer.server.start()
    except OSError as error:
        raise UserError(f"{view.host}:{view.port} cannot be listened on ({error.strerror})", "view") from error
    server = neuroglancer.server.global_server
    server.viewers = Viewers()
    server.app.add_handlers(".*", [(ROUTE, FileHandler, {"viewers": server.viewers})])
    bound(server)
