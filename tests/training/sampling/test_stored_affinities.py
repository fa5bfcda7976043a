"""Affinities on disk teach as the teacher itself would: in their place, with their raw, and with nothing made up."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from taught_runs import OFFSETS, STILL, batch_of, store, taught_by
from training_state import curves

from pipeline.config import Offset
from pipeline.distillation import UNKNOWN
from pipeline.errors import UserError
from pipeline.offsets import pair_slices
from pipeline.run import Run
from pipeline.stages.by_script import predict
from pipeline.stages.importing import ensure_imported
from pipeline.training import train_student, train_teacher
from pipeline.training.sampling.affinity_files import open_affinities
from pipeline.training.sampling.samples import SampleMaker
from pipeline.training.sampling.turned_offsets import needed_offsets
from pipeline.training.steps.training_setup import Training
from pipeline.volumes import create_volume, open_volume

MakeRun = Callable[..., Run]


def pair_values(raw: np.ndarray, offsets: Sequence[Offset]) -> np.ndarray:
    """A number of both voxels of each pair, the same in both directions: what an affinity is, with mirrored ends."""
    values = np.zeros((len(offsets), *raw.shape), np.uint8)
    index = np.indices(raw.shape)
    for channel, offset in enumerate(offsets):
        there = [
            np.clip(axis + step, 0, extent - 1) for axis, step, extent in zip(index, offset, raw.shape, strict=True)
        ]
        other = raw[tuple(there)].astype(int)
        values[channel] = (raw.astype(int) + other) // 2
    return values


def inner_pairs(shape: Sequence[int], offsets: Sequence[Offset]) -> np.ndarray:
    """Where the partner lies inside, (k, z, y, x) bool."""
    inside = np.zeros((len(offsets), *shape), bool)
    for channel, offset in enumerate(offsets):
        inside[channel][pair_slices(offset, shape)[0]] = True
    return inside


def all_signs_and_orders(offset: Offset) -> set[Offset]:
    return {
        tuple(sign * step for sign, step in zip(signs, order, strict=True))  # type: ignore[misc]
        for order in itertools.permutations(offset)
        for signs in itertools.product((1, -1), repeat=3)
    }


def isotropic_run(make_run: MakeRun, folder: Path, *overrides: str) -> Run:
    """A run on a small isotropic volume, which is read in place."""
    shape, source = (20, 24, 22), folder / "iso.zarr"
    if not source.exists():
        for name, dtype in (("raw", np.uint8), ("labels", np.uint64)):
            volume = create_volume(source, name, shape, dtype, voxel_size=(8, 8, 8), chunks=(8, 16, 16))
            places = np.arange(volume.box.size, dtype=np.int64).reshape(shape)
            volume.write(volume.box, (places * 7 % 251 if name == "raw" else places * 0 + 1).astype(dtype))
    run = make_run(
        STILL,
        "volumes.sources.q=" + json.dumps({"kind": "file", "path": str(source)}),
        'volumes.train=[{"source": "q"}]',
        "volumes.validate=null",
        "student.training.patch_shape=[5,8,12]",
        "student.training.batch_size=8",
        *overrides,
        name="isotropic",
    )
    ensure_imported(run, ["q"])
    return run


@pytest.mark.parametrize("positive", [False, True], ids=["stored before", "stored behind"])
@pytest.mark.parametrize("turn", ["augment.transpose_yx=true", "augment.transpose_all=true"])
def test_augmented_affinities_are_those_of_the_augmented_raw(
    make_run: MakeRun, tmp_path: Path, turn: str, positive: bool
) -> None:
    """Each value is computed again from the raw of its batch, pair by pair, in all mirrored and exchanged positions."""
    wanted: tuple[Offset, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, -4, 2), (1, 3, 0))
    turned = {one for offset in wanted for one in all_signs_and_orders(offset)}
    stored = sorted(one for one in turned if (one > (0, 0, 0)) == positive)
    raw = isotropic_run(make_run, tmp_path).open_raw("q")
    values = pair_values(raw.read(raw.box), stored)
    place = tmp_path / "t.zarr"
    volume = create_volume(
        place,
        "affinities",
        values.shape,
        np.uint8,
        voxel_size=(8, 8, 8),
        chunks=(8, 16, 16),
        attributes={"offsets": [list(offset) for offset in stored]},
    )
    volume.write(volume.box, values)
    targets = json.dumps([list(offset) for offset in wanted])
    run = isotropic_run(make_run, tmp_path, turn, taught_by(place, source="q"), f"targets.offsets={targets}")
    training = Training(run, "student")
    sampling = training.sampling(training.build_network())
    checked, patches = 0, set()
    with SampleMaker(sampling) as maker:
        for iteration in range(8):
            batch = maker.batch(iteration)
            shown = np.rint((batch["raw"][:, 0] + 1) * 127.5).astype(np.uint8)
            for sample, taught in zip(shown, batch["taught"], strict=True):
                again = pair_values(sample[sampling.output.slices], wanted)
                known = (taught != UNKNOWN) & inner_pairs(again.shape[1:], wanted)
                np.testing.assert_array_equal(np.rint(taught[known] * 255), again[known])
                checked += int(known.sum())
                patches.add(tuple(np.sign(np.diff(sample.astype(int), axis=axis)).sum() for axis in range(3)))
    assert checked > 20_000 and len(patches) > 10


def test_what_lies_beyond_the_region_or_was_never_stored_is_unknown(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(STILL)
    shape = run.open_raw("p").shape
    values = np.full((len(OFFSETS), *shape), 100, np.uint8)
    place = store(tmp_path / "t.zarr", values, offsets=[list(offset) for offset in OFFSETS])
    lost = place / "affinities" / "s0" / "c" / "0" / "0" / "0" / "0"
    assert lost.is_file()
    lost.unlink()
    run = make_run(STILL, taught_by(place), "student.training.minimum_labelled=0.0")
    known = np.concatenate([batch_of(run, iteration)["taught"] for iteration in range(3)])
    assert set(np.unique(known).tolist()) == {np.float32(UNKNOWN), np.float32(100 / 255)}


def test_missing_files_are_told_and_none_at_all_is_an_error(
    make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(STILL)
    values = np.zeros((len(OFFSETS), *run.open_raw("p").shape), np.uint8)
    place = store(tmp_path / "t.zarr", values, offsets=[list(offset) for offset in OFFSETS])
    run = make_run(STILL, taught_by(place))
    files = sorted(path for path in place.rglob("c/*/*/*/*") if path.is_file())
    files[0].unlink()
    batch_of(run)
    assert "1 of 18 files are not there, and teach nothing" in caplog.text
    for file in files[1:]:
        file.unlink()
    with pytest.raises(UserError, match=r"^teacher.affinities.p: .* holds nothing of this region"):
        batch_of(run)


def test_several_teachers_are_averaged_where_all_of_them_say_something(make_run: MakeRun, tmp_path: Path) -> None:
    shape = (len(OFFSETS), *make_run(STILL).open_raw("p").shape)
    told = [list(offset) for offset in OFFSETS]
    places = [store(tmp_path / f"{value}.zarr", np.full(shape, value, np.uint8), offsets=told) for value in (51, 153)]
    taught = batch_of(make_run(STILL, taught_by(*places)))["taught"]
    np.testing.assert_allclose(taught[taught != UNKNOWN], 0.4, atol=1e-6)


def test_arrays_of_other_programs_are_read_as_the_config_says(make_run: MakeRun, tmp_path: Path) -> None:
    """Channels in another order, boundaries instead of affinities, and fractions, at a place of their own."""
    run = make_run(STILL)
    shape = run.open_raw("p").shape
    values = np.zeros((6, 10, shape[1], shape[2]), np.float32)
    for channel in range(6):
        values[channel] = channel / 10
    folder = tmp_path / "t.zarr"
    volume = create_volume(
        folder, "theirs", values.shape, np.float32, voxel_size=(40, 8, 8), offset=(80, 0, 0), chunks=(8, 32, 32)
    )
    volume.write(volume.box, values)
    entry: dict[str, Any] = {
        "dataset": "theirs",
        "offsets": [list(offset) for offset in reversed(OFFSETS)],
        "channels": [5, 4, 3, 2, 1],
        "range": [1.0, 0.0],
    }
    taught = batch_of(make_run(STILL, taught_by(folder, **entry), "augment.mirror=[false,false,false]",
                               "augment.transpose_yx=false"))["taught"]  # fmt: skip
    for channel in range(5):
        known = taught[:, channel][taught[:, channel] != UNKNOWN]
        np.testing.assert_allclose(known, 1 - (channel + 1) / 10, atol=1e-6)


def test_an_array_that_says_nothing_of_its_place_lies_where_the_config_says(make_run: MakeRun, tmp_path: Path) -> None:
    """Ten sections of raw from the third, in a file that says neither axes nor place."""
    shape = make_run(STILL).open_raw("p").shape
    values = np.zeros((len(OFFSETS), 10, *shape[1:]), np.float32)
    np.save(tmp_path / "a.npy", values)
    told = [list(offset) for offset in OFFSETS]
    place: dict[str, Any] = {"offsets": told, "voxel_size": [40, 8, 8], "offset": [80, 0, 0]}
    arrays = open_affinities(make_run(STILL, taught_by(tmp_path / "a.npy", **place)), "p").arrays
    assert [tuple(array.begin) for array in arrays] == [(2, 0, 0)]
    for mistake, key in (({"offset": [90, 0, 0]}, "offset"), ({"voxel_size": [40, 8, 9]}, "voxel_size")):
        run = make_run(STILL, taught_by(tmp_path / "a.npy", **{**place, **mistake}))
        with pytest.raises(UserError, match=rf"^teacher.affinities.p.{key}: "):
            open_affinities(run, "p")


def test_of_two_opposite_offsets_one_is_read(make_run: MakeRun) -> None:
    augment = make_run("augment.transpose_all=true").config.augment
    needed = needed_offsets(((0, 0, -1), (0, 0, 1), (0, -1, 0)), augment)
    assert sorted(tuple(map(abs, offset)) for offset in needed) == [(0, 0, 1), (0, 1, 0), (1, 0, 0)]


def test_a_student_of_stored_affinities_learns_as_one_whose_steps_run_the_teacher(
    make_run: MakeRun, tmp_path: Path
) -> None:
    """A teacher of valid convolutions gives a voxel the same numbers in a patch as in the volume, but for rounding to
    256 levels, if nothing is augmented; and all of the volume is one region, so that both see the same raw.
    """
    network = {"name": "mala", "widths": [4, 6], "downsampling": [[1, 1, 1]]}
    schedule = {"iterations": 2, "patch_shape": [15, 48, 48], "autocast": "off", "loader_workers": 0}
    teacher = {"network": network, "training": schedule}
    common = (
        STILL,
        "augment.mirror=[false,false,false]",
        "augment.transpose_yx=false",
        'volumes.train=[{"source": "p"}]',
        "volumes.validate=null",
        'student.network={"name": "mala", "widths": [3, 4], "downsampling": [[1, 1, 1]]}',
        "student.training.patch_shape=[15, 48, 48]",
        'student.distillation.logits={"weight": 0.5}',
        'student.training.schedule="constant"',
        "student.training.learning_rate=0.001",
    )
    run = make_run(*common, f"teacher={json.dumps(teacher)}", name="teacher")
    teacher["checkpoint"] = str(train_teacher(run))
    stage = make_run(
        *common,
        f"teacher={json.dumps(teacher)}",
        f"predict.offsets={json.dumps([list(offset) for offset in OFFSETS])}",
        'predict.network="teacher"',
        f"predict.checkpoint={json.dumps(teacher['checkpoint'])}",
        'cluster.executor="serial"',
        "predict.block_size=[8,32,32]",
        "predict.skip_empty=false",
        name="teacher",
    )
    assert predict(stage)
    elsewhere = open_volume(stage.volume, "affinities")
    rolled = store(tmp_path / "rolled.zarr", np.roll(elsewhere.read(elsewhere.box), 1, axis=3), offsets=OFFSETS)
    curve = {}
    for name, taught in {
        "step": f"teacher={json.dumps(teacher)}",
        "disk": taught_by(stage.volume.file),
        "rolled": taught_by(rolled),
    }.items():
        run = make_run(*common, taught, name=name)
        train_student(run)
        curve[name] = [line for line in curves(run, "student") if "affinity" in line]
    assert len(curve["step"]) == len(curve["disk"]) == 4
    for term, tolerance in {"supervised": 1e-3, "affinity": 1e-3, "logits": 1e-3, "gradient_norm": 1e-2}.items():
        by_step, by_disk = ([line[term] for line in curve[name]] for name in ("step", "disk"))
        assert by_disk == pytest.approx(by_step, rel=tolerance), term
    assert curve["rolled"][0]["affinity"] != pytest.approx(curve["step"][0]["affinity"], rel=4e-3)


def test_other_affinities_do_not_continue_a_training_and_a_finished_one_needs_none(
    make_run: MakeRun, tmp_path: Path
) -> None:
    values = np.full((len(OFFSETS), *make_run(STILL).open_raw("p").shape), 100, np.uint8)
    told = [list(offset) for offset in OFFSETS]
    place = store(tmp_path / "t.zarr", values, offsets=told)
    run = make_run(STILL, taught_by(place))
    path = train_student(run)
    store(place, values + 1, offsets=told)
    with pytest.raises(UserError, match=r"^teacher.affinities.p.paths: is another file now"):
        train_student(make_run(STILL, taught_by(place)))
    store(place, values, offsets=told)
    with pytest.raises(UserError, match=r"^teacher.affinities.p.range: was null, is \[0.0, 200.0\]"):
        train_student(make_run(STILL, taught_by(place, range=[0.0, 200.0])))
    place.rename(tmp_path / "gone.zarr")
    assert train_student(make_run(STILL, taught_by(place))) == path


def test_unlabelled_raw_is_taught_from_the_disk_too(make_unlabelled: MakeRun, tmp_path: Path) -> None:
    run = make_unlabelled(STILL)
    entries = {}
    for source, value in (("p", 51), ("u", 204)):
        shape = (len(OFFSETS), *run.open_raw(source).shape)
        told = [list(offset) for offset in OFFSETS]
        place = store(tmp_path / f"{source}.zarr", np.full(shape, value, np.uint8), offsets=told)
        entries[source] = {"paths": [str(place)]}
    run = make_unlabelled(STILL, "teacher=" + json.dumps({"kind": "affinities", "affinities": entries}))
    taught = batch_of(run)["taught"]
    for sample, affinity in zip(taught, (0.2, 0.8), strict=True):
        np.testing.assert_allclose(sample[sample != UNKNOWN], affinity, atol=1e-6)
    assert torch.load(train_student(run), weights_only=True)["iteration"] == 4
