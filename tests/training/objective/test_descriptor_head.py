"""Descriptors teach a network's features, and nothing of that is left in the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from training_state import assert_same_state, curves

from pipeline.config import MalaConfig, NetworkConfig, ResidualUnetConfig, SectionUnetConfig, TargetsConfig
from pipeline.errors import UserError
from pipeline.networks import build_network, load_network
from pipeline.networks.checkpoint import load_checkpoint
from pipeline.run import Run
from pipeline.training import train_student, train_teacher
from pipeline.training.objective.descriptor_head import LAYER, DescriptorHead
from pipeline.training.objective.embedding import embed_with_layers
from pipeline.training.objective.objective import Objective

MakeRun = Callable[..., Run]
NEAR = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
ON = 'targets.descriptors={"sigma": 40.0, "weight": 2.0}'
NETWORKS: dict[str, tuple[NetworkConfig, tuple[int, int, int]]] = {
    "section": (SectionUnetConfig(sections=3, widths=(4, 6)), (4, 16, 16)),
    "stem": (SectionUnetConfig(sections=3, widths=(4, 6), stem=(2, 2, 2)), (6, 16, 16)),
    "plain": (
        SectionUnetConfig(sections=3, widths=(4, 6), embedding_channels=0, affinity_offsets=NEAR),
        (4, 16, 16),
    ),
    "volume": (ResidualUnetConfig(widths=(3, 4), stem=(1, 2, 2)), (3, 16, 16)),
    "images": (ResidualUnetConfig(dimensions=2, widths=(3, 4)), (3, 16, 16)),
    "mala": (MalaConfig(widths=(2, 2), downsampling=((1, 2, 2),)), (14, 24, 24)),
}


def bias_of(head: DescriptorHead) -> torch.Tensor:
    assert head.head.bias is not None
    return head.head.bias


@pytest.mark.parametrize("name", NETWORKS)
def test_the_error_is_the_mean_over_channels_and_known_voxels(name: str) -> None:
    torch.manual_seed(0)
    config, shape = NETWORKS[name]
    network = build_network(config)
    head = DescriptorHead(network, 10, 1.0)
    output, layers = embed_with_layers(network, torch.randn(2, 1, *shape), None, (LAYER,))
    descriptors = torch.rand(2, 10, *output.shape[2:])
    labels = torch.randint(3, (2, *output.shape[2:]))
    with torch.no_grad():  # what a constant head says is known
        head.head.weight.zero_()
        nn.init.constant_(bias_of(head), 0.4)
    error = head(layers[LAYER], descriptors, labels)
    said, total = torch.sigmoid(torch.tensor(0.4)), 0.0
    for sample, z, y, x in torch.nonzero(labels).tolist():
        total += float((said - descriptors[sample, :, z, y, x]).square().mean())
    assert error.item() == pytest.approx(total / int((labels > 0).sum()), rel=1e-4)
    changed = descriptors.clone()
    changed[(labels == 0)[:, None].expand_as(changed)] = 9
    assert head(layers[LAYER], changed, labels) == error
    nothing = head(layers[LAYER], descriptors, labels * 0)
    assert nothing == 0 and nothing.requires_grad


def test_each_voxel_of_a_stem_learns_its_own_descriptor() -> None:
    """A head whose channels were mixed up between the voxels of a stem could not fit them."""
    torch.manual_seed(0)
    network = build_network(SectionUnetConfig(sections=3, widths=(4, 6), stem=(2, 2, 2)))
    head = DescriptorHead(network, 2, 1.0)
    descriptors = torch.zeros(1, 2, 4, 8, 8)
    descriptors[:, 1, 1::2, ::2, 1::2] = 1  # one voxel of each place, one channel
    with torch.no_grad():
        head.head.weight.zero_()
        nn.init.constant_(bias_of(head), -30)
        bias = bias_of(head).view(2, 2, 2, 2)  # as `stem.unfold` has them: z, channel, y, x
        bias[1, 1, 0, 1] = 30
    assert head(torch.randn(1, 4, 2, 4, 4), descriptors, torch.ones(1, 4, 8, 8, dtype=torch.int64)) < 1e-6


def test_descriptors_enter_the_loss_with_their_weight_and_reach_the_network() -> None:
    torch.manual_seed(0)
    network = build_network(SectionUnetConfig(sections=1, widths=(4, 6)))
    raw = torch.randn(1, 1, 2, 8, 8)
    batch = {
        "raw": raw,
        "affinities": torch.ones(1, 3, 2, 8, 8, dtype=torch.uint8),
        "mask": torch.zeros(1, 3, 2, 8, 8, dtype=torch.uint8),  # so that nothing else teaches anything
        "labels": torch.ones(1, 2, 8, 8, dtype=torch.int64),
        "descriptors": torch.rand(1, 10, 2, 8, 8),
    }
    objective = Objective(TargetsConfig(offsets=NEAR), network, descriptors=DescriptorHead(network, 10, 3.0))
    output, layers = embed_with_layers(network, raw, None, objective.layers)
    loss, terms = objective(output, layers, batch, 0)
    assert loss.item() == pytest.approx(3 * terms["descriptors"].item()) and objective.weights(0)["descriptors"] == 3
    loss.backward()
    gradient = next(network.parameters()).grad
    assert gradient is not None and gradient.abs().sum() > 0


@pytest.fixture
def trained(make_run: MakeRun) -> tuple[Run, Path]:
    run = make_run(ON)
    return run, train_student(run)


def test_both_networks_learn_them_and_are_stored_as_without(trained: tuple[Run, Path], make_run: MakeRun) -> None:
    run, path = trained
    for role in ("teacher", "student"):
        assert all("descriptors" in line for line in curves(run, role) if "loss" in line)
    without = train_student(make_run(name="without"))
    stored, plain = load_checkpoint(path), load_checkpoint(without)
    assert stored["network"] == plain["network"]
    assert {name: w.shape for name, w in stored["model"].items()} == {n: w.shape for n, w in plain["model"].items()}
    network, _ = load_network(path, run.config.student.network)
    assert network.parameter_count() == load_network(without)[0].parameter_count()


def test_a_resumed_training_goes_on_with_the_same_head(make_run: MakeRun) -> None:
    common = (
        ON,
        "student.distillation=null",
        'student.training.schedule="constant"',
        "student.training.validate_every=2",
    )
    whole = make_run(*common, "student.training.iterations=4", name="whole")
    expected = train_student(whole)
    parts = make_run(*common, "student.training.iterations=2", name="parts")
    train_student(parts)
    parts = make_run(*common, "student.training.iterations=4", name="parts")
    assert_same_state(expected, train_student(parts))


def test_a_training_does_not_go_on_with_other_descriptors(make_run: MakeRun) -> None:
    train_teacher(make_run(ON))
    with pytest.raises(UserError, match=r"^targets.descriptors.sigma: was 40"):
        train_teacher(make_run('targets.descriptors={"sigma": 48.0, "weight": 2.0}', "teacher.training.iterations=5"))
    train_teacher(make_run('targets.descriptors={"sigma": 40.0, "weight": 2.0, "learnt_by": "teacher"}'))
