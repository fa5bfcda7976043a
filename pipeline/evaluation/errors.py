"""The errors of a segmentation, ranked by what each costs, with a voxel on the seam: what to look at first.

What VOI counts as split of an object is undone by joining its pieces one after another, and what it counts as merge by
taking the objects in a segment apart one after another. Each such step is an error, and costs the bits that it would
save: with f(n) = n log2 n and N voxels scored, joining pieces of a and b voxels saves (f(a + b) - f(a) - f(b)) / N. The
costs of all splits are the split VOI, those of all merges the merge VOI (Meila, J. Multivariate Anal. 2007, defines
both). Pieces that touch are joined first, dear seams before cheap ones; what touches nothing is joined last, to the
largest, and has no seam: then the voxel lies inside it.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import log2
from pathlib import Path
from typing import Literal

import numpy as np

from ..small_files import replaced_file, understanding
from .contingency import Contingency
from .seams import Overlap, Seams

MOST = 10_000
"""Errors that are listed at most."""
COLUMNS = (
    "rank",
    "kind",
    "voi",
    "segment_a",
    "segment_b",
    "label_a",
    "label_b",
    "voxels_a",
    "voxels_b",
    "contact",
    "z",
    "y",
    "x",
    "z_nm",
    "y_nm",
    "x_nm",
)
"""Of `errors.csv`: z, y, x are voxels of the labels' volume."""
_WHOLE_NUMBERS = {
    *(f"{what}_{end}" for what in ("segment", "label", "voxels") for end in "ab"),
    *("contact", "z", "y", "x"),
}


@dataclass(frozen=True)
class SegmentationError:
    """One step towards the labels.

    Attributes:
        kind: `split`: two segments belong together; `merge`: one segment holds two objects.
        cost: bits of VOI.
        segments: the two that touch; twice the same for a merge.
        labels: original labels of the objects; twice the same for a split.
        voxels: of the two pieces, with all that belongs to each by errors before.
        contact: faces between voxels along the seam; 0 if the two do not touch.
        voxel: z, y, x beside the seam, in voxels of the labels' volume.
        position: the middle of that voxel in nanometres, z, y, x; None where only a table would tell.
    """

    kind: Literal["split", "merge"]
    cost: float
    segments: tuple[int, int]
    labels: tuple[int, int]
    voxels: tuple[int, int]
    contact: int
    voxel: tuple[int, int, int]
    position: tuple[float, float, float] | None = field(default=None, compare=False)

    @property
    def text(self) -> str:
        """The error in one line."""
        segments, labels = (", ".join(map(str, dict.fromkeys(ids))) for ids in (self.segments, self.labels))
        if self.kind == "split":
            return f"split, {self.cost:.3g} bits: segments {segments} are one object (label {labels})"
        return f"merge, {self.cost:.3g} bits: segment {segments} holds objects {labels}"


def rank_errors(overlap: Overlap, most: int = MOST) -> list[SegmentationError]:
    """The errors that cost most, the dearest first.

    Args:
        overlap: of a segmentation with labels.
        most: errors that are listed at most.
    """
    table = overlap.table
    splits = _steps(table.label, table.segment, table, overlap.voxels, overlap.splits)
    merges = _steps(table.segment, table.label, table, overlap.voxels, overlap.merges)

    def label(number: int) -> int:
        return overlap.label_of.get(number, number)

    errors = [
        SegmentationError("split", s.cost, s.ids, (label(s.inside),) * 2, s.voxels, s.contact, s.voxel) for s in splits
    ]
    errors += [
        SegmentationError(
            "merge", s.cost, (s.inside,) * 2, (label(s.ids[0]), label(s.ids[1])), s.voxels, s.contact, s.voxel
        )
        for s in merges
    ]
    errors.sort(key=lambda error: (-error.cost, error.kind, error.segments, error.labels))
    return errors[:most]


