"""What a step costs: operations and sizes of tensors, counted, so that the machine's load does not matter."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.distillation import EmbeddedPatch, GraphRelationDistillation, SupervisedAffinityLoss

SHAPES = {2: (70, 77), 3: (6, 35, 42)}
OFFSETS: dict[int, list[tuple[int, ...]]] = {2: [(-1, 0), (0, -9)], 3: [(-1, 0, 0), (0, -1, 0), (0, 0, -9)]}
dimensional = pytest.mark.parametrize("dimensions", [2, 3])


class Recorder(TorchDispatchMode):
    """Counts the operations by name, and remembers the most elements that one of them gave."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()
        self.most_elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.counts[function.overloadpacket._qualified_op_name] += 1
        for one in result if isinstance(result, tuple | list) else (result,):
            if isinstance(one, torch.Tensor):
                self.most_elements = max(self.most_elements, one.numel())
        return result


def recorded_step(dimensions: int, *, instances: int = 5, remembered: int = 3, channels: int = 2) -> Recorder:
    """A step of the complete loss with its gradient, after so many images."""
    shape, offsets = SHAPES[dimensions], OFFSETS[dimensions]
    module = GraphRelationDistillation(offsets, inter_edge_weight=1, inter_affinity_weight=1, memory_sample=remembered)
    labels = torch.randint(0, instances + 1, (1, *shape))
    for _ in range(remembered):
        module.memory.enqueue(torch.randn(1, channels, *shape), labels)
    student = torch.randn(1, channels, *shape, requires_grad=True)
    teacher = torch.randn(1, channels, *shape)
    recorder = Recorder()
    with recorder:
        module(student, teacher, labels)[0].backward()
    assert student.grad is not None
    return recorder


@dimensional
def test_operations_do_not_grow_with_the_instances(dimensions: int) -> None:
    assert recorded_step(dimensions, instances=60).counts == recorded_step(dimensions, instances=3).counts


@dimensional
def test_operations_do_not_grow_with_the_memory_images(dimensions: int) -> None:
    assert recorded_step(dimensions, remembered=24).counts == recorded_step(dimensions, remembered=2).counts


@dimensional
def test_no_tensor_is_larger_than_the_embedding(dimensions: int) -> None:
    """No table of all pairs of pooled positions, no mask per instance, no stack of shifted maps, no memory of full
    maps."""
    embedding = 2 * torch.Size(SHAPES[dimensions]).numel()
    assert recorded_step(dimensions, instances=60).most_elements <= embedding


def test_two_instances_in_a_large_image_make_no_table_of_voxels() -> None:
    """Pooled positions of one image, squared, exceed the embedding here, so that a table of them would be seen."""
    positions = 10 * 11
    assert positions**2 > 2 * torch.Size(SHAPES[2]).numel()
    assert recorded_step(2, instances=2, remembered=1).most_elements < positions**2


@dimensional
def test_supervision_and_distillation_share_the_unit_vectors(dimensions: int) -> None:
    """Once for the student and once for the teacher, whoever asks first."""
    shape, offsets = SHAPES[dimensions], OFFSETS[dimensions]
    patch = EmbeddedPatch(torch.randn(1, 2, *shape, requires_grad=True))
    targets = torch.ones(1, len(offsets), *shape)
    with Recorder() as recorder:
        supervised = SupervisedAffinityLoss(offsets)(patch, targets, targets)
        distilled, _ = GraphRelationDistillation(offsets)(
            patch, torch.randn(1, 2, *shape), torch.ones(1, *shape).long()
        )
        (supervised + distilled).backward()
    assert recorder.counts["aten::rsqrt_"] == 2


@dimensional
def test_terms_and_memory_share_what_they_need(dimensions: int) -> None:
    """Instances once; nodes, unit vectors and pooled maps once for the student and once for the teacher."""
    counts = recorded_step(dimensions).counts
    assert counts["aten::bincount"] == 1
    assert counts["aten::scatter_add"] == 2
    assert counts[f"aten::avg_pool{dimensions}d"] == 2
