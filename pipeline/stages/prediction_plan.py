"""What prediction decides once, when it begins, and stores: what runs the network, where, on which tiles.

The plan lies in `tracking/predict/<key>/plan.json`. Workers read it, and so does everything that comes later. Engine
and tile stay as they are for as long as the output does, since markers count in tiles and engines round differently:
the key of the output holds the engine, and the array itself says the tile, so that neither can be lost without it.
Device and number of workers are decided anew whenever a driver begins, which may be on another machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from funlib.geometry import Coordinate
from typing_extensions import TypedDict

from ..config import Config
from ..config.base import Positive
from ..small_files import DamagedFile, read_json_as, write_json

PLAN, TILE = "plan.json", "tile.json"
"""Names of the file; runs that were begun before there were plans have the tile alone."""


Tile = tuple[Positive, Positive, Positive]


class _Stored(TypedDict):
    """A plan as its file says it."""

    engine: Literal["torch", "openvino"]
    device: str
    tile: Tile
    workers: Positive


class StoredTile(TypedDict):
    """What runs have that were begun before there were plans."""

    blocks: Tile


@dataclass(frozen=True)
class PredictionPlan:
    """How prediction uses its machines.

    Attributes:
        engine: what runs the network, `torch` or `openvino`.
        device: name as `predict.device` has it; `auto`: the GPUs if there are any, worker after worker another one.
        tile: chunks along z, y, x that one block of the stage computes.
        workers: most workers at a time.
    """

    engine: str
    device: str
    tile: Coordinate
    workers: int

    def save(self, folder: Path) -> None:
        """Write it into the tracking folder of the stage, in one step.

        Raises:
            UserError: the folder cannot be written.
        """
        write_json(folder / PLAN, {**asdict(self), "tile": list(self.tile)})


def read_plan(folder: Path, config: Config, engine: str) -> PredictionPlan | None:
    """The stored plan of an output; None if there is none that can be read.

    Args:
        folder: tracking folder of the stage, under the key of the output.
        config: of the run; what a run has that was begun before there were plans follows from it and the engine.
        engine: with which the output was begun.
    """
    with suppress(DamagedFile):
        stored = read_json_as(folder / PLAN, _Stored)
        if stored is not None:
            tile = Coordinate(stored["tile"])
            return PredictionPlan(stored["engine"], stored["device"], tile, stored["workers"])
    with suppress(DamagedFile):
        former = read_json_as(folder / TILE, StoredTile)
        if former is not None:
            return plan_with_tile(config, engine, former["blocks"])
    return None


def plan_with_tile(config: Config, engine: str, tile: Sequence[int]) -> PredictionPlan:
    """The plan of an output of which only engine and tile are known."""
    workers = config.cluster.workers_of("predict")
    return PredictionPlan(engine, device_name(config, engine), Coordinate(tile), workers)


def device_name(config: Config, engine: str) -> str:
    """The configured device; for `auto` the CPU where the engine has no other."""
    chosen = config.predict.device
    return "cpu" if chosen == "auto" and engine != "torch" else chosen