def write_errors(
    path: Path, errors: Iterable[SegmentationError], voxel_size: Sequence[float] | None, offset: Sequence[float]
) -> None:
    """Write a table of errors, one line each; `COLUMNS`.

    Args:
        path: of the CSV file.
        errors: the dearest first.
        voxel_size: of the labels' volume in nanometres; None leaves positions in nanometres empty.
        offset: of its first voxel in nanometres.

    Raises:
        UserError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for rank, error in enumerate(errors, 1):
        place = [""] * 3
        if voxel_size is not None:
            centres = zip(error.voxel, voxel_size, offset, strict=True)
            place = [f"{start + (voxel + 0.5) * size:.10g}" for voxel, size, start in centres]
        ids = (*error.segments, *error.labels, *error.voxels)
        writer.writerow([rank, error.kind, f"{error.cost:.6g}", *ids, error.contact, *error.voxel, *place])
    with replaced_file(path) as file:
        file.write(text.getvalue().encode())


def read_errors(path: Path, most: int = MOST) -> list[SegmentationError]:
    """The errors of a table that `write_errors` has written, the dearest first; none if there is no such file.

    Args:
        path: of the CSV file.
        most: errors that are read at most.

    Raises:
        DamagedFile: the file says something else.
    """
    if not path.exists():
        return []
    cure = "delete it, and evaluate the run again"
    with understanding(str(path), cure), path.open(newline="", encoding="utf-8") as file:
        return [_of_line(line) for line in itertools.islice(csv.DictReader(file), most)]


def _of_line(line: dict[str, str]) -> SegmentationError:
    kind, numbers = line["kind"], {name: int(line[name]) for name in COLUMNS if name in _WHOLE_NUMBERS}
    if kind not in ("split", "merge"):
        raise ValueError(f"{kind} is neither a split nor a merge")
    return SegmentationError(
        "split" if kind == "split" else "merge",
        float(line["voi"]),
        (numbers["segment_a"], numbers["segment_b"]),
        (numbers["label_a"], numbers["label_b"]),
        (numbers["voxels_a"], numbers["voxels_b"]),
        numbers["contact"],
        (numbers["z"], numbers["y"], numbers["x"]),
        _position(line),
    )


def _position(line: dict[str, str]) -> tuple[float, float, float] | None:
    """Nanometres; None where nothing said them."""
    told = [line[f"{axis}_nm"] for axis in "zyx"]
    return (float(told[0]), float(told[1]), float(told[2])) if any(told) else None


@dataclass(frozen=True)
class _Step:
    """Two pieces that are joined in an object, or taken apart in a segment."""

    inside: int
    cost: float
    ids: tuple[int, int]
    voxels: tuple[int, int]
    contact: int
    voxel: tuple[int, int, int]


def _steps(
    wholes: np.ndarray, pieces: np.ndarray, table: Contingency, voxels: np.ndarray, seams: Seams
) -> Iterator[_Step]:
    """The steps of all wholes: objects with their segments, or segments with their objects.

    Args:
        wholes, pieces: (N,) ids, entries of the table.
        table: their common voxels.
        voxels: (N, 3) a voxel of each entry.
        seams: where pieces touch inside wholes.
    """
    total = float(table.total)
    order = np.lexsort((pieces, wholes))
    starts = np.flatnonzero(np.concatenate([[True], np.diff(wholes[order]) != 0])[: len(order)])
    seam_bounds = [np.searchsorted(seams.inside, wholes[order][starts], side) for side in ("left", "right")]
    ends = np.append(starts[1:], len(order))
    for begin, end, low, high in zip(starts, ends, *seam_bounds, strict=True):
        if end - begin == 1:
            continue
        rows = order[begin:end]
        yield from _steps_of(
            int(wholes[rows[0]]), pieces[rows], table.count[rows], voxels[rows], seams, range(low, high), total
        )


def _steps_of(
    whole: int,
    pieces: np.ndarray,
    counts: np.ndarray,
    voxels: np.ndarray,
    seams: Seams,
    rows: range,
    total: float,
) -> Iterator[_Step]:
    """The steps of one whole, with union and find: along the dearest seams first, then whatever is left."""
    number = {int(piece): index for index, piece in enumerate(pieces)}
    group = list(range(len(pieces)))
    size = [int(count) for count in counts]

    def root(index: int) -> int:
        while group[index] != index:
            group[index] = group[group[index]]
            index = group[index]
        return index

    def join(one: int, other: int, contact: int, voxel: np.ndarray) -> _Step | None:
        first, second = root(one), root(other)
        if first == second:
            return None
        sizes = size[first], size[second]
        group[second], size[first] = first, sum(sizes)
        z, y, x = (int(v) for v in voxel)
        ids = int(pieces[one]), int(pieces[other])
        return _Step(whole, _gain(*sizes) / total, ids, sizes, contact, (z, y, x))

    ends = [
        (number[int(a)], number[int(b)], row)
        for a, b, row in zip(
            seams.first[rows.start : rows.stop], seams.second[rows.start : rows.stop], rows, strict=True
        )
        if int(a) in number and int(b) in number
    ]
    ends.sort(key=lambda end: (-_gain(size[end[0]], size[end[1]]), end))
    steps = [join(one, other, int(seams.faces[row]), seams.place[row]) for one, other, row in ends]
    largest = int(np.argmax(counts))
    left = sorted(range(len(pieces)), key=lambda index: (-int(counts[index]), index))
    steps += [join(largest, index, 0, voxels[index]) for index in left]
    yield from (step for step in steps if step is not None)


def _gain(one: int, other: int) -> float:
    """Bits times voxels that two pieces cost by being two."""
    return (one + other) * log2(one + other) - one * log2(one) - other * log2(other)
