"""Keys of the viewer: the threshold, and the walk through the errors. Layers have neuroglancer's own keys.

neuroglancer's client sends each key to this process, which changes the state that both share. The client builds its
whole page anew for each state that it is sent, and misses keys meanwhile: a key sends one. Nothing here reads voxels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from neuroglancer.trackable_state import ConcurrentModificationError

from ..errors import UserError
from ..evaluation import SegmentationError
from ..units import counted, threshold_name
from .joins import MOST_JOINS, Joins, equivalences
from .serving import RunViewer

logger = logging.getLogger(__name__)

SEGMENTS = "segments"
"""The layer of fragments that are joined at any threshold."""
HELP = "1 to 9: layers"
STEP = 0.05
"""By which a key changes the threshold."""
SCREEN_PIXELS = 900
"""From the middle of the view to its edge, about; so far fragments are joined where there are too many."""
ATTEMPTS = 20
"""The client changes the state, too; a change that it came in between of is made again."""

State = dict[str, Any]
Change = Callable[[State], None]
"""What makes a state another one, in place."""


@dataclass
class Controls:
    """What keys do.

    Attributes:
        viewer: whose keys they are.
        voxel_size: of raw in nanometres, z, y, x; positions of the viewer count its voxels.
        first: position of raw's first voxel, in voxels.
        offset: of raw in nanometres.
        region: first voxel of the segmented region, counted as positions of the viewer.
        shown: the layer of the segmentation that is looked at; None if there is none.
        written: layers of segmentations, by the names of thresholds.
        joins: which fragments are one; None if there is no graph, or it is too large.
        threshold: of `SEGMENTS`.
        errors: to walk through, the dearest first; each has a position.
        errors_at: the threshold that they were found at.
        step: by how much a key changes the threshold.
        at_error: the place in `errors` of the one that was gone to last; None before the first.
    """

    viewer: RunViewer
    voxel_size: np.ndarray
    first: np.ndarray
    offset: np.ndarray
    region: np.ndarray
    shown: str | None
    written: dict[str, str]
    joins: Joins | None
    threshold: float
    errors: Sequence[SegmentationError] = ()
    errors_at: float | None = None
    step: float = STEP
    at_error: int | None = None
    _table: np.ndarray | None = None
    _told: bytes = b""
    _waiting: int = 0
    _keys: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "keys"))

    def bind(self) -> None:
        """Give the keys to the client, and follow its view where that matters."""
        actions: dict[str, tuple[str, Callable[[], None]]] = {}
        if self.joins is not None:
            actions["keyu"] = ("raise the threshold", lambda: self.change_threshold(self.step))
            actions["keyd"] = ("lower the threshold", lambda: self.change_threshold(-self.step))
        if self.errors:
            actions["keyj"] = ("next error", lambda: self.go_to_error(1))
            actions["keyk"] = ("previous error", lambda: self.go_to_error(-1))
        for called, action in actions.values():
            self.viewer.actions.add(called, lambda _, action=action: self._submit(action))
        with self.viewer.config_state.txn() as config:
            for key, (called, _) in actions.items():
                config.input_event_bindings.viewer[key] = called
        self.say(self.help)
        if self.joins is not None:
            self.viewer.shared_state.add_changed_callback(lambda: self._submit(self.follow))

    @property
    def help(self) -> str:
        """The keys in one line."""
        threshold = f" · d, u: threshold {threshold_name(self.threshold)}" if self.joins is not None else ""
        errors = f" · j, k: {counted(len(self.errors), 'error')}" if self.errors else ""
        return f"{HELP}{threshold}{errors} · h: all keys"

    def say(self, text: str) -> None:
        """Show a line below the view."""
        with self.viewer.config_state.txn() as config:
            config.status_messages["emdistill"] = text

    def change_threshold(self, step: float) -> None:
        """Join the fragments at another threshold and show them in place of the segmentation."""
        self.change(self.join_at(round(min(1.0, max(0.0, self.threshold + step)), 6)))
        self.say(f"{self.help}{self._part}")

    def join_at(self, threshold: float) -> Change:
        """What shows the fragments joined at a threshold."""
        assert self.joins is not None, "keys are bound with a graph alone"
        if self._table is None or threshold != self.threshold:
            self.say(f"joining fragments at {threshold_name(threshold)} …")
            self._table = self.joins.table(threshold)
        self.threshold = threshold
        look = self.look_at(SEGMENTS)

        def change(state: State) -> None:
            look(state)
            self._tell(state, self._rows_in_view(state))

        return change

    def follow(self) -> None:
        """Tell the client which fragments in view are one, if that is not what it knows."""
        if self._table is None or self.shown != SEGMENTS:
            return
        if self._rows_in_view(self.viewer.shared_state.raw_state).tobytes() != self._told:
            self.change(lambda state: self._tell(state, self._rows_in_view(state)))

    def _rows_in_view(self, state: State) -> np.ndarray:
        """Which fragments are one where a state looks."""
        assert self.joins is not None and self._table is not None, "fragments are joined"
        around = np.asarray(state.get("position", self.region), float)[:3] - self.region
        reach = SCREEN_PIXELS * float(state.get("crossSectionScale", 1.0)) * float(self.voxel_size.min())
        return self.joins.seen(self._table, around, reach)

    def _tell(self, state: State, rows: np.ndarray) -> None:
        """Say in a state which fragments are one."""
        for layer in named(state, SEGMENTS):
            layer["equivalences"] = equivalences(rows)
        self._told = rows.tobytes()

    @property
    def _part(self) -> str:
        if self._table is None or len(self._table) <= MOST_JOINS:
            return ""
        return f" · {len(self._table):,} fragments: joined near the middle of the view"

    def look_at(self, name: str) -> Change:
        """What shows one segmentation, and hides the one that was shown."""
        former, self.shown = self.shown, name

        def change(state: State) -> None:
            for layer in named(state, former):
                layer["visible"] = False
            for layer in named(state, name):
                layer["visible"] = True

        return change

    def go_to_error(self, step: int) -> None:
        """Move to the next or the previous error, and select its segments and labels."""
        before = len(self.errors) if self.at_error is None and step < 0 else self.at_error
        self.at_error = 0 if before is None else (before + step) % len(self.errors)
        error = self.errors[self.at_error]
        show = self._threshold_of_errors()
        assert error.position is not None
        position = (np.asarray(error.position) - self.offset) / self.voxel_size + self.first

        def change(state: State) -> None:
            state["position"] = position.tolist()
            show(state)  # joins what is seen from there
            for name, ids in ((self.shown, error.segments), ("labels", error.labels)):
                for layer in named(state, name):
                    layer["segments"] = [str(segment) for segment in dict.fromkeys(ids)]

        self.change(change)
        self.say(f"error {self.at_error + 1} of {len(self.errors)}: {error.text} · j: next, k: previous")

    def _threshold_of_errors(self) -> Change:
        """What shows the segmentation that the errors were found in."""
        written = None if self.errors_at is None else self.written.get(threshold_name(self.errors_at))
        if written is not None:
            return self.look_at(written)
        if self.errors_at is not None and self.joins is not None:
            return self.join_at(self.errors_at)
        return lambda state: None

    @property
    def busy(self) -> bool:
        """Whether a key that was pressed is still at work."""
        return self._waiting > 0

    def change(self, change: Change) -> None:
        """Change the state that this process and the client share."""
        shared = self.viewer.shared_state
        for _ in range(ATTEMPTS):
            raw, generation = shared.raw_state_and_generation
            state = {**raw, "layers": [dict(layer) for layer in raw.get("layers", [])]}
            change(state)
            try:
                shared.set_state(state, existing_generation=generation)
            except ConcurrentModificationError:
                continue
            return
        self._told = b""  # whatever the change said of joins has not arrived
        logger.warning("neuroglancer is changing its state all the time: press the key again")

    def _submit(self, action: Callable[[], None]) -> None:
        """Do something in the thread of keys, in the order in which they are pressed."""
        self._waiting += 1
        self._keys.submit(self._do, action)

    def _do(self, action: Callable[[], None]) -> None:
        try:
            action()
        except UserError as error:
            logger.warning("%s", error)
            self.say(str(error))
        except Exception:
            logger.exception("a key of the viewer failed")
        finally:
            self._waiting -= 1


def named(state: State, name: str | None) -> list[State]:
    """The layer of a name, if there is one."""
    return [layer for layer in state.get("layers", []) if layer.get("name") == name]
