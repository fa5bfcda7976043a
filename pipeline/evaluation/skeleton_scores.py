"""Run lengths of a segmentation on skeletons of any format, at any threshold, and the table of skeletons."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..segmentation import relabel
from ..small_files import replaced_file
from ..volumes.locations import Location
from .contingency import Contingency
from .label_files import LabelFile, open_labels
from .placed_ids import PlacedIds
from .skeleton_files import Scale, open_skeletons
from .skeletons import RunLengths, Skeletons, run_lengths

RULES = ("merge_threshold", "no_merge_mask")
COLUMNS: tuple[str, ...] = (
    "skeleton",
    "length_nm",
    "erl_nm",
    "normalised_erl",
    "splits",
    "merges",
    "omitted_edges",
    "merged_edges",
    "correct_edges",
    "segments",
    *RULES,
)
"""Of the table of skeletons: `splits` are edges between two segments, `merges` segments that are merged; at its end the
rules that run lengths depend on."""


@dataclass(frozen=True)
class SkeletonOptions:
    """Skeletons to measure run lengths on, and how.

    Attributes:
        place: of the skeletons, see `open_skeletons`.
        scale: nanometres of a unit of their positions, z, y, x; None for what the file says.
        merge_threshold: nodes of each of two skeletons, or voxels of the mask, with which a segment is merged.
        no_merge_mask: a volume that is above 0 where no skeleton is; segments must not reach there. None for none.
    """

    place: str | Path
    scale: Scale | None = None
    merge_threshold: int = 1
    no_merge_mask: str | Path | None = None

    def open(self) -> Skeletons:
        """The skeletons.

        Raises:
            UserError: they cannot be read, or the threshold is below 1.
        """
        if self.merge_threshold < 1:
            raise UserError(f"is {self.merge_threshold}; one node at least merges", "--merge-threshold")
        return open_skeletons(self.place, self.scale)

    def described(self) -> dict[str, Any]:
        """What has to be said with every number."""
        mask = None if self.no_merge_mask is None else Location.of(self.no_merge_mask).name
        return {"merge_threshold": self.merge_threshold, "no_merge_mask": mask}


@dataclass(frozen=True)
class NodeSegments:
    """What a segmentation, or fragments, have at the nodes of skeletons and in the mask; relabelled per threshold.

    Attributes:
        skeletons: N nodes.
        ids: (N,) uint64 of each node; 0 for none.
        in_mask: voxels of the mask by id; None without a mask.
        merge_threshold: see `SkeletonOptions`.
    """

    skeletons: Skeletons
    ids: np.ndarray
    in_mask: Contingency | None
    merge_threshold: int

    @staticmethod
    def of(volume: PlacedIds, skeletons: Skeletons, options: SkeletonOptions, mask: LabelFile | None) -> NodeSegments:
        """Read what is needed of a volume, block by block."""
        in_mask = None if mask is None else volume.masked(mask)
        return NodeSegments(skeletons, volume.at(skeletons), in_mask, options.merge_threshold)

    def all_ids(self) -> np.ndarray:
        """Sorted ids above 0 that were found."""
        ids = self.ids if self.in_mask is None else np.concatenate([self.ids, self.in_mask.segment])
        ids = np.unique(ids)
        return ids[ids > 0]

    def relabelled(self, lut: np.ndarray) -> NodeSegments:
        """The same after ids have become others.

        Args:
            lut: (M, 2) uint64 ids and what they become, sorted; every id is in it.
        """
        ids = relabel(self.ids, lut[:, 0], lut[:, 1])
        if self.in_mask is None:
            return replace(self, ids=ids)
        in_mask = self.in_mask.relabelled(relabel(self.in_mask.segment, lut[:, 0], lut[:, 1]))
        return replace(self, ids=ids, in_mask=in_mask)

    def score(self, inside: np.ndarray | None = None) -> RunLengths:
        """Run lengths.

        Args:
            inside: (N,) bool nodes that count; edges between two others, or to them, are left out. Default: all.
        """
        masked = None if self.in_mask is None else self.in_mask.segment[self.in_mask.count >= self.merge_threshold]
        if inside is None:
            return run_lengths(self.skeletons, self.ids, self.merge_threshold, masked)
        return run_lengths(self.skeletons.within(inside), self.ids[inside], self.merge_threshold, masked)


def open_mask(options: SkeletonOptions, stack: ExitStack) -> LabelFile | None:
    """The no-merge mask until `stack` closes; None if there is none."""
    return None if options.no_merge_mask is None else open_labels(options.no_merge_mask, stack)


def score_skeletons(
    prediction: str | Path,
    options: SkeletonOptions,
    voxel_size: Scale | None = None,
    offset: Scale | None = None,
    table: Path | None = None,
) -> tuple[RunLengths, dict[str, Any]]:
    """Run lengths of anybody's segmentation.

    Args:
        prediction: a volume of ids, as for `score_volumes`; 0 is no segment.
        options: skeletons, merge threshold and mask.
        voxel_size, offset: of the volume in nanometres, z, y, x; None for what it states. An offset that nothing states
            is 0.
        table: CSV file for a row per skeleton; None for none.

    Returns:
        The run lengths, and a summary: `erl`, `max_erl` and `normalised_erl` (nanometres, and their ratio),
        `merge_threshold`, `no_merge_mask`, numbers of `skeletons`, `nodes`, `nodes_outside` and edges of each kind.

    Raises:
        StorageUnavailable: a server does not answer.
        UserError: skeletons, volume or mask cannot be read, do not fit together, or nothing says how large voxels are.
    """
    skeletons = options.open()
    with ExitStack() as stack:
        volume = _placed(open_labels(prediction, stack), voxel_size, offset)
        outside = volume.require_nodes(skeletons)
        lengths = NodeSegments.of(volume, skeletons, options, open_mask(options, stack)).score()
    if table is not None:
        write_table(table, lengths, options)
    return lengths, {**summary_of(lengths, options), "nodes": len(skeletons.owner), "nodes_outside": outside}


def summary_of(lengths: RunLengths, options: SkeletonOptions) -> dict[str, Any]:
    """The numbers of all skeletons together, and what has to be said with them."""
    totals = {**lengths.totals(), "max_erl": round(lengths.highest, 3), "skeletons": len(lengths.names)}
    return {**totals, **options.described()}


def write_table(path: Path, lengths: RunLengths, options: SkeletonOptions) -> None:
    """Write a row per skeleton as CSV, those that lost most first; `COLUMNS`.

    Raises:
        UserError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows_of(lengths, options))
    with replaced_file(path) as file:
        file.write(text.getvalue().encode())


def rows_of(lengths: RunLengths, options: SkeletonOptions) -> Iterator[list[str | int]]:
    """A row per skeleton, those that lost most first: what each takes from the expected run length of all."""
    lost = np.round(lengths.length * (lengths.length - lengths.erl), 3)
    rules = [options.described()[name] for name in RULES]
    for index in np.lexsort((np.arange(len(lost)), -lost)).tolist():
        length, erl = float(lengths.length[index]), float(lengths.erl[index])
        counts = (lengths.split, lengths.merges, lengths.omitted, lengths.merged, lengths.correct, lengths.segments)
        share = f"{erl / length:.6f}" if length > 0 else ""
        numbers = (int(count[index]) for count in counts)
        yield [lengths.names[index], f"{length:.3f}", f"{erl:.3f}", share, *numbers, *rules]


def _placed(volume: LabelFile, voxel_size: Scale | None, offset: Scale | None) -> PlacedIds:
    size = voxel_size or volume.voxel_size
    if size is None:
        raise UserError("nothing says how large its voxels are; give --voxel-size Z Y X in nanometres", volume.name)
    place = offset if offset is not None else volume.offset
    return PlacedIds(volume, volume.name, volume.shape, size, place or (0.0, 0.0, 0.0), placed=place is not None)
