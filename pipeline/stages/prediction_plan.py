"""What prediction decides once, when it begins, and stores: what runs the network, where, on which tiles.

The plan lies in `tracking/predict/<key>/plan.json`. Workers read it, and so does everything that comes later. Engine
and tile stay as they are for as long as the output does, since markers count in tiles and engines round differently.
Device and number of workers are decided anew whenever a driver begins, which may be on another machine.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from funlib.geometry import Coordinate

from ..config import Config
from ..run import read_json, write_json

PLAN, TILE = "plan.json", "tile.json"
"""Names of the file; runs that were begun before there were plans have the tile alone."""


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
    """The stored plan of an output; None if it has not been begun.

    Args:
        folder: tracking folder of the stage, under the key of the output.
        config: of the run; what a run has that was begun before there were plans follows from it and the engine.
        engine: with which the output was begun.
    """
    stored = read_json(folder / PLAN)
    if stored:
        return PredictionPlan(stored["engine"], stored["device"], Coordinate(stored["tile"]), stored["workers"])
    tile = read_json(folder / TILE).get("blocks")
    if tile is None:
        return None
    workers = config.cluster.workers_of("predict")
    return PredictionPlan(engine, device_name(config, engine), Coordinate(tile), workers)


def device_name(config: Config, engine: str) -> str:
    """The configured device; for `auto` the CPU where the engine has no other."""
    chosen = config.predict.device
    return "cpu" if chosen == "auto" and engine != "torch" else chosen
