"""Graph flow, logits and a critic in whole trainings: the paraphraser comes first, and all resumes bit-exactly."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_state import curves, resumed_equals_undisturbed

from pipeline.checkpoints import latest_checkpoint
from pipeline.config import dump_config
from pipeline.errors import UserError
from pipeline.networks.checkpoint import load_checkpoint
from pipeline.run import Run
from pipeline.training import describe_paraphraser, describe_training, train_paraphraser, train_student, train_teacher
from pipeline.training.objective.paraphraser_files import (
    paraphraser_path,
    read_paraphrasers,
    write_paraphrasers,
)

MakeRun = Callable[..., Run]

ROOT = Path(__file__).parents[3]
FLOW = "student.distillation.graph_flow"
SHORT = f"{FLOW}.paraphraser.iterations=6"
WIDE = "teacher.network.widths=[6, 8]"
ALL_TERMS = (
    SHORT,
    WIDE,
    "student.distillation.node_weight=0.1",
    "student.distillation.inter_affinity_weight=4.0",
    "student.distillation.logits.temperature=2.0",
    "student.distillation.adversarial={}",
    'student.training.schedule="constant"',
)


def test_tensorboard_shows_each_term_and_the_weight_it_entered_with(make_run: MakeRun) -> None:
    run = make_run(*ALL_TERMS, "student.distillation.warm_up=3")
    train_student(run)
    events = EventAccumulator(str(run.network_directory("student") / "logs")).Reload()
    terms = {"supervised", "node", "affinity", "inter_affinity", "flow_vertex", "flow_edge", "logits", "adversarial"}
    told = {"critic_distance", "critic_penalty"}
    tags = set(events.Tags()["scalars"])
    assert {f"weight/{term}" for term in terms} == {tag for tag in tags if tag.startswith("weight/")}
    assert {f"training/{term}" for term in terms | told} <= tags
    assert [event.value for event in events.Scalars("weight/flow_edge")] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    for step in range(4):
        value = {tag: events.Scalars(tag)[step].value for tag in tags if not tag.startswith("validation/")}
        total = sum(value[f"weight/{term}"] * value[f"training/{term}"] for term in terms)
        assert value["training/loss"] == pytest.approx(total, rel=1e-4)


def test_a_resumed_training_equals_an_undisturbed_one_to_the_last_bit(make_run: MakeRun) -> None:
    """Critic, its optimiser and its random places included."""
    teacher = train_teacher(make_run(WIDE, name="teacher"))
    common = (*ALL_TERMS, f"teacher.checkpoint={json.dumps(str(teacher))}")
    objective = load_checkpoint(resumed_equals_undisturbed(make_run, *common))["training"]["objective"]
    assert any("critic" in key for key in objective)
    assert not any("paraphraser" in key or "teacher" in key for key in objective)


def test_an_interrupted_paraphraser_continues_to_the_last_bit(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [make_run(WIDE, SHORT, "student.training.checkpoint_every=2", name=name) for name in ("whole", "parts")]
    train_paraphraser(runs[0])
    document = read_paraphrasers(paraphraser_path(runs[0]))
    train_teacher(runs[1])
    written = []

    def stop_after_the_first(path: Path, content: dict[str, Any]) -> None:
        write_paraphrasers(path, content)
        written.append(content["iteration"])
        if len(written) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.training.paraphrasing.write_paraphrasers", stop_after_the_first)
    with pytest.raises(KeyboardInterrupt):
        train_paraphraser(runs[1])
    with pytest.raises(UserError, match=r"paraphraser: .*not finished"):
        train_student(Run(named_paraphraser(runs[1])))
    train_paraphraser(runs[1])
    assert written == [2, 4, 6]
    continued = read_paraphrasers(paraphraser_path(runs[1]))
    for key, value in document["model"].items():
        assert torch.equal(value, continued["model"][key]), key
    assert curves_of_paraphraser(runs[0]) == curves_of_paraphraser(runs[1])


def named_paraphraser(run: Run) -> Any:
    """The run's config, with its own paraphraser named as one that is there already."""
    config = run.config
    assert config.student.distillation is not None and config.student.distillation.graph_flow is not None
    flow = config.student.distillation.graph_flow
    assert flow.paraphraser is not None
    named = flow.paraphraser.model_copy(update={"checkpoint": str(paraphraser_path(run))})
    flow = flow.model_copy(update={"paraphraser": named})
    distillation = config.student.distillation.model_copy(update={"graph_flow": flow})
    return config.model_copy(update={"student": config.student.model_copy(update={"distillation": distillation})})


