"""Logs of a training: TensorBoard, `curves.jsonl` for the report, a progress bar, and a record for the status."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from ...engine.tracking.training_record import TrainingNotes
from ...errors import UserError, writing
from ...small_files import read_json_lines, replaced_file
from ...terminal import ProgressBar
from ..objective.step_clock import Split


class TrainingLog:
    """Writes curves and pictures of one network; a context manager. A full disk is a `UserError` wherever it shows.

    What was logged after iteration `start` by an earlier run that got further than its last checkpoint is dropped.

    Args:
        directory: the network's folder; gets `curves.jsonl`, `progress.json` and `logs/`.
        start: iterations done so far.
        total: iterations to do in all.
        name: of the progress bar.
    """

    def __init__(self, directory: Path, start: int, total: int, name: str) -> None:
        self.curves = directory / "curves.jsonl"
        self._rewind(start)
        self.progress = ProgressBar(name, total, "iterations", start)
        self.notes = TrainingNotes(directory, start, total)
        self.events = directory / "logs"
        with writing(self.events):
            self.writer = SummaryWriter(str(self.events), purge_step=start + 1)

    def __enter__(self) -> TrainingLog:
        self.progress.__enter__()
        self._former_hook, threading.excepthook = threading.excepthook, self._without_words_of_writers
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.progress.close()
        try:  # its thread has ended when this returns
            with writing(self.events):
                self.writer.close()
            self.notes.end(error)
        except UserError:
            if error is None:  # otherwise there is more to tell
                raise
        finally:
            threading.excepthook = self._former_hook

    def _without_words_of_writers(self, told: threading.ExceptHookArgs) -> None:
        """Leave out what a thread of TensorBoard could not write: it is raised at the next call, and told there."""
        if not (isinstance(told.exc_value, OSError) and type(told.thread).__module__.startswith("tensorboard")):
            self._former_hook(told)

    def advance(self, loss: float, waiting: float | None = None) -> None:
        """One more iteration is done; lately training has waited for data for a share of the time."""
        self.progress.advance(f"loss {loss:.4f}" + ("" if waiting is None else f", data {waiting:.0%}"))
        self.notes.advance(loss)

    def scalars(
        self, iteration: int, values: Mapping[str, float], weights: Mapping[str, float], seconds: float
    ) -> None:
        """Log the losses of an iteration, unweighted, and their weights in the sum."""
        with writing(self.events):
            for group, numbers in (("training", values), ("weight", weights)):
                for name, value in numbers.items():
                    self.writer.add_scalar(f"{group}/{name}", value, iteration)
        self._append({"iteration": iteration, **values, "weights": dict(weights), "seconds": round(seconds, 3)})

    def split(self, iteration: int, split: Split) -> None:
        """Log milliseconds of a step and of its parts, and the share of waiting for data."""
        with writing(self.events):
            self.writer.add_scalar("time/waiting for data (share)", split.waiting, iteration)
            for name, seconds in (("a step", split.seconds), *split.parts.items()):
                self.writer.add_scalar(f"time/{name} (ms)", 1e3 * seconds, iteration)

    def validation(self, iteration: int, values: Mapping[str, float]) -> None:
        """Log the scores of a validation."""
        with writing(self.events):
            for name, value in values.items():
                self.writer.add_scalar(f"validation/{name}", value, iteration)
        self._append({"iteration": iteration, "validation": dict(values)})
        self.notes.validation(iteration, dict(values))

    def picture(self, iteration: int, name: str, picture: np.ndarray) -> None:
        """Log a picture, (y, x, 3) uint8."""
        with writing(self.events):
            self.writer.add_image(name, picture, iteration, dataformats="HWC")

    def has_validation(self, iteration: int) -> bool:
        """Whether the scores of an iteration are logged."""
        return any("validation" in line and line.get("iteration") == iteration for line in read_json_lines(self.curves))

    def _append(self, line: dict[str, Any]) -> None:
        with writing(self.curves), self.curves.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _rewind(self, iteration: int) -> None:
        """Drop the lines after an iteration."""
        numbered = [line for line in read_json_lines(self.curves) if isinstance(line.get("iteration"), int)]
        kept = [line for line in numbered if line["iteration"] <= iteration]
        with replaced_file(self.curves) as file:
            file.write("".join(json.dumps(line) + "\n" for line in kept).encode())
