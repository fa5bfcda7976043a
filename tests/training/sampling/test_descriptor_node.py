"""Local shape descriptors of training samples are those of the whole volume, and only where objects are known."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from funlib.geometry import Coordinate

from pipeline.errors import UserError
from pipeline.run import Run
from pipeline.segmentation import local_shape_descriptors
from pipeline.training.sampling.loader import BatchLoader
from pipeline.training.sampling.samples import Arrays, SampleMaker, Sampling
from pipeline.training.steps.training_setup import Training
from pipeline.volumes import Box, open_volume

MakeRun = Callable[..., Run]
STILL = {
    "mirror": [False, False, False],
    "transpose_yx": False,
    "elastic": None,
    "noise": 0.0,
    "intensity_scale": [1.0, 1.0],
    "intensity_shift": [0.0, 0.0],
}
SIGMA = 40.0
ON = f'targets.descriptors={{"sigma": {SIGMA}}}'


def sampling_of(run: Run, role: str = "teacher") -> Sampling:
    training = Training(run, role)
    return training.sampling(training.build_network())


def batches(run: Run, count: int) -> list[Arrays]:
    with BatchLoader(sampling_of(run), 0) as loader:
        return [loader.next() for _ in range(count)]


def places(raw: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Where in a volume a patch without augmentation comes from; its first voxel is (z, y, x)."""
    window = np.lib.stride_tricks.sliding_window_view(raw, (1, 8, 8))[..., 0, :, :]
    return np.argwhere(np.isclose(window, shown[:1, :8, :8][0], atol=1e-4).all((-1, -2)))


def test_a_sample_has_the_descriptors_of_the_whole_region(make_run: MakeRun) -> None:
    run = make_run(f"augment={json.dumps(STILL)}", ON)
    region = Box.of_shape(Coordinate(14, 96, 96))  # z_share 0.6 of 24 sections
    labels = run.open_labels("p").read(region)
    whole = local_shape_descriptors(labels, (SIGMA / 40, SIGMA / 8, SIGMA / 8))
    raw = open_volume(run.volume, "raw").read(region).astype(np.float32) / 127.5 - 1
    sampling, compared = sampling_of(run), 0
    with SampleMaker(sampling) as maker:
        for iteration in range(4):
            batch = maker.batch(iteration)
            for sample in range(len(batch["raw"])):
                shown = batch["raw"][sample, 0][sampling.output.slices]
                found = places(raw, shown)
                assert len(found) == 1
                here = tuple(slice(b, b + extent) for b, extent in zip(found[0], shown.shape, strict=True))
                known = batch["labels"][sample] > 0
                expected = whole[(slice(None), *here)]
                assert known.any() and (labels[here][known] > 0).all()
                np.testing.assert_allclose(batch["descriptors"][sample][:, known], expected[:, known], atol=2e-6)
                compared += 1
    assert compared == 8


def test_descriptors_change_nothing_else_of_a_sample_that_lies_as_it_would(make_run: MakeRun) -> None:
    """Erosion and affinities look at the same labels, whatever is read around them."""
    run = make_run(f"augment={json.dumps(STILL)}", "teacher.training.minimum_labelled=0.0", ON)
    for batch in batches(run, 2):
        labels, affinities, mask = batch["labels"], batch["affinities"], batch["mask"]
        same = (labels[..., 1:] == labels[..., :-1]) & (labels[..., 1:] > 0)
        np.testing.assert_array_equal(affinities[:, 2, ..., 1:] == 1, same & (mask[:, 2, ..., 1:] == 1))


def test_turned_and_bent_samples_have_the_descriptors_of_their_own_labels(make_run: MakeRun) -> None:
    """In its middle, a sample whose neighbourhood is all inside it needs nothing of what is around."""
    elastic = {"probability": 1.0, "control_point_spacing": [4, 16, 16], "jitter": [0.0, 2.0, 2.0]}
    run = make_run(
        f"augment={json.dumps({'elastic': elastic, 'shift_sections': 0.2, 'shift_voxels': 2})}",
        'targets.descriptors={"sigma": 16.0}',
        "targets.erosion=0",
    )
    for batch in batches(run, 2):
        for labels, descriptors in zip(batch["labels"], batch["descriptors"], strict=True):
            own = local_shape_descriptors(labels, (0.4, 2.0, 2.0))
            middle = (slice(None), slice(1, 2), slice(6, -6), slice(6, -6))
            np.testing.assert_allclose(descriptors[middle], own[middle], atol=2e-6)


def test_worker_processes_make_the_same_descriptors(make_run: MakeRun) -> None:
    alone = batches(make_run(ON), 2)
    workers = batches(make_run(ON, "teacher.training.loader_workers=1"), 2)
    for one, other in zip(alone, workers, strict=True):
        np.testing.assert_array_equal(one["descriptors"], other["descriptors"])


def test_unlabelled_samples_have_no_object_to_describe(make_unlabelled: MakeRun) -> None:
    run = make_unlabelled(ON)
    with SampleMaker(sampling_of(run, "student")) as maker:
        batch = maker.batch(0)
    assert batch["descriptors"].shape[:2] == (2, 10)
    assert batch["descriptors"][0].any() and not batch["descriptors"][1].any() and not batch["labels"][1].any()


def test_images_have_descriptors_of_their_own(make_run: MakeRun) -> None:
    run = make_run(
        ON,
        "volumes.images=true",
        'teacher.network={"name": "residual_unet", "dimensions": 2, "widths": [4, 8]}',
        'student.network={"name": "residual_unet", "dimensions": 2, "widths": [4, 6]}',
        "targets.offsets=[[0, -1, 0], [0, 0, -1]]",
        "predict.offsets=[[0, -1, 0], [0, 0, -1]]",
        f"augment={json.dumps(STILL)}",
        "targets.erosion=0",
    )
    batch = batches(run, 1)[0]
    own = local_shape_descriptors(batch["labels"][0], (1, SIGMA / 8, SIGMA / 8), in_plane=True)
    middle = (slice(None), slice(None), slice(15, -15), slice(15, -15))
    np.testing.assert_allclose(batch["descriptors"][0][middle], own[middle], atol=2e-6)


def test_each_network_learns_them_only_if_it_is_asked_to(make_run: MakeRun) -> None:
    run = make_run('targets.descriptors={"learnt_by": "teacher"}')
    assert sampling_of(run, "teacher").described is not None
    assert sampling_of(run, "student").described is None


def test_oblong_pixels_cannot_be_exchanged(make_run: MakeRun) -> None:
    training = Training(make_run(ON), "teacher")
    with pytest.raises(UserError, match=r"^augment.transpose_yx: "):
        training._described((40, 8, 4))
