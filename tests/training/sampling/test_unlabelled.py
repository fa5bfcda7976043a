"""Unlabelled raw in the batches of a student: what it reaches, and that nobody learns from held-out voxels."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from funlib.geometry import Coordinate
from training_state import assert_same_state, curves

from pipeline.checkpoints import latest_checkpoint
from pipeline.config import Config, DistillationConfig, TargetsConfig, UnlabelledConfig, parse_config
from pipeline.errors import UserError
from pipeline.networks import build_network
from pipeline.run import Run
from pipeline.training import train_student, train_teacher
from pipeline.training.objective.distiller import Distiller
from pipeline.training.objective.objective import Objective
from pipeline.training.objective.teacher_instances import TeacherInstances
from pipeline.training.objective.views import View
from pipeline.training.sampling.loader import BatchLoader
from pipeline.training.sampling.regions import validation_region
from pipeline.training.sampling.samples import Arrays
from pipeline.training.steps.training_setup import Training
from pipeline.volumes import Box, open_volume

MakeRun = Callable[..., Run]


def batches(run: Run, count: int, start: int = 0) -> list[Arrays]:
    training = Training(run, "student")
    with BatchLoader(training.sampling(training.build_network()), start) as loader:
        return [loader.next() for _ in range(count)]


@pytest.mark.parametrize(("size", "share", "expected"), [(2, 0.5, 1), (4, 0.5, 2), (4, 0.3, 1), (4, 0.8, 3)])
def test_the_share_of_a_batch_is_raw_from_the_unlabelled_regions(
    make_unlabelled: MakeRun, size: int, share: float, expected: int
) -> None:
    run = make_unlabelled(
        f"student.training.batch_size={size}",
        f"student.distillation.unlabelled.share={share}",
        'augment={"elastic": null, "noise": 0.0, "intensity_scale": [1.0, 1.0], "intensity_shift": [0.0, 0.0]}',
    )
    raw = open_volume(run.container("u"), "raw", "r+")
    raw.write(raw.box, np.full(raw.box.shape, 200, raw.array.dtype))
    (batch,) = batches(run, 1)
    recognised = np.ptp(batch["raw"], axis=(1, 2, 3, 4)) == 0
    assert recognised.tolist() == [index >= size - expected for index in range(size)]
    for name in ("labels", "affinities", "mask"):
        assert [bool(sample.any()) for sample in batch[name]] == (~recognised).tolist(), name


def test_batches_depend_on_seed_and_iteration_only(make_unlabelled: MakeRun) -> None:
    alone = batches(make_unlabelled(), 4)
    prepared = batches(make_unlabelled("student.training.loader_workers=2", "student.training.loader_cache=2"), 4)
    later = batches(make_unlabelled(), 1, start=3)[0]
    for one, other in zip([*alone, alone[3]], [*prepared, later], strict=True):
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name], err_msg=name)
    assert not np.array_equal(alone[0]["raw"][1], alone[1]["raw"][1])


def test_unlabelled_regions_leave_the_labelled_samples_and_the_teacher_as_they_were(make_unlabelled: MakeRun) -> None:
    run = make_unlabelled()
    (mixed,), (labelled,) = batches(run, 1), batches(Run(without_unlabelled(run)), 1)
    for name, array in mixed.items():
        np.testing.assert_array_equal(array[:1], labelled[name][:1], err_msg=name)
    teacher = train_teacher(Run(without_unlabelled(run)))
    assert train_teacher(run) == teacher  # finished already, and not refused for another config


def without_unlabelled(run: Run) -> Config:
    volumes = run.config.volumes.model_copy(update={"unlabelled": ()})
    return run.config.model_copy(update={"volumes": volumes})


def test_a_source_without_labels_teaches_and_resumes_to_the_last_bit(make_unlabelled: MakeRun) -> None:
    teacher = train_teacher(make_unlabelled(name="teacher"))
    common = (
        "student.distillation.edge_weight=0.1",
        "student.distillation.inter_affinity_weight=1.0",
        'student.distillation.unlabelled.instances="watershed"',
        "student.distillation.graph_flow.paraphraser.iterations=2",
        "student.distillation.logits={}",
        'student.training.schedule="constant"',
        "student.training.validate_every=2",
        f"teacher.checkpoint={json.dumps(str(teacher))}",
    )
    whole = make_unlabelled(*common, "student.training.iterations=4", name="whole")
    train_student(whole)
    train_student(make_unlabelled(*common, "student.training.iterations=2", name="parts"))
    resumed = make_unlabelled(*common, "student.training.iterations=4", name="parts")
    train_student(resumed)
    assert_same_state(*(latest_checkpoint(run.network_directory("student")) for run in (whole, resumed)))
    assert curves(whole, "student") == curves(resumed, "student")


def test_unlabelled_raw_reaches_the_distillation_terms_only() -> None:
    """The gradient of the supervised loss is exactly zero there, and that of a term of distillation is not."""
    shape, targets = (3, 16, 16), TargetsConfig(offsets=((-1, 0, 0), (0, -1, 0), (0, 0, -1)))
    torch.manual_seed(0)
    student, teacher = (
        View(build_network("section_unet", sections=1, widths=(4, 8)), Box.of_shape(Coordinate(shape)))
        for _ in range(2)
    )
    batch = {
        "raw": torch.rand(2, 1, *shape),
        "labels": torch.randint(0, 3, (2, *shape)),
        "affinities": torch.randint(0, 2, (2, 3, *shape), dtype=torch.uint8),
        "mask": torch.ones(2, 3, *shape, dtype=torch.uint8),
    }
    for name in ("labels", "affinities", "mask"):
        batch[name][1] = 0
    for background in (None, 1.0):
        named = targets.model_copy(update={"background_weight": background})
        for config, reached in ((None, False), (DistillationConfig(node_weight=0.1), True)):
            distiller = None if config is None else Distiller(config, targets.offsets, student, teacher, None, seed=0)
            embedding = torch.randn(2, 16, *shape, requires_grad=True)
            total, terms = Objective(named, 0.0, distiller)(embedding, {}, batch, 0)
            total.backward()
            assert embedding.grad is not None and embedding.grad[0].any()
            assert bool(embedding.grad[1].any()) == reached
            one = {name: array[:1] for name, array in batch.items()}
            alone = Objective(named, 0.0)(embedding[:1], {}, one, 0)[1]["supervised"]
            assert float(terms["supervised"]) == pytest.approx(float(alone))
            if config is not None:
                nodes = Distiller(config, targets.offsets, student, teacher, None, seed=0)
                expected = Objective(named, 0.0, nodes)(embedding[:1], {}, one, 0)[1]["node"]
                assert float(terms["node"]) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("instances", ["watershed", "components"])
def test_the_teacher_tells_instances_where_nobody_labelled_any(make_run: MakeRun, instances: str) -> None:
    """An embedding of two blocks and a thin rest: two instances in the unlabelled sample, no change in the other."""
    run = make_run(
        "student.distillation.edge_weight=0.1",
        f"student.distillation.unlabelled.instances={instances}",
        "fragments.in_plane=true",
    )
    embedding = torch.zeros(2, 2, 3, 24, 24)
    embedding[:, 0, :, :, :12] = 1
    embedding[:, 1, :, :, 13:] = 1  # column 12 has an affinity to nothing
    labels = torch.full((2, 3, 24, 24), 7)
    labels[1] = 0
    found = TeacherInstances(run.config, 1, 0.0, (40, 8, 8))(embedding, labels)
    assert found.dtype == torch.int64 and (found[0] == 7).all()
    left, right = found[1, :, :, 1:11], found[1, :, :, 14:]
    assert (left == left[:, :1, :1]).all() and (right == right[:, :1, :1]).all()
    assert (left > 0).all() and (right > 0).all() and left[0, 0, 0] != right[0, 0, 0]
    assert int(found[1].max()) <= 6


def test_the_teachers_instances_reach_the_node_term(make_unlabelled: MakeRun) -> None:
    common = ("student.distillation.edge_weight=1.0", "seed=3")
    shown = {}
    for instances in ("off", "components"):
        run = make_unlabelled(*common, f"student.distillation.unlabelled.instances={instances}", name=instances)
        train_student(run)
        shown[instances] = curves(run, "student")[0]
    assert shown["off"]["edge"] != shown["components"]["edge"]
    assert shown["off"]["affinity"] == shown["components"]["affinity"]


def document(**volumes: object) -> dict[str, object]:
    network = {"name": "section_unet"}
    known = {"sources": {name: {"kind": "phantom"} for name in "ab"}, "segment": {"source": "a"}}
    return {
        "run_directory": "x",
        "volumes": {**known, **volumes},
        "teacher": {"network": network},
        "student": {"network": network},
    }


@pytest.mark.parametrize("name", ["train", "unlabelled"])
@pytest.mark.parametrize(
    ("validate", "trained_on", "allowed"),
    [
        ({}, {}, False),
        ({"z_share": [0.5, 1.0]}, {}, False),
        ({"z_share": [0.5, 1.0]}, {"z_share": [0.4, 0.6]}, False),
        ({"z_share": [0.5, 1.0]}, {"z_share": [0.0, 0.5]}, True),
        ({"begin": [10, 0, 0]}, {"end": [11, 50, 50]}, False),
        ({"begin": [10, 0, 0]}, {"end": [10, 50, 50]}, True),
        ({}, {"source": "b"}, True),
    ],
)
def test_training_never_gets_held_out_voxels(
    validate: dict[str, object], trained_on: dict[str, object], allowed: bool, name: str
) -> None:
    regions = {"validate": {"source": "a", **validate}, name: [{"source": "a", **trained_on}]}
    if allowed:
        parse_config(document(**regions))
    else:
        with pytest.raises(UserError, match=f"volumes: {name} overlaps validate"):
            parse_config(document(**regions))


@pytest.mark.parametrize("name", ["train", "unlabelled"])
def test_an_overlap_that_only_the_extent_of_the_source_shows_is_refused(make_run: MakeRun, name: str) -> None:
    run = make_run(f'volumes.{name}=[{{"source": "p", "begin": [16, 0, 0]}}]')  # validate is z_share 0.6 of 24
    with pytest.raises(UserError, match=rf"volumes.{name}.0: .*\(16, 0, 0\).*volumes.validate"):
        batches(run, 1)


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ({"distillation": None}, "volumes.unlabelled needs student.distillation"),
        ({"training": {"batch_size": 1}}, r"student.distillation.unlabelled.share: 0.5 of a batch_size of 1"),
        ({"distillation": {"unlabelled": {"share": 0.05}}}, "is 0 samples"),
        ({"distillation": {"unlabelled": {"share": 1.0}}}, "student.distillation.unlabelled.share"),
        ({"distillation": {"unlabelled": {"instances": "components"}}}, "student.distillation.unlabelled.instances"),
    ],
)
def test_mistakes_are_named(student: dict[str, object], message: str) -> None:
    content = document(unlabelled=[{"source": "b"}])
    content["student"] = {"network": {"name": "section_unet"}, **student}
    with pytest.raises(UserError, match=message):
        parse_config(content)


def test_unlabelled_settings_count_only_where_there_are_such_regions(make_run: MakeRun) -> None:
    """A training that began before these keys existed continues."""
    settings = Training(make_run(), "student").settings
    assert not [path for path in settings if "unlabelled" in path and path != "targets.unlabelled_id"]
    assert DistillationConfig().unlabelled == UnlabelledConfig()


def test_a_region_too_small_for_a_patch_is_named(make_unlabelled: MakeRun) -> None:
    run = make_unlabelled('volumes.unlabelled=[{"source": "u", "end": [8, 30, 30]}]')
    with pytest.raises(UserError, match=r"volumes.unlabelled.0: .*\(8, 30, 30\)"):
        batches(run, 1)


@pytest.mark.parametrize("name", ["train", "unlabelled"])
def test_training_never_sees_the_test_region(make_run: MakeRun, name: str) -> None:
    run = make_run(
        'volumes.test={"source": "p", "z_share": [0.9, 1.0]}',  # 22 to 24, as only its extent shows
        f'volumes.{name}=[{{"source": "p", "begin": [22, 0, 0]}}]',
        'volumes.validate={"source": "p", "z_share": [0.8, 0.9]}',
        'volumes.segment={"source": "p"}',
    )
    with pytest.raises(UserError, match=rf"volumes.{name}.0: .*\(22, 0, 0\).*volumes.test, too, which training must"):
        batches(run, 1)


def test_validation_during_training_never_sees_the_test_region(make_run: MakeRun) -> None:
    run = make_run(
        'volumes.test={"source": "p", "begin": [18, 0, 0]}',
        'volumes.validate={"source": "p", "z_share": [0.7, 0.8]}',  # 17 to 19
        'volumes.train=[{"source": "p", "end": [14, 64, 64]}]',
        'volumes.segment={"source": "p"}',
    )
    with pytest.raises(
        UserError, match=r"volumes.validate: .*\(18, 0, 0\).*volumes.test, too, on which nothing may be"
    ):
        validation_region(run)
