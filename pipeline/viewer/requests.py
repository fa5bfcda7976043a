"""What the viewer's server takes from others: bodies of a few megabytes, and only such as neuroglancer's page sends.

neuroglancer's own routes would buffer a gigabyte before they look at the token, and answer 500 with a traceback in the
log to a body that they do not understand.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import neuroglancer
import tornado.web
from neuroglancer import server
from neuroglancer.random_token import make_random_token
from neuroglancer.trackable_state import TrackableState
from neuroglancer.viewer_config_state import ActionState

from ..small_files import NOT_UNDERSTOOD, DamagedFile, json_object

MOST_BYTES = 8 * 2**20
"""Of a body. A state takes kilobytes, a picture of a screen a few megabytes."""
LARGEST = 2**63 - 1
"""A position that numpy holds."""
SECONDS_BEHIND = 1.0
"""After which a page whose state was refused, and which has not caught up, is sent the state again."""
REFUSED: tuple[type[Exception], ...] = (*NOT_UNDERSTOOD, DamagedFile)
"""What is raised for a body that cannot be understood."""


class PostHandler(server.BaseRequestHandler):
    """Refuses who has no token, then what it cannot understand, before neuroglancer's own answer."""

    def prepare(self) -> None:
        """Called by tornado before `post`."""
        if self.server.viewers.get(self.path_kwargs["viewer_token"]) is None:
            raise tornado.web.HTTPError(404)
        try:
            self.require()
        except REFUSED as error:
            raise tornado.web.HTTPError(400) from error

    def require(self) -> None:
        """Raises one of `REFUSED` for what it cannot understand."""
        self.body()

    def body(self) -> dict[str, Any]:
        """The JSON object of the body."""
        return json_object(self.request.body, "body")


class StateHandler(PostHandler, server.SetStateHandler):
    """A state of the viewer, as the page has it now."""

    def require(self) -> None:
        """Its layers can be told."""
        body = self.body()
        _require_keys(body, "s", "g", "pg", "c")
        _require_state(body["s"])

    def post(self, viewer_token: str) -> None:
        """Take the state; a page that is behind catches up.

        A page is behind when the state that it was sent overtook the answer to its own: it takes the answer for the
        newer of the two. From then on all it says would be refused, and the next key would set its view back.
        """
        super().post(viewer_token)
        if self.get_status() == HTTPStatus.PRECONDITION_FAILED:
            shared = self.server.viewers.get(viewer_token).shared_state
            self.server.loop.call_later(SECONDS_BEHIND, send_again, shared, shared.state_generation)


class ActionHandler(PostHandler, server.ActionHandler):
    """A key that was pressed."""

    def require(self) -> None:
        """What our actions ask for can be told."""
        body = self.body()
        _require_keys(body, "action", "state")
        if not isinstance(body["action"], str) or not isinstance(body["state"], dict):
            raise TypeError("no action in a state")
        state = ActionState(body["state"])
        _require_state(body["state"].get("viewerState", {}))
        _ = state.mouse_position, state.selected_values


class InfoHandler(PostHandler, server.VolumeInfoResponseHandler):
    """What the page knows of a volume."""


class ChunkHandler(PostHandler, server.VolumeChunkResponseHandler):
    """A chunk that the page has; nobody here asks for one."""

    def require(self) -> None:
        """The body is bytes; what they are stands in a parameter."""
        json_object(self.get_argument("p"), "p")


class CredentialsHandler(PostHandler, server.CredentialsHandler):
    """A question for credentials, which are not handed out whatever it says."""

    def require(self) -> None:
        """Whatever it says."""


class SubvolumeHandler(server.SubvolumeHandler):
    """A box of a volume that a browser cannot read itself."""

    def prepare(self) -> None:
        """Refuse positions beyond any volume."""
        places = f"{self.path_kwargs['start']},{self.path_kwargs['end']}".split(",")
        if any(len(place) > len(str(LARGEST)) or int(place) > LARGEST for place in places):
            raise tornado.web.HTTPError(400)


ROUTES = {
    server.SET_STATE_PATH_REGEX: StateHandler,
    server.ACTION_PATH_REGEX: ActionHandler,
    server.VOLUME_INFO_RESPONSE_PATH_REGEX: InfoHandler,
    server.VOLUME_CHUNK_RESPONSE_PATH_REGEX: ChunkHandler,
    server.CREDENTIALS_PATH_REGEX: CredentialsHandler,
    server.DATA_PATH_REGEX: SubvolumeHandler,
}


def bound(running: server.Server) -> None:
    """Have a running server refuse what is too large, before it is read, and what it cannot understand.

    Args:
        running: neuroglancer's.
    """
    running.http_server.conn_params.max_body_size = MOST_BYTES
    running.http_server.max_buffer_size = 2 * MOST_BYTES
    running.app.add_handlers(".*", [(route, handler, {"server": running}) for route, handler in ROUTES.items()])


def send_again(shared: TrackableState[Any], generation: str) -> None:
    """Send a state to the pages again, unless it is another one by now.

    Args:
        shared: with the pages.
        generation: the state.
    """
    state, now = shared.raw_state_and_generation
    if now == generation:
        shared.set_state(state, generation=make_random_token())


def _require_keys(body: dict[str, Any], *keys: str) -> None:
    for key in keys:
        body[key]


def _require_state(state: Any) -> None:
    if not isinstance(state, dict):
        raise TypeError("no state")
    _ = list(neuroglancer.ViewerState(state).layers)
