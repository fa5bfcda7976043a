"""Batches: reproducible, whoever makes them, and labels that stay with their raw."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable

import gunpowder as gp
import numpy as np
import pytest
from funlib.geometry import Coordinate, Roi
from run_files import shards_of

from pipeline.config import ElasticConfig
from pipeline.errors import UserError
from pipeline.run import Run
from pipeline.training.sampling import deform, nodes, samples
from pipeline.training.sampling.light_requests import Request, Spec
from pipeline.training.sampling.loader import BatchLoader
from pipeline.training.sampling.samples import Arrays, SampleMaker, Sampling
from pipeline.training.steps.training_setup import Training
from pipeline.volumes import Box, open_volume

MakeRun = Callable[..., Run]
EVERYTHING = {
    "elastic": {"probability": 0.7, "control_point_spacing": [4, 16, 16], "jitter": [0.0, 2.0, 2.0]},
    "intensity_per_section": True,
    "noise": 0.05,
    "blur": 1.0,
    "blur_probability": 0.5,
    "missing_sections": 0.2,
    "low_contrast_sections": 0.2,
    "shift_sections": 0.3,
    "shift_voxels": 4,
}
GEOMETRY_ONLY = {
    "noise": 0.0,
    "intensity_scale": [1.0, 1.0],
    "intensity_shift": [0.0, 0.0],
}


def sampling_of(run: Run) -> Sampling:
    training = Training(run, "teacher")
    return training.sampling(training.build_network())


def batches(run: Run, count: int, start: int = 0) -> list[Arrays]:
    with BatchLoader(sampling_of(run), start) as loader:
        return [loader.next() for _ in range(count)]


def assert_same(one: Arrays, other: Arrays) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.dtype == other[name].dtype
        np.testing.assert_array_equal(array, other[name], err_msg=name)


def test_worker_processes_change_no_bit_of_any_batch(make_run: MakeRun) -> None:
    augment = f"augment={json.dumps(EVERYTHING)}"
    alone = batches(make_run(augment), 5)
    two = batches(make_run(augment, "teacher.training.loader_workers=2", "teacher.training.loader_cache=2"), 5)
    for one, other in zip(alone, two, strict=True):
        assert_same(one, other)
    assert not np.array_equal(alone[0]["raw"], alone[1]["raw"])


def test_requests_that_are_cheap_to_copy_draw_the_same_batches_as_those_of_gunpowder(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(f"augment={json.dumps(EVERYTHING)}", "augment.transpose_yx=true")
    ours = batches(run, 6)
    for module in (deform, nodes, samples):
        monkeypatch.setattr(module, "Request", gp.BatchRequest)
    for module in (nodes, samples):
        monkeypatch.setattr(module, "Spec", gp.ArraySpec)
    for one, other in zip(ours, batches(run, 6), strict=True):
        assert_same(one, other)


def test_instances_are_numbered_in_the_order_of_their_ids() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(np.array([0, 3, 7, 2**40, 2**63 + 1], dtype=np.uint64), size=(3, 5, 6))
    np.testing.assert_array_equal(nodes._instance_numbers(labels), np.unique(labels, return_inverse=True)[1])
    without_background = nodes._instance_numbers(labels[labels > 0][None, None])
    np.testing.assert_array_equal(
        without_background, np.unique(labels[labels > 0], return_inverse=True)[1][None, None] + 1
    )


def test_a_batch_depends_on_its_iteration_only_not_on_those_before(make_run: MakeRun) -> None:
    run = make_run(f"augment={json.dumps(EVERYTHING)}")
    random.seed(1)
    first = batches(run, 4)[3]
    np.random.seed(5)  # noqa: NPY002
    random.seed(2)
    assert_same(first, batches(run, 1, start=3)[0])


def test_samples_of_a_batch_differ_and_so_do_seeds(make_run: MakeRun) -> None:
    raw = batches(make_run(), 1)[0]["raw"]
    assert not np.array_equal(raw[0], raw[1])
    assert not np.array_equal(raw, batches(make_run("seed=1"), 1)[0]["raw"])


def test_making_samples_leaves_the_global_generators_alone(make_run: MakeRun) -> None:
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    expected = random.random(), np.random.rand()  # noqa: NPY002
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    batches(make_run(), 2)
    assert (random.random(), np.random.rand()) == expected  # noqa: NPY002


@pytest.mark.parametrize(
    "augment",
    [
        GEOMETRY_ONLY,
        {**GEOMETRY_ONLY, "elastic": {"probability": 1.0, "control_point_spacing": [4, 16, 16]}},
        {**GEOMETRY_ONLY, "elastic": None, "shift_sections": 0.5, "shift_voxels": 5},
    ],
    ids=["mirror and transpose", "elastic and rotation", "shifted sections"],
)
def test_labels_move_with_the_raw(make_run: MakeRun, augment: dict[str, object]) -> None:
    """Raw that shows its labels must still show them after every geometric augmentation."""
    run = make_run(
        f"augment={json.dumps({'elastic': None, **augment})}",
        "targets.erosion=0",
        "teacher.training.minimum_labelled=0.05",
    )
    labels = run.open_labels("p")
    neurite = labels.read(labels.box) > 0
    open_volume(run.volume, "raw", "r+").write(labels.box, np.where(neurite, 200, 50))
    sampling = sampling_of(run)
    with SampleMaker(sampling) as maker:
        batch = maker.batch(0)
    shown = batch["raw"][:, 0][(slice(None), *sampling.output.slices)]
    annotated = batch["mask"].any(axis=1)
    agree = ((shown > 0) == (batch["labels"] > 0))[annotated]
    assert agree.mean() > 0.97


def test_few_deformed_samples_are_turned_by_any_angle() -> None:
    """Which samples are deformed tells nothing about how far they turn."""
    config = ElasticConfig(probability=0.2, jitter=(0.0, 0.0, 0.0))
    node, angles = deform.Deform(config), []
    for seed in range(400):
        request = Request(random_seed=seed)
        request[nodes.RAW] = Spec(Roi((0, 0, 0), (1, 5, 5)))
        if not node.skip_node(request):
            node.prepare(request)
            along_x = node.sources[1:, 0, 2, 3] - node.sources[1:, 0, 2, 2]
            angles.append(math.atan2(-along_x[0], along_x[1]) % (2 * math.pi))
    assert 40 < len(angles) < 120
    assert (np.histogram(angles, 4, (0, 2 * math.pi))[0] > len(angles) / 8).all()


def test_targets_fit_the_labels_of_their_batch(make_run: MakeRun) -> None:
    batch = batches(make_run(), 1)[0]
    labels, affinities = batch["labels"], batch["affinities"]
    same = (labels[:, :, :, 1:] == labels[:, :, :, :-1]) & (labels[:, :, :, 1:] > 0)
    np.testing.assert_array_equal(affinities[:, 2, :, :, 1:] == 1, same & (batch["mask"][:, 2, :, :, 1:] == 1))
    assert labels.max() < 1000


def test_training_sees_no_voxel_of_the_held_out_region(make_run: MakeRun) -> None:
    run = make_run("augment.noise=0.0", "augment.intensity_scale=[1.0,1.0]", "augment.intensity_shift=[0.0,0.0]")
    raw = open_volume(run.volume, "raw", "r+")
    values = np.full(raw.shape, 100, np.uint8)
    values[14:] = 255  # z_share 0.6 of 24 sections is 14
    raw.write(raw.box, values)
    for batch in batches(run, 5):
        assert batch["raw"].max() < 0


def test_a_region_as_small_as_the_prediction_can_be_drawn_with_mirrored_context(make_run: MakeRun) -> None:
    run = make_run(
        'volumes.train=[{"source": "p", "begin": [0, 0, 0], "end": [3, 48, 48]}]',
        f"augment={json.dumps({'elastic': {'probability': 1.0}})}",
        "teacher.training.minimum_labelled=0.01",
    )
    batch = batches(run, 1)[0]
    assert batch["raw"].shape == (2, 1, 5, 48, 48) and batch["labels"].shape == (2, 3, 48, 48)


def without_labels(run: Run) -> Run:
    """All but a corner of the labels deleted."""
    labels = open_volume(run.volume, "labels", "r+")
    values = labels.read(labels.box)
    values[1:] = 0
    labels.write(labels.box, values)
    return run


def test_sparse_labels_are_refused_not_searched_for_ever(make_run: MakeRun) -> None:
    with pytest.raises(UserError, match=r"volumes.train: .*minimum_labelled"):
        batches(without_labels(make_run("teacher.training.minimum_labelled=0.9")), 1)


def test_the_first_error_of_a_worker_arrives(make_run: MakeRun) -> None:
    run = make_run("teacher.training.loader_workers=2", "teacher.training.minimum_labelled=0.9")
    with pytest.raises(UserError, match=r"volumes.train: .*minimum_labelled"):
        batches(without_labels(run), 1)


def test_a_damaged_chunk_is_named(make_run: MakeRun) -> None:
    run = make_run()
    sampling = sampling_of(run)
    for chunk in shards_of(run, "raw", 0):
        chunk.write_bytes(b"damaged")
    with SampleMaker(sampling) as maker, pytest.raises(UserError, match="raw"):
        maker.batch(0)


def test_unannotated_voxels_are_background_and_masked(make_run: MakeRun) -> None:
    run = make_run()
    ids, sizes = np.unique(
        run.open_labels("p").read(Box(Coordinate(0, 0, 0), Coordinate(14, 96, 96))), return_counts=True
    )
    largest = int(ids[ids > 0][np.argmax(sizes[ids > 0])])
    known = [batch["mask"].mean() for batch in batches(run, 4)]
    fewer = [batch["mask"].mean() for batch in batches(make_run(f"targets.unlabelled_id={largest}"), 4)]
    assert np.mean(fewer) < np.mean(known) - 0.01


def test_a_region_thinner_than_a_turned_patch_is_sampled_where_it_has_voxels(make_run: MakeRun) -> None:
    """Padded for a patch that stands on end, it has places where a lying one sees nothing of it."""
    thin = ('volumes.train=[{"source": "p", "z_share": [0.0, 0.25]}]', "teacher.training.minimum_labelled=0.0")
    flat = sampling_of(make_run(*thin))
    turned = make_run(*thin, "augment.transpose_all=true")
    with SampleMaker(Sampling(turned, flat.schedule, flat.patch, flat.output)) as maker:
        for iteration in range(12):
            assert maker.batch(iteration)["mask"].any(axis=(1, 2, 3, 4)).all()
