"""The status of a run as one JSON object, for scripts and monitoring."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from typing import Any

from . import phrases
from .model import RunStatus


def status_document(status: RunStatus) -> dict[str, Any]:
    """The fields of a status as JSON values. The state of the driver is called `life`, that of a worker `standing`.

    Besides the fields of the dataclasses: `headline`, `goes_on` and `is_done` of the run, `left`, `fraction` and
    `voxels_per_second` of each stage, `fraction` of each training.
    """
    document = _plain(asdict(status))
    document |= {"headline": phrases.headline(status), "goes_on": status.goes_on, "is_done": status.is_done}
    document["driver"]["life"] = document["driver"].pop("state")
    for worker in document["workers"]:
        worker["standing"] = worker.pop("state")
    for entry, stage in zip(document["stages"], status.stages, strict=True):
        entry |= {"left": stage.left, "fraction": stage.fraction, "voxels_per_second": stage.voxels_per_second}
    for entry, training in zip(document["trainings"], status.trainings, strict=True):
        entry["fraction"] = training.fraction
    return dict(document)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
