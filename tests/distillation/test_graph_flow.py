"""Graph flow: vertices and edges by hand, and gradients that reach the student only."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pipeline.distillation import GraphFlowLoss
from pipeline.distillation.graph_flow import LayerPair, channel_vertices

SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "2D": ((2, 3, 6, 5), (2, 3, 3, 4)),
    "3D": ((2, 3, 3, 6, 5), (2, 3, 2, 3, 4)),
    "sections": ((2, 3, 1, 6, 5), (2, 3, 1, 3, 4)),
}
each_shape = pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)


def pair(shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype = torch.float64) -> LayerPair:
    """Two layers of distinct values: one maximum per channel, well apart from the next largest value."""
    layers = [torch.randperm(torch.Size(shape).numel()).to(dtype).div(10).view(shape) for shape in shapes]
    return layers[0], layers[1]


def naive_flow(student: LayerPair, teacher: LayerPair, reach: int) -> tuple[float, float]:
    """The two terms in plain loops over images and channels, padded with torch's own mirroring."""

    def graphs(layer: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        axes = layer.dim() - 2
        padded = torch.nn.functional.pad(layer, (reach, reach) * axes, mode="reflect")
        vertices = []
        for image, mirrored in zip(layer, padded, strict=True):
            for channel, around in zip(image, mirrored, strict=True):
                place = (channel == channel.max()).nonzero()[0].tolist()
                window = around[tuple(slice(at, at + 2 * reach + 1) for at in place)].flatten()
                vertices.append(window / window.norm())
        found = torch.stack(vertices).view(*layer.shape[:2], -1)
        return found, found @ found.transpose(1, 2)

    (v1, e1), (v2, e2), (w1, f1), (w2, f2) = (graphs(layer) for layer in (*student, *teacher))
    vertex = ((w2 - w1) - (v2 - v1)).pow(2).sum(2).mean()
    return float(vertex), float(((f2 - f1) - (e2 - e1)).pow(2).mean())


@pytest.mark.parametrize("shapes", [SHAPES["2D"], ((2, 3, 4, 6, 5), (2, 3, 2, 3, 4))], ids=["2D", "3D"])
@pytest.mark.parametrize("variation", ["difference", "product"])
def test_terms_equal_loops_over_channels(shapes: tuple[tuple[int, ...], ...], variation: str) -> None:
    student, teacher = pair(shapes), pair(shapes)
    found = GraphFlowLoss(variation=variation).terms(student, teacher)
    expected = naive_flow(student, teacher, 1)
    equal = [float(found[name]) == pytest.approx(value) for name, value in zip(found, expected, strict=True)]
    assert equal == [variation == "difference"] * 2
    total = GraphFlowLoss(3, 2.0, 5.0)(student, teacher)
    assert float(total) == pytest.approx(2 * expected[0] + 5 * expected[1])


@each_shape
def test_a_student_like_its_teacher_has_no_flow_to_learn(shapes: tuple[tuple[int, ...], ...]) -> None:
    student = pair(shapes)
    assert GraphFlowLoss()(student, student) == 0
    assert GraphFlowLoss(5)(student, student) == 0
    assert GraphFlowLoss()(student, pair(shapes)) > 0


def test_flow_of_a_graph_by_hand() -> None:
    """One image, two channels of one row: patches of three, of which the rows above and below mirror the same row."""
    row = torch.tensor([[[[0.0, 3.0, 4.0]], [[5.0, 0.0, 0.0]]]])
    flat = torch.tensor([[[[1.0, 0.0, 0.0]], [[1.0, 0.0, 0.0]]]])
    vertices = channel_vertices(row, 3)
    window = torch.tensor([3.0, 4.0, 3.0])  # around the 4 at the end: 3, 4, and the mirrored 3
    assert torch.allclose(vertices[0, 0], (window / (window.norm() * 3**0.5)).repeat(3))
    assert torch.allclose(vertices[0, 1], torch.tensor([0.0, 1.0, 0.0]).repeat(3) / 3**0.5)
    cosine = 4 / 34**0.5
    terms = GraphFlowLoss().terms((flat, row), (flat, flat))
    # the vertex of channel 0 moves by 2 - 2 cosine, that of channel 1 not at all; edges of flat are all 1
    assert float(terms["flow_vertex"]) == pytest.approx((2 - 2 * cosine) / 2)
    assert float(terms["flow_edge"]) == pytest.approx(2 * (1 - cosine) ** 2 / 4)


def test_the_first_of_equal_maxima_counts_in_any_memory_layout() -> None:
    features = torch.zeros(1, 2, 4, 4)
    features[0, :, 1, 3] = features[0, :, 2, 0] = 1  # row 1 comes first
    features[0, :, 1, 2] = 0.5
    expected = channel_vertices(features, 3)
    assert expected[0, 0, 3] > 0  # the 0.5 beside the maximum of row 1
    assert torch.equal(channel_vertices(features.to(memory_format=torch.channels_last), 3), expected)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 1, 2)])
