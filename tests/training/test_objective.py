"""What the student copies from its teacher, when both look at images."""

from __future__ import annotations

import pytest
import torch
from funlib.geometry import Coordinate

from pipeline.config import DistillationConfig, Offset
from pipeline.distillation import EmbeddedPatch
from pipeline.networks import build_network
from pipeline.training.embedding import embed_with_layers
from pipeline.training.objective import Distiller, View
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
    terms: dict[str, torch.Tensor] = distiller(EmbeddedPatch(embedding), layers, raw, labels, 0)[1]
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
