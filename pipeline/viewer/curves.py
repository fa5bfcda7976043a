"""Training curves as the training wrote them: one JSON object per line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..small_files import read_json_lines

NOT_TERMS = ("iteration", "loss", "learning_rate", "seconds", "validation")


LAST_ITERATION = 2**62
"""A line of a damaged file may say any number."""


@dataclass(frozen=True)
class Curves:
    """The curves of one training.

    Attributes:
        iterations: (n,) iterations with a logged loss.
        losses: (n,) per name, `loss` first, then its terms; NaN where a term was not logged.
        validation_iterations: (m,) iterations with a validation.
        validations: (m,) per measure.
    """

    iterations: np.ndarray
    losses: dict[str, np.ndarray]
    validation_iterations: np.ndarray
    validations: dict[str, np.ndarray]


def read_curves(path: Path) -> Curves | None:
    """Read `curves.jsonl`; None if there is none.

    A resumed training logs the iterations after its checkpoint again; the last record of an iteration counts. The last
    line may be cut off by a crash and is ignored then.
    """
    if not path.exists():
        return None
    training: dict[int, dict[str, Any]] = {}
    validation: dict[int, dict[str, Any]] = {}
    for record in read_json_lines(path):
        iteration = record.get("iteration")
        if not isinstance(iteration, int) or not 0 <= iteration < LAST_ITERATION:
            continue
        if isinstance(record.get("validation"), dict):
            validation[iteration] = record["validation"]
        if isinstance(record.get("loss"), int | float):
            training[iteration] = record
    iterations, losses = _columns(training, first="loss")
    validation_iterations, validations = _columns(validation)
    return Curves(iterations, losses, validation_iterations, validations)


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over `window` values around each, fewer at the ends."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    indices = np.arange(len(values))
    begins = np.maximum(0, indices - window // 2)
    ends = np.minimum(len(values), indices + window // 2 + 1)
    result: np.ndarray = (sums[ends] - sums[begins]) / (ends - begins)
    return result


def _columns(records: dict[int, dict[str, Any]], first: str | None = None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    iterations = sorted(records)
    names = dict.fromkeys([first] if first else [])
    for iteration in iterations:
        numbers = (name for name, value in records[iteration].items() if isinstance(value, int | float))
        names.update(dict.fromkeys(name for name in numbers if name == first or name not in NOT_TERMS))
    columns = {str(name): np.array([records[i].get(name, np.nan) for i in iterations], dtype=float) for name in names}
    return np.array(iterations, dtype=int), columns
