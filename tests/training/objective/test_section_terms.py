"""Terms between sections and between touching instances, as trainings use them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from funlib.geometry import Coordinate
from training_state import curves

from pipeline.config import DistillationConfig, SectionUnetConfig
from pipeline.distillation import CrossSectionLoss, EmbeddedPatch
from pipeline.errors import UserError
from pipeline.networks import build_network
from pipeline.run import Run
from pipeline.training import train_student
from pipeline.training.objective.distiller import Distiller
from pipeline.training.objective.embedding import embed_with_layers
from pipeline.training.objective.views import View
from pipeline.volumes import Box

MakeRun = Callable[..., Run]
PLAIN = "student.network.affinity_offsets=[[-1, 0, 0], [0, -1, 0], [0, 0, -1]]"
TOUCHING = (
    "student.distillation.node_weight=0.1",
    "student.distillation.edge_weight=0.1",
    'student.distillation.node_comparison="directions"',
    'student.distillation.edges="touching"',
    "student.distillation.least_depth=4",
    'student.distillation.layers=["decoder_0"]',
)


def test_touching_instances_teach_a_student(make_run: MakeRun) -> None:
    run = make_run(*TOUCHING)
    train_student(run)
    first = next(line for line in curves(run, "student") if "loss" in line)
    published = make_run(*TOUCHING[:2], TOUCHING[-1], name="published")
    train_student(published)
    other = next(line for line in curves(published, "student") if "loss" in line)
    assert first["edge"] > 0 and first["edge"] != other["edge"]
    assert 0 < first["node"] <= 4 and first["node"] != other["node"]


@pytest.mark.parametrize("target", ["labels", "teacher"])
def test_sections_are_compared_with_the_teachers_of_the_same_voxels(target: str) -> None:
    """The student sees one section and embeds more of the patch than the teacher: only what both embed is compared."""
    torch.manual_seed(0)
    student, teacher = (
        View(build_network(SectionUnetConfig(sections=count, widths=(4, 6))), Box(Coordinate(low), Coordinate(high)))
        for count, low, high in ((1, (0, 0, 0), (5, 16, 16)), (3, (1, 0, 0), (4, 16, 16)))
    )
    config = DistillationConfig(affinity_weight=0, cross_section_weight=3, cross_section_target=target, warm_up=1)  # type: ignore[arg-type]
    distiller = Distiller(config, ((-1, 0, 0),), student, teacher, None, seed=0, before=1)
    raw = torch.randn(2, 1, 5, 16, 16)
    of_labels = torch.randint(2, (2, 2, 3, 5, 16, 16), dtype=torch.uint8)  # affinities and mask of three offsets
    together, known = of_labels[:, :, 1]
    with torch.no_grad():
        learnt, _ = embed_with_layers(student.network, raw, None, ())
        taught, _ = embed_with_layers(teacher.network, raw, None, ())
        labels = (together[:, 1:4], known[:, 1:4]) if target == "labels" else None
        expected = CrossSectionLoss((16, 16))(EmbeddedPatch(learnt[:, :, 1:4]), EmbeddedPatch(taught), labels)
    batch = {"raw": raw, "labels": torch.zeros(2, 5, 16, 16, dtype=torch.int64)}
    batch |= {"affinities": of_labels[0], "mask": of_labels[1]}
    total, terms = distiller(EmbeddedPatch(learnt), {}, batch, 0)
    assert terms["cross_section"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert total.item() == pytest.approx(1.5 * expected.item(), rel=1e-5)  # half of the weight in the first iteration
    assert distiller.weights(0)["cross_section"] == 1.5


def test_a_training_has_the_term_and_a_map_where_the_widths_differ(make_run: MakeRun) -> None:
    run = make_run("student.distillation.cross_section_weight=0.5", "student.network.embedding_channels=6")
    path = train_student(run)
    assert all(line["cross_section"] > 0 for line in curves(run, "student") if "loss" in line)
    objective = torch.load(path, weights_only=True)["training"]["objective"]
    assert objective["distiller.cross_section.projection.weight"].shape[:2] == (16, 6)


def test_a_patch_of_one_section_has_nothing_to_compare(make_run: MakeRun) -> None:
    run = make_run("student.distillation.cross_section_weight=0.5", "student.training.patch_shape=[3, 48, 48]")
    with pytest.raises(UserError, match=r"^student.training.patch_shape: .*one common section"):
        train_student(run)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("targets.offsets=[[0, -1, 0], [0, 0, -1]]",), r"needs the offset \[-1, 0, 0\] in targets.offsets"),
        (("student.network.embedding_channels=0", PLAIN), "cross-section terms compare embeddings"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_config(
    make_run: MakeRun, changes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make_run("student.distillation.cross_section_weight=0.5", *changes)
