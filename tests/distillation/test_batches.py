"""Batches as they come: empty images, single instances and voxels, ids with gaps, in 2D and 3D, on CPU and GPU."""

from __future__ import annotations

from typing import Any

import naive_losses as naive
import numpy as np
import pytest
import torch

from pipeline.distillation import GraphRelationDistillation, InstanceGraphLoss, LayerFeatures, SupervisedAffinityLoss

SHAPES = {2: (9, 11), 3: (4, 8, 9)}
OFFSETS: dict[int, list[tuple[int, ...]]] = {
    2: [(-1, 0), (0, -1), (3, -2), (0, 20)],
    3: [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (-3, 0, 0), (2, -3, 1)],
}
WEIGHTS: dict[str, Any] = {"node": 0.1, "edge": 0.2, "affinity": 10.0, "inter_edge": 1.0, "inter_affinity": 4.0}
dimensional = pytest.mark.parametrize("dimensions", [2, 3])
IMAGES = ["empty", "one instance", "single voxels", "gaps", "huge ids"]


def image(kind: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Labels of one image."""
    blocks = torch.arange(torch.Size(shape).numel()).view(shape) // 25
    if kind == "empty":
        return torch.zeros_like(blocks)
    if kind == "one instance":
        return torch.ones_like(blocks)
    if kind == "single voxels":
        single = torch.zeros_like(blocks).flatten()
        single[::17] = torch.arange(1, len(single[::17]) + 1)
        return single.view(shape)
    if kind == "gaps":
        return blocks * 7
    ids = np.array([0, 2**31 - 1, 2**31, 2**32 + 1, 2**63 - 1, 2**63 - 2], dtype=np.uint64)
    return torch.from_numpy(ids[blocks.numpy() % len(ids)].astype(np.int64))


def distillation(dimensions: int) -> GraphRelationDistillation:
    return GraphRelationDistillation(
        OFFSETS[dimensions], **{f"{name}_weight": weight for name, weight in WEIGHTS.items()}
    )


@dimensional
@pytest.mark.parametrize("kinds", [IMAGES, *([kind] for kind in IMAGES)], ids=lambda kinds: " + ".join(kinds))
def test_every_kind_of_image_gives_what_the_loops_give(dimensions: int, kinds: list[str]) -> None:
    shape = SHAPES[dimensions]
    labels = torch.stack([image(kind, shape) for kind in kinds])
    past, student, teacher = (torch.randn(len(kinds), 4, *shape) for _ in range(3))
    student.requires_grad_()
    module = distillation(dimensions)
    module.memory.enqueue(past, labels)
    total, terms = module(student, teacher, labels)
    learnt, remembered = student.detach(), list(zip(past, labels, strict=True))
    expected = dict(
        zip(
            WEIGHTS,
            (
                *naive.instance_terms(learnt, teacher, labels),
                naive.affinity_term(learnt, teacher, OFFSETS[dimensions]),
                *naive.inter_terms(learnt, teacher, labels, remembered),
            ),
            strict=True,
        )
    )
    assert {name: float(value) for name, value in terms.items()} == pytest.approx(expected, rel=1e-4)
    total.backward()
    assert student.grad is not None and bool(student.grad.isfinite().all())


@dimensional
def test_a_student_equal_to_its_teacher_has_nothing_to_learn(dimensions: int) -> None:
    """In every term, inner layers included; networks of equal channels need no projection."""
    shape = SHAPES[dimensions]
    labels = torch.stack([image(kind, shape) for kind in IMAGES])
    embedding = torch.randn(len(IMAGES), 4, *shape)
    features = torch.randn(len(IMAGES), 6, *(extent // 2 for extent in shape))
    layers = {"decoder_1": LayerFeatures(features, (2,) * dimensions, (0,) * dimensions)}
    module = distillation(dimensions)
    module.memory.enqueue(torch.randn(len(IMAGES), 4, *shape), labels)
    total, terms = module(embedding, embedding, labels, student_layers=layers, teacher_layers=layers)
    assert not list(module.parameters())
    assert {name: float(value) for name, value in terms.items()} == dict.fromkeys(WEIGHTS, 0.0)
    assert float(total) == 0


def test_size_of_the_instances_does_not_matter() -> None:
    """A neurite of one voxel is a node like one of a thousand."""
    labels = torch.ones(1, 10, 10, dtype=torch.int64)
    labels[0, 0, 0] = 2
    teacher = torch.zeros(1, 2, 10, 10)
    student = torch.where(labels[:, None] == 2, 1.0, 0.0).expand(-1, 2, -1, -1)
    assert float(InstanceGraphLoss(1, 0)(student, teacher, labels)) == pytest.approx(2 / 2)


@dimensional
def test_layout_in_memory_does_not_matter(dimensions: int) -> None:
    """2D networks give channels last; a cropped embedding is no dense tensor at all."""
    shape = SHAPES[dimensions]
    labels = torch.stack([image(kind, shape) for kind in IMAGES])
    student, teacher = (torch.randn(len(IMAGES), 4, *shape) for _ in range(2))
    results = []
    for layout in ("channels first", "channels last", "cropped"):
        leaf = student.clone()
        if layout == "channels last":
            leaf = student.movedim(1, -1).contiguous().movedim(-1, 1)
        elif layout == "cropped":
            leaf = torch.nn.functional.pad(student, (1, 2))[..., 1:-2]
        leaf = leaf.detach().requires_grad_()
        total, _ = distillation(dimensions)(leaf, teacher, labels)
        total.backward()
        results.append((total.detach(), leaf.grad))
    for total, gradient in results[1:]:
        torch.testing.assert_close(total, results[0][0])
        torch.testing.assert_close(gradient, results[0][1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
@dimensional
def test_gpu_gives_what_the_cpu_gives(dimensions: int) -> None:
    shape = SHAPES[dimensions]
    labels = torch.stack([image(kind, shape) for kind in IMAGES])
    past, student, teacher = (torch.randn(len(IMAGES), 4, *shape) for _ in range(3))
    results = []
    for device in ("cpu", "cuda"):
        leaf = student.detach().to(device).requires_grad_()
        module = distillation(dimensions)
        module.memory.enqueue(past.to(device), labels.to(device))
        total, terms = module(leaf, teacher.to(device), labels.to(device))
        total.backward()
        assert leaf.grad is not None
        results.append([total.detach().cpu(), *(value.cpu() for value in terms.values()), leaf.grad.cpu()])
    for on_cpu, on_gpu in zip(*results, strict=True):
        torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_gpu_supervises_as_the_cpu_does() -> None:
    embedding = torch.randn(2, 4, *SHAPES[2])
    affinities, mask = torch.randint(0, 2, (2, 2, 4, *SHAPES[2])).unbind()
    loss = SupervisedAffinityLoss(OFFSETS[2])
    on_gpu = loss(embedding.cuda(), affinities.cuda(), mask.cuda())
    torch.testing.assert_close(on_gpu.cpu(), loss(embedding, affinities, mask))
