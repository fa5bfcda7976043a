"""The errors that `06_evaluate.py` listed, for walking through them."""

from __future__ import annotations

import csv
from dataclasses import dataclass

from ..command_names import name_of
from ..evaluation.runs import ERRORS
from ..run import Run
from ..small_files import understanding


@dataclass(frozen=True)
class ListedError:
    """A line of `errors.csv`.

    Attributes:
        kind: `split` or `merge`.
        cost: bits of VOI.
        segments, labels: ids; equal ones once.
        position: nanometres, z, y, x.
    """

    kind: str
    cost: float
    segments: tuple[int, ...]
    labels: tuple[int, ...]
    position: tuple[float, float, float]

    @property
    def text(self) -> str:
        """The error in one line."""
        segments, labels = (", ".join(map(str, ids)) for ids in (self.segments, self.labels))
        if self.kind == "split":
            return f"split, {self.cost:.3g} bits: segments {segments} are one object (label {labels})"
        return f"merge, {self.cost:.3g} bits: segment {segments} holds objects {labels}"


def read_errors(run: Run) -> list[ListedError]:
    """The errors of a run, the dearest first; none if it is not evaluated.

    Raises:
        DamagedFile: the file says something else.
    """
    path = run.directory / ERRORS
    if not path.exists():
        return []
    cure = f"delete it and run {name_of('06_evaluate.py')} again"
    with understanding(path, cure), path.open(newline="", encoding="utf-8") as file:
        return [_of_line(line) for line in csv.DictReader(file)]


def _of_line(line: dict[str, str]) -> ListedError:
    z, y, x = (float(line[f"{axis}_nm"]) for axis in "zyx")
    return ListedError(line["kind"], float(line["voi"]), _ids(line, "segment"), _ids(line, "label"), (z, y, x))


def _ids(line: dict[str, str], what: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(int(line[f"{what}_{end}"]) for end in "ab"))
