"""Weights averaged over the steps are what is validated and kept, and a training continues from both to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from training_state import assert_same_state, curves

from pipeline.checkpoints import latest_checkpoint
from pipeline.networks import build_network
from pipeline.networks.checkpoint import load_checkpoint
from pipeline.run import Run
from pipeline.training import train_student, train_teacher
from pipeline.training.steps.average import WeightAverage

MakeRun = Callable[..., Run]
ALONE = ("student.distillation=null", 'student.training.schedule="constant"')


def test_the_average_follows_its_formula_and_leaves_what_learns_alone() -> None:
    torch.manual_seed(0)
    network = build_network("section_unet", sections=1, widths=(2, 3), embedding_channels=2)
    average = WeightAverage(network, 0.9)
    expected = {name: weight.double().clone() for name, weight in network.state_dict().items()}
    for step in range(200):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update(step)
        kept = min(0.9, (1 + step) / (10 + step))
        for name, weight in network.state_dict().items():
            expected[name] = kept * expected[name] + (1 - kept) * weight.double()
    learning = {name: weight.clone() for name, weight in network.state_dict().items()}
    with average.in_place():
        for name, weight in network.state_dict().items():
            torch.testing.assert_close(weight.double(), expected[name], rtol=1e-4, atol=1e-4)
            assert not torch.equal(weight, learning[name])
    assert all(torch.equal(weight, learning[name]) for name, weight in network.state_dict().items())


def test_averaging_changes_what_is_kept_and_never_what_learns(make_run: MakeRun) -> None:
    paths = [
        train_student(make_run(*ALONE, f"student.training.average={kept}", name=name))
        for name, kept in (("averaged", 0.99), ("as ever", 0))
    ]
    averaged, ever = (load_checkpoint(path) for path in paths)
    learning = averaged["training"]["learning"]
    assert "learning" not in ever["training"]
    for name, weight in ever["model"].items():
        assert torch.equal(weight, learning[name])
        assert not torch.equal(weight, averaged["model"][name])


def test_a_resumed_training_keeps_the_same_average_to_the_last_bit(make_run: MakeRun) -> None:
    common = (*ALONE, "student.training.average=0.9", "student.training.validate_every=2")
    whole = make_run(*common, "student.training.iterations=6", name="whole")
    train_student(whole)
    train_student(make_run(*common, "student.training.iterations=4", name="parts"))
    resumed = make_run(*common, "student.training.iterations=6", name="parts")
    train_student(resumed)
    assert_same_state(*(latest_checkpoint(run.network_directory("student")) for run in (whole, resumed)))
    assert curves(whole, "student") == curves(resumed, "student")


@pytest.mark.parametrize("kind", ["in its place", "beside"])
def test_plain_affinities_are_trained_distilled_and_resumed(make_run: MakeRun, kind: str) -> None:
    """Teacher and student with plain affinities; beside an embedding, terms of embeddings are there, too."""
    near = "[[-1, 0, 0], [0, -1, 0], [0, 0, -1]]"
    channels = 0 if kind == "in its place" else 4
    common = [
        "student.training.schedule=constant",
        f"student.distillation.edge_weight={0.1 if channels else 0.0}",
        f"student.distillation.inter_edge_weight={0.1 if channels else 0.0}",
        "student.training.validate_every=2",
    ]
    for role in ("teacher", "student"):
        common += [f"{role}.network.affinity_offsets={near}", f"{role}.network.embedding_channels={channels}"]
    teacher = train_teacher(make_run(*common, name="teacher"))
    common.append(f"teacher.checkpoint={json.dumps(str(teacher))}")
    whole = make_run(*common, "student.training.iterations=4", name="whole")
    train_student(whole)
    train_student(make_run(*common, "student.training.iterations=2", name="parts"))
    resumed = make_run(*common, "student.training.iterations=4", name="parts")
    train_student(resumed)
    assert_same_state(*(latest_checkpoint(run.network_directory("student")) for run in (whole, resumed)))
    logged = [line for line in curves(resumed, "student") if "loss" in line][-1]
    assert logged["affinity"] > 0 and ("edge" in logged) == bool(channels)
    assert any("voi_sum" in line.get("validation", {}) for line in curves(resumed, "student"))
