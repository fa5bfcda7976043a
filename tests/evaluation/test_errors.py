"""The list of errors: each where it is, dear ones first, and together the whole VOI."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from funlib.geometry import Coordinate

from pipeline.evaluation import LabelRules, prepare_labels, variation_of_information
from pipeline.evaluation.errors import SegmentationError, rank_errors, read_errors, write_errors
from pipeline.evaluation.overlaps import InMemory
from pipeline.evaluation.seams import find_seams
from pipeline.small_files import DamagedFile
from pipeline.volumes import Box

SHAPE = (12, 20, 24)


def errors_of(
    segmentation: np.ndarray, labels: np.ndarray, relabel: bool = False, **how: object
) -> list[SegmentationError]:
    rules = LabelRules(relabel=relabel)
    overlap = find_seams(InMemory(segmentation), InMemory(labels), Box.of_shape(labels.shape), rules=rules, **how)  # type: ignore[arg-type]
    return rank_errors(overlap)


def cells(seed: int, number: int) -> np.ndarray:
    """Random convex cells that fill a volume, 1..number."""
    points = np.random.default_rng(seed).uniform(0, SHAPE, (number, 3))
    grid = np.moveaxis(np.indices(SHAPE), 0, -1)
    ids: np.ndarray = np.argmin(((grid[..., None, :] - points) ** 2).sum(-1), axis=-1) + 1
    return ids.astype(np.uint64)


def test_a_split_and_a_merge_are_told_with_a_voxel_beside_the_seam() -> None:
    labels = np.ones(SHAPE, np.uint64)
    labels[:, 10:] = 2
    labels[:, :, 20:] = 3
    segmentation = labels * np.uint64(10)
    segmentation[labels == 1] = 7
    segmentation[:4][labels[:4] == 1] = 8  # split of label 1 between z 3 and 4
    segmentation[labels >= 2] = 9  # merge of 2 and 3
    merge, split = errors_of(segmentation, labels)
    assert (merge.kind, merge.segments, merge.labels) == ("merge", (9, 9), (2, 3))
    assert merge.voxels == (12 * 10 * 20, 12 * 20 * 4) and merge.contact == 12 * 10
    assert merge.voxel[2] in (19, 20) and merge.voxel[1] >= 10
    assert (split.kind, split.segments, split.labels) == ("split", (7, 8), (1, 1))
    assert split.voxels == (8 * 10 * 20, 4 * 10 * 20) and split.contact == 10 * 20
    assert split.voxel[0] in (3, 4) and split.voxel[1] < 10 and split.voxel[2] < 20


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("relabel", [False, True])
def test_all_errors_together_cost_the_voi(seed: int, relabel: bool) -> None:
    labels, segmentation = cells(seed, 6) % 5, cells(seed + 10, 9)
    errors = errors_of(segmentation, labels, relabel)
    voi = variation_of_information(segmentation, prepare_labels(labels, LabelRules(relabel=relabel)))
    for kind, expected in (("split", voi.split), ("merge", voi.merge)):
        assert sum(error.cost for error in errors if error.kind == kind) == pytest.approx(expected, abs=1e-9)
    assert [error.cost for error in errors] == sorted((error.cost for error in errors), reverse=True)


@pytest.mark.parametrize("relabel", [False, True])
def test_blocks_change_neither_errors_nor_their_cost(relabel: bool) -> None:
    labels, segmentation = cells(1, 5) % 4 + 1, cells(2, 8)
    whole = errors_of(segmentation, labels, relabel)
    parts = errors_of(segmentation, labels, relabel, block_shape=(5, 7, 24))
    same = [[(e.kind, e.segments, e.labels, e.voxels, e.contact) for e in found] for found in (whole, parts)]
    assert same[0] == same[1]
    for error in parts:  # whichever voxel of the seam it is
        z, y, x = error.voxel
        assert segmentation[z, y, x] in error.segments or labels[z, y, x] in error.labels


def test_objects_on_both_sides_of_an_unlabelled_membrane_touch() -> None:
    labels = np.ones(SHAPE, np.uint64)
    labels[:, 12:] = 2
    labels[:, 10:12] = 0
    (merge,) = errors_of(np.full(SHAPE, 5, np.uint64), labels)
    assert merge.contact == 12 * 24
    assert 9 <= merge.voxel[1] <= 12


def test_ids_below_0_where_nothing_is_labelled_do_not_matter() -> None:
    labels = np.ones(SHAPE, np.uint64)
    labels[:, 10:] = 0
    segmentation = np.ones(SHAPE, np.int64)
    segmentation[6:, :10] = 2
    segmentation[:, 10:] = -1
    (split,) = errors_of(segmentation, labels)
    assert (split.kind, split.segments) == ("split", (1, 2))


def test_what_touches_nothing_is_told_by_a_voxel_inside_it() -> None:
    labels = np.zeros(SHAPE, np.uint64)
    labels[0:2], labels[11] = 1, 1
    segmentation = np.ones(SHAPE, np.uint64)
    segmentation[11] = 2
    (split,) = errors_of(segmentation, labels, spacing=(40, 4, 4))
    assert split.contact == 0 and split.voxel[0] == 11 and split.voxels == (2 * 20 * 24, 20 * 24)


def test_the_table_says_voxels_and_nanometres(tmp_path: Path) -> None:
    labels = np.ones(SHAPE, np.uint64)
    segmentation = labels.copy()
    segmentation[6:] = 2
    write_errors(tmp_path / "errors.csv", errors_of(segmentation, labels), (40, 5.24, 4), (1000, 0, 8))
    (row,) = csv.DictReader((tmp_path / "errors.csv").open())
    assert (row["rank"], row["kind"], row["segment_a"], row["segment_b"]) == ("1", "split", "1", "2")
    assert float(row["voi"]) == pytest.approx(1.0)
    place = [1000 + (int(row["z"]) + 0.5) * 40, (int(row["y"]) + 0.5) * 5.24, 8 + (int(row["x"]) + 0.5) * 4]
    assert [float(row[f"{axis}_nm"]) for axis in "zyx"] == pytest.approx(place)


def test_a_region_of_a_larger_segmentation() -> None:
    labels = cells(3, 4)
    segmentation = np.zeros((16, 22, 30), np.uint64)
    segmentation[2:14, 1:21, 3:27] = cells(4, 4)
    found = errors_of(segmentation, labels, shift=Coordinate(-2, -1, -3))
    direct = errors_of(cells(4, 4), labels)
    assert found == direct


@pytest.mark.parametrize("size", [(40, 8, 8), None])
def test_a_table_gives_back_what_was_written_with_places_in_nanometres(
    tmp_path: Path, size: tuple[int, int, int] | None
) -> None:
    written = [
        SegmentationError("split", 0.5, (7, 9), (3, 3), (20, 10), 4, (1, 2, 3)),
        SegmentationError("merge", 0.25, (7, 7), (3, 4), (20, 10), 4, (0, 0, 0)),
    ]
    write_errors(tmp_path / "errors.csv", written, size, (100, 0, 0))
    found = read_errors(tmp_path / "errors.csv")
    assert found == written
    assert [error.position for error in found] == ([(160, 20, 28), (120, 4, 4)] if size else [None, None])
    assert found[0].text == "split, 0.5 bits: segments 7, 9 are one object (label 3)"
    assert found[1].text == "merge, 0.25 bits: segment 7 holds objects 3, 4"


def test_a_table_with_an_endless_field_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "errors.csv").write_text('kind\n"' + "x" * 200_000 + '"\n')
    with pytest.raises(DamagedFile, match="delete it"):
        read_errors(tmp_path / "errors.csv")
