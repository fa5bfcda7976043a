"""Labels are read where they lie: where they may lie beside raw, and which ids count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from source_in_place import LABELS, NM, RAW, SHAPE, Step, run_of, voxels
from stored_arrays import ngff, scale, translation, write_group, write_ngff, write_zarr

from pipeline.config import load_config
from pipeline.errors import UserError
from pipeline.run import Run
from pipeline.training.sampling.regions import ChunkCache, training_regions
from pipeline.volumes import Box


@pytest.mark.parametrize("told", [{}, {"voxel_size": [40, 6, 4]}])
def test_labels_that_lie_beside_raw_are_refused(tmp_path: Path, step: Step, told: dict[str, Any]) -> None:
    for name, data, place in (("raw", RAW, (4.0, 0.6, 0.4)), ("labels", LABELS, (4.4, 0.66, 0.44))):
        write_zarr(tmp_path / f"{name}.zarr" / "0", data, dimension_separator="/")
        write_group(tmp_path / f"{name}.zarr", ngff({"0": [scale(0.04, 0.006, 0.004), translation(*place)]}))
    status, said = step({"path": "raw.zarr", "labels_path": "labels.zarr", "labels": "0", **told})
    assert status == 2
    assert "volumes.sources.s.offset" in said and "400 x 60 x 40 nm beside" in said
    assert not (tmp_path / "run").exists()
    status, said = step({"path": "raw.zarr"})
    assert status == 0 and "voxels of 40 x 6 x 4 nm at offset 4000 x 600 x 400 nm" in said


def test_labels_displaced_by_half_a_voxel_are_refused(tmp_path: Path, step: Step) -> None:
    write_zarr(tmp_path / "in.zarr" / "raw", RAW, NM)
    write_zarr(tmp_path / "in.zarr" / "labels", LABELS, {**NM, "offset": [0, 3, 0]})
    status, said = step({"path": "in.zarr"})
    assert status == 2 and "0 x 0.5 x 0 of raw's voxels" in said


@pytest.mark.parametrize("kind", ["hdf5", "zarr"])
def test_labels_may_cover_a_part_of_raw(tmp_path: Path, step: Step, kind: str) -> None:
    """The rest is not annotated: neither an object nor background."""
    part = LABELS[3:9, 10:30, 10:30].copy()
    part[0, 0, 0] = 0
    attributes = {**NM, "offset": [120, 60, 40]}
    if kind == "zarr":
        write_zarr(tmp_path / "in.x" / "raw", RAW, NM)
        write_zarr(tmp_path / "in.x" / "labels", part, attributes)
    else:
        with h5py.File(tmp_path / "in.x", "w") as file:
            file.create_dataset("raw", data=RAW).attrs.update(NM)
            file.create_dataset("labels", data=part).attrs.update(attributes)
    status, said = step({"path": "in.x"})
    assert status == 0 and "labels uint64 on voxels 3 x 10 x 10 to 9 x 30 x 30" in said
    (region,) = training_regions(run_of(tmp_path))
    expected, known = np.zeros(SHAPE, np.uint64), np.zeros(SHAPE, bool)
    expected[3:9, 10:30, 10:30], known[3:9, 10:30, 10:30] = part, True
    for box in (Box.of_shape(SHAPE), Box.of_shape(SHAPE).grow((-4, -5, -12), (-5, -12, -7))):
        assert np.array_equal(region.read_labels(box, ChunkCache()), expected[box.slices])
        assert np.array_equal(region.read_annotated(box, ChunkCache()), known[box.slices])


def test_labels_may_be_coarser_by_whole_factors(tmp_path: Path, step: Step) -> None:
    write_zarr(tmp_path / "in.zarr" / "raw", RAW, NM)
    coarse = LABELS[:, ::2, ::4]
    write_zarr(tmp_path / "in.zarr" / "labels", coarse, {"resolution": [40, 12, 16]})
    status, said = step({"path": "in.zarr"})
    assert status == 0 and "labels uint64 coarser by 1 x 2 x 4" in said
    expected = coarse.repeat(2, axis=1).repeat(4, axis=2)
    run, box = run_of(tmp_path), Box.of_shape(SHAPE).grow((-1, -3, -5), (0, -1, -2))
    assert np.array_equal(run.open_labels("s").read(box), expected[box.slices])
    write_zarr(tmp_path / "in.zarr" / "labels", coarse, {"resolution": [40, 9, 16]})
    status, said = step({"path": "in.zarr"}, "--set", "run_directory=other")
    assert status == 2 and "coarser than raw by whole factors only" in said


def test_labels_of_the_level_that_fits_raw(tmp_path: Path, step: Step) -> None:
    """Raw is read at level 1; the labels' finest level would be finer than raw."""
    place = tmp_path / "in.zarr"
    levels = {"0": [scale(0.04, 0.006, 0.004)], "1": [scale(0.04, 0.012, 0.008)]}
    for group, data in ((place, RAW), (place / "labels" / "cells", LABELS)):
        write_zarr(group / "0", data)
        write_zarr(group / "1", data[:, ::2, ::2])
        write_group(group, ngff(levels))
    write_group(place / "labels", {"labels": ["cells"]})
    status, said = step({"path": "in.zarr", "level": 1})
    assert status == 0 and "12 x 20 x 22 voxels of 40 x 12 x 8 nm" in said
    assert np.array_equal(voxels(tmp_path, "labels"), LABELS[:, ::2, ::2])


