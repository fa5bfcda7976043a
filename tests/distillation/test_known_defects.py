"""Defects of published code for this method that ours must not have, and costs that must not come back.

Others of this kind have their place with the memory bank, the layers and the gradients.
"""

from __future__ import annotations

import ast
import time
from pathlib import Path

import naive_losses as naive
import pytest
import torch

import pipeline.distillation
from pipeline.distillation import AffinityGraphLoss, GraphRelationDistillation, embedding_affinities, instance_nodes


def test_affinities_do_not_wrap_around_the_border() -> None:
    embedding = torch.randn(1, 4, 5, 6)
    changed = embedding.clone()
    changed[..., -1] = torch.randn(1, 4, 5)
    before, valid = embedding_affinities(embedding, [(0, -1), (-2, 0)])
    after, _ = embedding_affinities(changed, [(0, -1), (-2, 0)])
    assert torch.equal(before[0, 0, :, :-1], after[0, 0, :, :-1])
    assert not valid[0, :, 0].any() and not valid[1, :2].any()
    other = torch.randn(1, 4, 5, 6)
    torch.testing.assert_close(
        AffinityGraphLoss([(0, -1)])(embedding, other),
        (embedding_affinities(embedding, [(0, -1)])[0] - embedding_affinities(other, [(0, -1)])[0])[..., 1:]
        .square()
        .mean(),
    )


def test_background_is_no_instance() -> None:
    labels = torch.tensor([[[0, 0, 3], [0, 3, 7]]])
    (ids, nodes), *_ = instance_nodes(torch.randn(1, 4, 2, 3), labels)
    assert ids.tolist() == [3, 7] and nodes.shape == (2, 4)


def test_embedding_of_background_does_not_matter_to_the_nodes() -> None:
    labels = torch.tensor([[[0, 0, 3], [0, 3, 7]]])
    embedding = torch.randn(1, 4, 2, 3)
    spoiled = torch.where(labels[:, None] == 0, torch.full_like(embedding, 1e6), embedding)
    torch.testing.assert_close(instance_nodes(embedding, labels)[0][1], instance_nodes(spoiled, labels)[0][1])


@pytest.mark.parametrize("largest", [2**31, 2**53 + 1, 2**63 - 1])
def test_huge_ids_are_kept_apart(largest: int) -> None:
    """Ids near each other at 2^53 collapse in floating point; a table of all ids would need all memory."""
    labels = torch.tensor([[[largest, largest, largest - 1], [0, largest - 1, largest - 2]]])
    (ids, _), *_ = instance_nodes(torch.randn(1, 4, 2, 3), labels)
    assert ids.tolist() == [largest - 2, largest - 1, largest]


def test_same_id_in_two_images_is_two_instances() -> None:
    embedding = torch.stack([torch.zeros(2, 3, 3), torch.ones(2, 3, 3)])
    nodes = instance_nodes(embedding, torch.ones(2, 3, 3, dtype=torch.int64))
    assert nodes[0][1].tolist() == [[0, 0]] and nodes[1][1].tolist() == [[1, 1]]


def test_long_offsets_along_z_count() -> None:
    student, teacher = torch.randn(1, 4, 6, 4, 4), torch.randn(1, 4, 6, 4, 4)
    assert float(AffinityGraphLoss([(-4, 0, 0)])(student, teacher)) > 0
    _, valid = embedding_affinities(student, [(-4, 0, 0)])
    assert int(valid.sum()) == 2 * 4 * 4


def test_offset_of_other_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit an embedding of 2 axes"):
        embedding_affinities(torch.randn(1, 4, 5, 6), [(-1, 0, 0)])


def test_complete_loss_is_ten_times_faster_than_loops() -> None:
    """Instances in loops, as in published code, against all terms at once, with the gradient."""
    shape, memory = (8, 64, 64), 12
    labels = torch.arange(1, 129).view(1, 2, 8, 8).repeat_interleave(4, 1)
    labels = labels.repeat_interleave(8, 2).repeat_interleave(8, 3)
    student, teacher = torch.randn(1, 16, *shape, requires_grad=True), torch.randn(1, 16, *shape)
    module = GraphRelationDistillation([(-1, 0, 0), (0, -1, 0), (0, 0, -1)], inter_edge_weight=1, memory_sample=memory)
    for _ in range(memory):
        module.memory.enqueue(torch.randn(1, 16, *shape), labels)

    def loops() -> None:
        total = student.sum() * 0
        there = [entry.nodes for entry in module.memory.sample(memory)]
        of_student = [student[0][:, labels[0] == i].mean(1) for i in labels.unique()]
        of_teacher = [teacher[0][:, labels[0] == i].mean(1) for i in labels.unique()]
        for s, t in zip(of_student, of_teacher, strict=True):
            total = total + (s - t).square().sum()
            for other in there:
                for node in other[:2]:  # a fraction of the pairs that the module compares
                    total = total + (naive.cosine(s, node) - naive.cosine(t, node)) ** 2
        total.backward()

    seconds = {}
    for name, work in (("module", lambda: module(student, teacher, labels)[0].backward()), ("loops", loops)):
        start = time.perf_counter()
        work()
        seconds[name] = time.perf_counter() - start
    assert seconds["loops"] > 10 * seconds["module"]


def test_distillation_imports_nothing_of_the_rest() -> None:
    folder = Path(pipeline.distillation.__file__).parent
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level <= 1, path
                assert not (node.module or "").startswith("pipeline"), path
