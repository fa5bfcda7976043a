"""Defects of published code for this method that ours must not have.

Others of this kind have their place with the memory bank, the layers and the gradients.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

import pipeline.distillation
from pipeline.distillation import AffinityGraphLoss, embedding_affinities, instance_nodes


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
    with pytest.raises(ValueError, match="does not fit an array of 2 axes"):
        embedding_affinities(torch.randn(1, 4, 5, 6), [(-1, 0, 0)])


def test_distillation_imports_nothing_of_the_rest_but_arithmetic_of_offsets() -> None:
    folder = Path(pipeline.distillation.__file__).parent
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level <= 1 or (node.level, node.module) in ((2, "offsets"), (2, "label_ids")), path
                assert not (node.module or "").startswith("pipeline"), path
