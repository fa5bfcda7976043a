"""A teacher that goes on learning beside its student."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from training_state import curves, resumed_equals_undisturbed, weights

from pipeline.checkpoints import latest_checkpoint
from pipeline.distillation import EmbeddedPatch, SupervisedAffinityLoss
from pipeline.errors import UserError
from pipeline.networks import load_network
from pipeline.networks.checkpoint import load_checkpoint
from pipeline.run import Run
from pipeline.training import train_student, train_teacher
from pipeline.training.objective.schedule import learning_rate
from pipeline.training.sampling.loader import BatchLoader
from pipeline.training.steps.training_setup import Training

MakeRun = Callable[..., Run]
RATE = 0.004
LEARNS = f"student.distillation.teacher_learning_rate={RATE}"
MOST = 0.05
"""What gradients are clipped to: below those of both networks, which must not share it."""
CLIP = f"student.training.gradient_clip={MOST}"
PREFIX = "distiller.learning_teacher."


@pytest.fixture
def teacher(make_run: MakeRun) -> Path:
    return train_teacher(make_run(name="teacher"))


def named(teacher: Path) -> str:
    return f"teacher.checkpoint={json.dumps(str(teacher))}"


def learnt_beside(student: Path) -> dict[str, torch.Tensor]:
    state = load_checkpoint(student)["training"]["objective"]
    return {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}


def learnt_by_itself(teacher: Path, run: Run) -> dict[str, torch.Tensor]:
    """What the same batches make of the teacher where nothing but labels teaches it."""
    training = Training(run, "student", teacher)
    schedule = training.section.training.model_copy(update={"learning_rate": RATE})
    network, _ = load_network(teacher)
    network.eval().requires_grad_(True)
    loss_of = SupervisedAffinityLoss(run.config.targets.offsets)
    optimizer = torch.optim.Adam(network.parameters())
    with BatchLoader(training.sampling(training.build_network()), 0) as loader:
        for iteration in range(schedule.iterations):
            batch = {name: torch.from_numpy(array) for name, array in loader.next().items()}
            optimizer.param_groups[0]["lr"] = learning_rate(schedule, iteration)
            optimizer.zero_grad()
            given = EmbeddedPatch(network(batch["raw"]), network.least_length)
            loss_of(given, batch["affinities"], batch["mask"], batch["labels"]).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), MOST)
            optimizer.step()
    return dict(network.state_dict())


def test_it_learns_from_labels_alone_as_it_would_by_itself(make_run: MakeRun, teacher: Path) -> None:
    """Neither what the student copies nor the student's share of the clipped gradient moves it."""
    before = teacher.read_bytes()
    run = make_run(named(teacher), LEARNS, CLIP)
    beside, alone = learnt_beside(train_student(run)), learnt_by_itself(teacher, run)
    assert beside.keys() == alone.keys()
    for name, value in alone.items():
        torch.testing.assert_close(beside[name], value, rtol=1e-4, atol=1e-6)
    first = weights(teacher)
    assert max(float((beside[name] - first[name]).abs().max()) for name in first) > RATE
    assert teacher.read_bytes() == before


def test_the_student_learns_from_what_the_teacher_has_become(make_run: MakeRun, teacher: Path) -> None:
    frozen = make_run(named(teacher), name="frozen")
    learning = make_run(named(teacher), LEARNS, name="learning")
    students = [weights(train_student(run)) for run in (frozen, learning)]
    assert any(not torch.equal(students[0][name], value) for name, value in students[1].items())
    losses = [[line["affinity"] for line in curves(run, "student") if "loss" in line] for run in (frozen, learning)]
    assert losses[0][0] == losses[1][0] and losses[0][1:] != losses[1][1:]
    assert all(line["teacher_supervised"] > 0 for line in curves(learning, "student") if "loss" in line)
    assert not learnt_beside(latest_checkpoint(frozen.network_directory("student")))


def test_it_continues_to_the_last_bit(make_run: MakeRun, teacher: Path) -> None:
    path = resumed_equals_undisturbed(make_run, named(teacher), LEARNS, 'student.training.schedule="constant"')
    assert learnt_beside(path)


def test_affinities_on_disk_do_not_learn(make_run: MakeRun) -> None:
    teacher = 'teacher={"kind": "affinities", "affinities": {"p": {"paths": ["a.zarr"]}}}'
    with pytest.raises(UserError, match=r"teacher_learning_rate: only a teacher of the kind network goes on learning"):
        make_run(teacher, LEARNS)


def test_a_paraphraser_is_of_a_teacher_that_stays(make_run: MakeRun) -> None:
    with pytest.raises(UserError, match=r"teacher_learning_rate changes the teacher that graph_flow.paraphraser"):
        make_run(LEARNS, "student.distillation.graph_flow={}")
