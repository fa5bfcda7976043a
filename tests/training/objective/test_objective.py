"""What the student copies from its teacher, when both look at images."""

from __future__ import annotations

import pytest
import torch
from funlib.geometry import Coordinate

from pipeline.config import DistillationConfig, Offset, TargetsConfig
from pipeline.distillation import EmbeddedPatch
from pipeline.networks import build_network
from pipeline.training.objective.distiller import Distiller
from pipeline.training.objective.embedding import embed_with_layers
from pipeline.training.objective.objective import Objective
from pipeline.training.objective.views import View
from pipeline.volumes import Box

IN_PLANE: tuple[Offset, ...] = ((0, -1, 0), (0, 0, -3))
SHAPE = (3, 16, 16)


def image_distiller(offsets: tuple[Offset, ...]) -> Distiller:
    """A distiller between two small networks for images, in evaluation mode."""
    torch.manual_seed(0)
    views = [
        View(build_network("residual_unet", dimensions=2, widths=(4, width)), Box.of_shape(Coordinate(SHAPE)))
        for width in (4, 8)
    ]
    config = DistillationConfig(inter_edge_weight=1, inter_affinity_weight=1, layers=("decoder_0",))
    return Distiller(config, offsets, views[0], views[1], None, seed=0)


def terms_of(distiller: Distiller, raw: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """The terms of a batch; the student's features are those of its network."""
    student = distiller._student[0].network
    embedding, layers = embed_with_layers(student, raw, None, ("decoder_0",))
    terms: dict[str, torch.Tensor] = distiller(EmbeddedPatch(embedding), layers, {"raw": raw, "labels": labels}, 0)[1]
    return terms


def test_equal_labels_in_two_images_of_a_stack_are_two_instances() -> None:
    raw = torch.randn((2, 1, *SHAPE), generator=torch.Generator().manual_seed(1))
    repeated = torch.ones((2, *SHAPE), dtype=torch.int64)
    distinct = repeated * torch.arange(1, 4)[:, None, None]
    distiller = image_distiller(IN_PLANE).eval()
    expected = terms_of(distiller, raw, distinct)
    for name, value in terms_of(distiller, raw, repeated).items():
        assert value == pytest.approx(float(expected[name])), name


def test_each_image_of_a_stack_is_remembered_by_itself() -> None:
    raw = torch.randn((2, 1, *SHAPE), generator=torch.Generator().manual_seed(1))
    distiller = image_distiller(IN_PLANE).train()
    terms_of(distiller, raw, torch.ones((2, *SHAPE), dtype=torch.int64))
    assert len(distiller.losses.memory) == 2 * SHAPE[0]


def test_sections_of_a_volume_stay_together_where_the_graph_joins_them() -> None:
    raw = torch.randn((2, 1, *SHAPE), generator=torch.Generator().manual_seed(1))
    distiller = image_distiller(((-1, 0, 0), *IN_PLANE)).train()
    terms_of(distiller, raw, torch.ones((2, *SHAPE), dtype=torch.int64))
    assert len(distiller.losses.memory) == 2


def test_one_section_networks_compare_images_one_by_one_too() -> None:
    """A section U-Net of one section sees images, though it takes volumes."""
    torch.manual_seed(0)
    part = Box.of_shape(Coordinate(SHAPE))
    student, teacher = (View(build_network("section_unet", sections=1, widths=(4, width)), part) for width in (4, 8))
    config = DistillationConfig(inter_edge_weight=1, inter_affinity_weight=1, layers=("decoder_0",))
    distiller = Distiller(config, IN_PLANE, student, teacher, None, seed=0, images=True).eval()
    raw = torch.randn((2, 1, *SHAPE), generator=torch.Generator().manual_seed(1))
    repeated = torch.ones((2, *SHAPE), dtype=torch.int64)
    expected = terms_of(distiller, raw, repeated * torch.arange(1, 4)[:, None, None])
    for name, value in terms_of(distiller, raw, repeated).items():
        assert value == pytest.approx(float(expected[name])), name


def test_labels_teach_the_student_the_chosen_offsets_only() -> None:
    targets = TargetsConfig(offsets=((-1, 0, 0), (0, -1, 0), (0, 0, -1)))
    shape = (2, 6, 6)
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn((1, 4, *shape), generator=generator)
    batch = {
        "affinities": torch.randint(2, (1, 3, *shape), generator=generator, dtype=torch.uint8),
        "mask": torch.ones((1, 3, *shape), dtype=torch.uint8),
        "labels": torch.ones((1, *shape), dtype=torch.int64),
    }
    network = build_network("section_unet", sections=1, widths=(4, 8), embedding_channels=4)
    chosen = Objective(targets, network, offsets=((0, 0, -1), (-1, 0, 0)))
    before, _ = chosen(embedding, {}, batch, 0)
    flipped = batch["affinities"].clone()
    flipped[:, 1] = 1 - flipped[:, 1]  # of the offset that is left out
    assert chosen(embedding, {}, batch | {"affinities": flipped}, 0)[0] == before
    flipped[:, 2] = 1 - flipped[:, 2]
    assert chosen(embedding, {}, batch | {"affinities": flipped}, 0)[0] != before
    swapped = batch | {"affinities": batch["affinities"].flip(1)}
    assert chosen(embedding, {}, swapped, 0)[0] != before  # each offset meets its own channel