def test_labels_without_a_level_that_fits_raw_are_told_so(tmp_path: Path, step: Step) -> None:
    """Not that a level is missing which nobody named."""
    write_ngff(tmp_path / "in.zarr", RAW[:, ::2, ::2], scale(40, 12, 8))
    write_ngff(tmp_path / "labels.zarr", LABELS, scale(40, 6, 4))
    status, said = step({"path": "in.zarr", "labels_path": "labels.zarr"})
    assert status == 2 and "coarser than raw by whole factors only" in said


@pytest.mark.parametrize("factor", [2, 3])
def test_coarser_labels_beside_raw_that_states_no_translation(tmp_path: Path, step: Step, factor: int) -> None:
    """In OME-NGFF no translation is one of 0, of the centre of the first voxel, so that a level of a pyramid lies half
    of its voxel further on: raw and labels begin at the same corner.
    """
    coarse = LABELS[:, :18:factor, :18:factor]
    write_ngff(tmp_path / "in.zarr", RAW[:, :18, :18], scale(40, 6, 4))
    centre = translation(0, 3 * (factor - 1), 2 * (factor - 1))
    write_ngff(tmp_path / "labels.zarr", coarse, scale(40, 6 * factor, 4 * factor), centre)
    status, said = step({"path": "in.zarr", "labels_path": "labels.zarr"})
    assert status == 0, said
    run, box = run_of(tmp_path), Box.of_shape((SHAPE[0], 18, 18))
    assert np.array_equal(run.open_labels("s").read(box), coarse.repeat(factor, axis=1).repeat(factor, axis=2))


IGNORED = {"i8": -1, "u8": 2**64 - 1, "i4": -7, "u4": 2**32 - 1}


@pytest.mark.parametrize("kind", IGNORED)
@pytest.mark.parametrize("container", ["hdf5", "zarr"])
def test_an_ignore_label_of_any_size_is_not_annotated(tmp_path: Path, step: Step, kind: str, container: str) -> None:
    labels = LABELS.astype(kind)
    labels[:, :5] = IGNORED[kind]
    if container == "zarr":
        write_zarr(tmp_path / "in" / "raw", RAW, NM)
        write_zarr(tmp_path / "in" / "labels", labels)
    else:
        with h5py.File(tmp_path / "in", "w") as file:
            file.create_dataset("raw", data=RAW).attrs.update(NM)
            file["labels"] = labels
    status, said = step({"path": "in"}, "--set", f"targets.unlabelled_id={IGNORED[kind]}")
    assert status == 0, said
    run = Run(
        load_config(
            tmp_path / "config.json",
            {"run_directory": str(tmp_path / "run"), "targets": {"unlabelled_id": IGNORED[kind]}},
        )
    )
    (region,) = training_regions(run)
    read = region.read_labels(Box.of_shape(SHAPE), ChunkCache())
    assert np.array_equal(read[:, 5:], LABELS[:, 5:]) and not read[:, :5].any()
    known = region.read_annotated(Box.of_shape(SHAPE), ChunkCache())
    assert known[:, 5:].all() and not known[:, :5].any()


def test_a_negative_label_that_nobody_names_is_refused(tmp_path: Path, step: Step) -> None:
    labels = LABELS.astype("i8")
    labels[2, 3, 4] = -1
    write_zarr(tmp_path / "in" / "raw", RAW, NM)
    write_zarr(tmp_path / "in" / "labels", labels)
    assert step({"path": "in"})[0] == 0, "nobody has read that voxel yet"
    (region,) = training_regions(run_of(tmp_path))
    with pytest.raises(UserError, match=r"negative label -1; .* targets\.unlabelled_id"):
        region.read_labels(Box.of_shape(SHAPE), ChunkCache())