def curves_of_paraphraser(run: Run) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (paraphraser_path(run).parent / "curves.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_a_missing_paraphraser_is_trained_first_and_says_so(
    make_run: MakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(WIDE, f"{FLOW}.paraphraser.iterations=60", f"{FLOW}.paraphraser.learning_rate=0.01")
    with caplog.at_level(logging.INFO):
        train_student(run)
    said = [message for message in caplog.messages if message.startswith("paraphraser")]
    assert "training it first" in said[0] and "unexplained" in said[1]
    learnt = curves_of_paraphraser(run)
    assert learnt[-1]["unexplained_decoder_0"] < 0.7 * learnt[0]["unexplained_decoder_0"]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert train_paraphraser(run) == paraphraser_path(run)
    assert "finished already" in caplog.messages[-1]


def test_a_finished_student_needs_neither_teacher_nor_paraphraser_any_more(make_run: MakeRun) -> None:
    run = make_run(WIDE, SHORT)
    path = train_student(run)
    paraphraser_path(run).unlink()
    assert train_student(run) == path
    for checkpoint in run.network_directory("teacher").glob("*.pt"):
        checkpoint.unlink()
    assert train_student(run) == path


def test_a_paraphraser_of_another_teacher_is_refused(make_run: MakeRun) -> None:
    run = make_run(WIDE, SHORT, name="mine")
    train_paraphraser(run)
    other = train_teacher(make_run(WIDE, "seed=7", name="other"))
    taught = f"teacher.checkpoint={json.dumps(str(other))}"
    with pytest.raises(UserError, match=r"teacher.checkpoint: is another file"):
        train_paraphraser(make_run(WIDE, SHORT, taught, name="mine"))
    named = f"{FLOW}.paraphraser.checkpoint={json.dumps(str(paraphraser_path(run)))}"
    with pytest.raises(UserError, match=r"graph_flow.paraphraser: .*another teacher"):
        train_student(make_run(WIDE, taught, named, name="third"))


def test_a_named_paraphraser_is_used_instead_of_training_one(make_run: MakeRun) -> None:
    first = make_run(WIDE, SHORT, name="first")
    path = train_paraphraser(first)
    teacher = latest_checkpoint(first.network_directory("teacher"))
    named = f"{FLOW}.paraphraser.checkpoint={json.dumps(str(path))}"
    second = make_run(WIDE, f"teacher.checkpoint={json.dumps(str(teacher))}", named, name="second")
    train_student(second)
    assert not paraphraser_path(second).exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((f'{FLOW}.layers=["encoder_9", "decoder_0"]',), rf"{FLOW}.layers: .*no layer 'encoder_9'.*encoder_0"),
        ((f'{FLOW}.layers=["encoder_0", "bottleneck"]',), rf"{FLOW}.layers: .*4 channels.*bottleneck 6"),
        ((WIDE, f"{FLOW}.paraphraser=null"), rf"{FLOW}.paraphraser: .*6 and 6 channels, the student's 4"),
        ((f'{FLOW}.paraphraser.checkpoint="nowhere.pt"',), rf"{FLOW}.paraphraser.checkpoint: .*nowhere.pt"),
    ],
)
def test_layers_that_cannot_be_compared_are_named_before_the_student_is_trained(
    make_run: MakeRun, overrides: tuple[str, ...], message: str
) -> None:
    run = make_run("teacher.training.iterations=1", *overrides)
    with pytest.raises(UserError, match=message):
        train_student(run)
    assert not run.network_directory("student").exists() and not paraphraser_path(run).exists()
    layers_at_fault = "checkpoint" not in overrides[-1]
    assert run.network_directory("teacher").exists() != layers_at_fault  # no hours of training before the mistake


def test_networks_of_equal_channels_need_no_paraphraser(make_run: MakeRun) -> None:
    run = make_run(f"{FLOW}.paraphraser=null", "student.distillation.affinity_weight=0")
    train_student(run)
    assert not paraphraser_path(run).exists()
    assert {"flow_vertex", "flow_edge"} <= curves(run, "student")[0].keys()
    with pytest.raises(UserError, match=r"graph_flow: .*none to train"):
        train_paraphraser(run)


def test_images_flow_section_by_section(make_run: MakeRun) -> None:
    network = {"name": "residual_unet", "dimensions": 2, "widths": [4, 6]}
    run = make_run(
        f"student.network={json.dumps(network)}",
        "student.training.patch_shape=[2, 32, 32]",
        'student.distillation={"offsets": [[0, -1, 0], [0, 0, -1]], "logits": {}, "adversarial": {}}',
        f"teacher.network={json.dumps({**network, 'widths': [6, 8]})}",
        "teacher.training.patch_shape=[2, 32, 32]",
        SHORT,
    )
    train_student(run)
    assert read_paraphrasers(paraphraser_path(run))["dimensions"] == 2
    assert curves(run, "student")[-2]["flow_vertex"] > 0


def test_the_script_trains_what_it_said_it_would(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(WIDE, SHORT)
    assert describe_paraphraser(run).startswith("paraphraser: iterations 0 to 6")
    assert "its paraphraser comes first, with 6 iterations" in describe_training(run, "student")
    config = tmp_path / "config.json"
    config.write_text(json.dumps(dump_config(run.config)))
    command = [sys.executable, str(ROOT / "workflows" / "00b_train_paraphraser.py"), str(config)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, capture_output=True, check=True)
    assert describe_paraphraser(run).startswith("paraphraser: iterations 6 to 6")
