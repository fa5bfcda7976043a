"""The memory bank: what is remembered, what is sampled, and that a resumed training remembers the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.distillation import GraphRelationDistillation, InterImageGraphLoss, MemoryBank, MemoryEntry

SHAPE = (3, 14, 15)


def image(value: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A teacher embedding that can be told from others by its node, and labels of one instance."""
    return torch.full((1, 2, *SHAPE), value), torch.ones(1, *SHAPE, dtype=torch.int64)


def values(entries: list[MemoryEntry]) -> list[float]:
    return sorted(float(entry.nodes[0, 0]) for entry in entries)


def test_ring_keeps_the_newest_and_samples_all_of_them() -> None:
    bank = MemoryBank(4)
    for value in range(1, 11):
        bank.enqueue(*image(value))
    assert len(bank) == 4
    assert values(bank.sample(4)) == [7, 8, 9, 10]
    seen = {v for _ in range(100) for v in values(bank.sample(2))}
    assert seen == {7, 8, 9, 10}


def test_empty_slots_are_never_sampled_and_entries_are_distinct() -> None:
    bank = MemoryBank(32)
    assert bank.sample(12) == []
    for value in range(1, 6):
        bank.enqueue(*image(value))
    assert values(bank.sample(12)) == [1, 2, 3, 4, 5]
    assert all(len(set(values(bank.sample(3)))) == 3 for _ in range(50))


def test_sample_is_decided_by_its_generator() -> None:
    bank = MemoryBank(8)
    for value in range(1, 9):
        bank.enqueue(*image(value))
    first, second = (values(bank.sample(3, torch.Generator().manual_seed(5))) for _ in range(2))
    assert first == second


def test_pooled_map_not_full_map_is_stored() -> None:
    bank = MemoryBank(2)
    bank.enqueue(torch.randn(1, 16, 10, 50, 50), torch.zeros(1, 10, 50, 50, dtype=torch.int64))
    (entry,) = bank.sample(1)
    assert entry.pooled.shape == (16, 4, 8, 8)
    assert entry.nodes.shape == (0, 16)
    assert entry.pooled.untyped_storage().nbytes() == entry.pooled.numel() * 4


def test_windows_at_the_end_average_what_they_hold() -> None:
    bank = MemoryBank(1)
    bank.enqueue(torch.ones(1, 1, 8, 9), torch.zeros(1, 8, 9, dtype=torch.int64))
    assert bool((bank.sample(1)[0].pooled == 1).all())


def test_remembered_tensors_do_not_change_with_their_source() -> None:
    bank, (teacher, labels) = MemoryBank(1), image(1.0)
    teacher.requires_grad_(True)
    bank.enqueue(teacher, labels)
    with torch.no_grad():
        teacher.fill_(9)
    assert values(bank.sample(1)) == [1]
    assert not bank.sample(1)[0].nodes.requires_grad


def test_every_memory_image_counts_alike() -> None:
    """Cumulative concatenation would let early images count more; the loss is a mean over images."""
    student, teacher = torch.randn(1, 4, *SHAPE), torch.randn(1, 4, *SHAPE)
    labels = torch.randint(0, 4, (1, *SHAPE))
    bank = MemoryBank(3)
    for instances in (2, 9, 30):  # images rich and poor in instances
        bank.enqueue(torch.randn(1, 4, *SHAPE), torch.randint(0, instances, (1, *SHAPE)))
    entries = bank.sample(3)
    loss = InterImageGraphLoss(1, 1)
    singles = torch.stack([loss(student, teacher, labels, [entry]) for entry in entries])
    torch.testing.assert_close(loss(student, teacher, labels, entries), singles.mean())
    torch.testing.assert_close(loss(student, teacher, labels, entries[::-1]), singles.mean())


def test_memory_images_of_other_extents_can_be_compared() -> None:
    student, teacher, labels = torch.randn(1, 4, 20, 20), torch.randn(1, 4, 20, 20), torch.ones(1, 20, 20).long()
    bank = MemoryBank(2)
    bank.enqueue(torch.randn(1, 4, 30, 9), torch.ones(1, 30, 9).long())
    bank.enqueue(torch.randn(1, 4, 8, 8), torch.ones(1, 8, 8).long())
    loss = InterImageGraphLoss(0, 1)
    entries = bank.sample(2)
    singles = torch.stack([loss(student, teacher, labels, [entry]) for entry in entries])
    torch.testing.assert_close(loss(student, teacher, labels, entries), singles.mean())


def distillation(**settings: Any) -> GraphRelationDistillation:
    chosen = {"inter_edge_weight": 1.0, "inter_affinity_weight": 4.0, "memory_size": 6, "memory_sample": 3, **settings}
    return GraphRelationDistillation([(-1, 0, 0), (0, 0, -1)], **chosen)


def step(module: GraphRelationDistillation, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(2, 4, *SHAPE, generator=generator) for _ in range(2))
    labels = torch.randint(0, 4, (2, *SHAPE), generator=generator)
    total: torch.Tensor = module(student, teacher, labels)[0]
    return total


def test_image_never_meets_itself() -> None:
    """It is compared with what was remembered before it, which is nothing in the first step."""
    module = distillation()
    student, teacher = torch.randn(1, 4, *SHAPE), torch.randn(1, 4, *SHAPE)
    labels = torch.randint(0, 4, (1, *SHAPE))
    _, terms = module(student, teacher, labels)
    assert terms["inter_edge"] == 0 and terms["inter_affinity"] == 0
    assert len(module.memory) == 1


def test_resumed_training_is_bit_exact(tmp_path: Path) -> None:
    undisturbed = distillation()
    for seed in range(5):
        step(undisturbed, seed)
    torch.save(undisturbed.state_dict(), tmp_path / "state.pt")
    expected = [step(undisturbed, seed) for seed in range(5, 12)]
    torch.manual_seed(999)
    resumed = distillation(seed=77)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [float(step(resumed, seed)) for seed in range(5, 12)] == [float(value) for value in expected]


def test_validation_does_not_disturb_training() -> None:
    plain, validated = distillation(), distillation()
    for seed in range(4):
        step(plain, seed)
        step(validated, seed)
        validated.eval()
        assert float(step(validated, 50)) == float(step(validated, 50))
        validated.train()
    assert float(step(plain, 9)) == float(step(validated, 9))


def test_memory_is_not_kept_where_no_term_needs_it() -> None:
    module = distillation(inter_edge_weight=0.0, inter_affinity_weight=0.0)
    step(module, 0)
    assert len(module.memory) == 0


def test_unequal_embedding_channels_are_refused() -> None:
    module = distillation(node_weight=0.0)
    with pytest.raises(ValueError, match="equal embedding channels"):
        module(torch.randn(1, 3, *SHAPE), torch.randn(1, 4, *SHAPE), torch.ones(1, *SHAPE).long())


def test_a_patch_flatter_than_the_pooling_window_is_remembered() -> None:
    """Training patches of one or two sections are common; the default window is three sections deep."""
    flat = torch.randn((1, 4, 2, 5, 20), generator=torch.Generator().manual_seed(0))
    bank = MemoryBank(4)
    bank.enqueue(flat, torch.ones((1, 2, 5, 20), dtype=torch.int64))
    assert bank.sample(1)[0].pooled.shape == (4, 1, 1, 3)
    loss = InterImageGraphLoss(1.0, 1.0)
    labels = torch.ones((1, 2, 5, 20), dtype=torch.int64)
    assert loss(flat, flat, labels, bank.sample(1)) == 0
    assert loss(-flat, flat, labels, bank.sample(1)) > 0