def test_a_layer_smaller_than_the_patch_is_mirrored_again_and_again(size: tuple[int, ...]) -> None:
    layer = torch.rand(1, 2, *size)
    vertices = channel_vertices(layer, 7)
    assert vertices.shape == (1, 2, 7 ** len(size))
    values = vertices[0, 0].unique()
    assert len(values) <= layer[0, 0].numel() and (values > 0).all()


@pytest.mark.parametrize("value", [0.0, 2.0, -2.0])
def test_a_constant_channel_gives_no_nan(value: float) -> None:
    student = tuple(torch.full((1, 2, 4, 4), value, requires_grad=True) for _ in range(2))
    loss = GraphFlowLoss()((student[0], student[1]), pair(((1, 2, 4, 4),) * 2, torch.float32))
    loss.backward()
    assert torch.isfinite(loss)
    for layer in student:
        assert layer.grad is not None and torch.isfinite(layer.grad).all()
        assert layer.grad.abs().max() < 10  # a channel that says nothing must not drown all others


@each_shape
def test_gradients_equal_finite_differences_and_spare_the_teacher(shapes: tuple[tuple[int, ...], ...]) -> None:
    student, teacher = ([layer.requires_grad_() for layer in pair(shapes)] for _ in range(2))
    loss = GraphFlowLoss(3, 0.7, 2.0)
    torch.autograd.gradcheck(lambda a, b: loss((a, b), (teacher[0], teacher[1])), tuple(student))
    loss((student[0], student[1]), (teacher[0], teacher[1])).backward()
    assert all(layer.grad is not None and layer.grad.abs().sum() > 0 for layer in student)
    assert all(layer.grad is None for layer in teacher)


def test_cosines_stay_float32_under_autocast() -> None:
    layers = pair(SHAPES["2D"], torch.float32), pair(SHAPES["2D"], torch.float32)
    expected = GraphFlowLoss()(*layers)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(GraphFlowLoss()(*layers), expected)
        half = [(first.bfloat16(), second.bfloat16()) for first, second in layers]
        assert GraphFlowLoss()(*half).dtype == torch.float32


def test_a_term_of_weight_zero_is_left_out_and_no_term_is_a_zero_with_a_graph() -> None:
    student, teacher = (pair(SHAPES["2D"]) for _ in range(2))
    assert set(GraphFlowLoss(edge_weight=0).terms(student, teacher)) == {"flow_vertex"}
    student[0].requires_grad_()
    nothing = GraphFlowLoss(3, 0, 0)(student, teacher)
    assert nothing == 0 and nothing.requires_grad


def unlike_channels() -> None:
    GraphFlowLoss()(pair(((1, 2, 4, 4),) * 2), pair(((1, 3, 4, 4),) * 2))


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (unlike_channels, "paraphraser"),
        (lambda: GraphFlowLoss(patch=2), "odd"),
        (lambda: GraphFlowLoss(variation="ratio"), "difference, product"),
        (lambda: GraphFlowLoss()((torch.ones(1, 2, 0),) * 2, (torch.ones(1, 2, 0),) * 2), "maximum"),
    ],
)
def test_mistakes_are_refused(mistake: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mistake()
