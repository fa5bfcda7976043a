"""Whole trainings of tiny networks: they learn, they resume bit-exactly, and a changed config is never ignored."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_state import assert_equal, curves, resumed_equals_undisturbed, weights

from pipeline.checkpoints import latest_checkpoint
from pipeline.config import dump_config
from pipeline.engine.tracking.training_record import read_training_record
from pipeline.errors import UserError
from pipeline.networks import load_network
from pipeline.networks.checkpoint import load_checkpoint
from pipeline.networks.torch_files import write_torch_file
from pipeline.run import Run, read_json
from pipeline.training import describe_distillation, train_student, train_teacher
from pipeline.training.steps import loop

MakeRun = Callable[..., Run]

ROOT = Path(__file__).parents[2]
ALONE = "student.distillation=null"
STEADY = ('teacher.training.schedule="constant"', 'student.training.schedule="constant"')
ALL_TERMS = (
    "student.distillation.node_weight=0.1",
    "student.distillation.edge_weight=0.1",
    "student.distillation.inter_edge_weight=1.0",
    "student.distillation.inter_affinity_weight=4.0",
    "student.distillation.memory_size=8",
    "student.distillation.memory_sample=2",
    'student.distillation.layers=["decoder_0", "bottleneck"]',
)


def test_the_loss_falls(make_run: MakeRun) -> None:
    run = make_run(ALONE, "student.training.iterations=60", "student.training.picture_every=30")
    train_student(run)
    losses = [line["loss"] for line in curves(run, "student") if "loss" in line]
    assert len(losses) == 60
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    assert list(run.network_directory("student").glob("logs/events.*"))


def test_distillation_changes_the_student_and_never_the_teacher(make_run: MakeRun) -> None:
    run = make_run()
    teacher = train_teacher(run)
    before = teacher.read_bytes()
    distilled = weights(train_student(run))
    assert teacher.read_bytes() == before
    alone = weights(train_student(make_run(ALONE, name="alone")))
    assert any(not torch.equal(distilled[name], alone[name]) for name in alone)
    logged = next(line for line in curves(run, "student") if "loss" in line)
    assert {"supervised", "affinity", "learning_rate"} <= logged.keys()


def test_what_distilling_would_do_is_told_of_the_teacher_too(make_run: MakeRun) -> None:
    """It takes most of the time, where it is not there yet."""
    teacher, student = describe_distillation(make_run())
    assert teacher.startswith("teacher: section_unet with ") and student.startswith("student: section_unet with ")
    (alone,) = describe_distillation(make_run(ALONE, name="alone"))
    assert alone.startswith("student: ")
    trained = train_teacher(make_run(name="other"))
    named, _ = describe_distillation(make_run(f"teacher.checkpoint={trained}", name="named"))
    assert named == f"teacher: {trained} (teacher.checkpoint) is there to be used, nothing to train"


def test_tensorboard_shows_each_term_and_the_weight_it_entered_with(make_run: MakeRun) -> None:
    """Without the weights nobody can tell how much of the loss a term is, least of all while they warm up."""
    run = make_run(*ALL_TERMS, "student.distillation.warm_up=3", "student.distillation.supervised_weight=0.5", "seed=3")
    train_student(run)
    events = EventAccumulator(str(run.network_directory("student") / "logs")).Reload()
    terms = {"supervised", "node", "edge", "affinity", "inter_edge", "inter_affinity"}
    assert {f"{group}/{term}" for group in ("training", "weight") for term in terms} <= set(events.Tags()["scalars"])
    assert [event.value for event in events.Scalars("weight/inter_affinity")] == [1.0, 2.0, 3.0, 4.0]
    for step in range(4):
        value = {name: events.Scalars(name)[step].value for name in events.Tags()["scalars"] if "valid" not in name}
        total = sum(value[f"weight/{term}"] * value[f"training/{term}"] for term in terms)
        assert value["training/loss"] == pytest.approx(total, rel=1e-4)


def test_a_resumed_training_equals_an_undisturbed_one_to_the_last_bit(make_run: MakeRun) -> None:
    """Memory bank, projections of layers, optimiser, generators and curves included."""
    teacher = train_teacher(make_run(name="teacher"))
    named = f"teacher.checkpoint={json.dumps(str(teacher))}"
    resumed_equals_undisturbed(make_run, *STEADY, *ALL_TERMS, named)


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=["killed", "Ctrl-C", "told to end, twice"]
)
def test_a_training_that_is_stopped_anywhere_continues(make_run: MakeRun, tmp_path: Path, number: int) -> None:
    overrides = (ALONE, *STEADY, "student.training.checkpoint_every=4", "student.training.loader_workers=1")
    run = make_run(*overrides, "student.training.iterations=100000", name="stopped")
    config = tmp_path / "config.json"
    config.write_text(json.dumps(dump_config(run.config)))
    command = [sys.executable, str(ROOT / "workflows" / "01_distill.py"), str(config)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    directory = run.network_directory("student")
    while not list(directory.glob("checkpoint_*.pt")) and process.poll() is None:
        time.sleep(0.05)
    if number != signal.SIGKILL:
        os.killpg(process.pid, number)  # as terminals and batch systems do: to all processes
    if number != signal.SIGINT:
        process.send_signal(number)  # a job's script passes on what all have got
    _, errors = process.communicate(timeout=500)
    assert process.returncode == (-number if number == signal.SIGKILL else 130), errors
    assert "Traceback" not in errors, errors
    done = load_checkpoint(latest_checkpoint(directory))["iteration"]
    length = f"student.training.iterations={done + 2}"
    resumed = train_student(make_run(*overrides, length, "student.training.loader_workers=0", name="stopped"))
    undisturbed = train_student(make_run(*overrides, length, "student.training.loader_workers=0", name="whole"))
    assert_equal(weights(resumed), weights(undisturbed))
    assert curves(make_run(name="stopped"), "student") == curves(make_run(name="whole"), "student")


def test_a_finished_training_is_skipped_and_says_so(make_run: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(ALONE)
    with caplog.at_level(logging.INFO):
        path = train_student(run)
        written = path.stat().st_mtime_ns
        summary = caplog.messages[-1]
        assert train_student(run) == path
    assert path.stat().st_mtime_ns == written
    assert str(path) in summary and "02_predict_blockwise.py" in summary
    assert "finished already" in caplog.messages[-1]
    assert read_json(run.summary)["training"]["student"]["iterations"] == 4


def test_a_training_leaves_its_record_for_the_status(make_run: MakeRun) -> None:
    run = make_run(ALONE, "student.training.validate_every=2")
    train_student(run)
    record = read_training_record(run.network_directory("student"))
    assert record is not None and record.ended > 0 and record.error == ""
    assert (record.iteration, record.iterations, record.validated) == (4, 4, 4)
    assert record.validation["voi_sum"] >= 0


def test_a_missing_teacher_is_trained_first_and_says_so(make_run: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run()
    with caplog.at_level(logging.INFO):
        train_student(run)
    assert "no teacher yet" in caplog.messages[0]
    (following,) = [line for line in caplog.messages if "next:" in line]
    assert following.startswith("student: wrote") and "/s)" in following, "the teacher's end is followed by itself"
    assert latest_checkpoint(run.network_directory("teacher")).exists()


def test_a_named_teacher_checkpoint_is_used_instead_of_training_one(make_run: MakeRun) -> None:
    teacher = train_teacher(make_run(name="elsewhere"))
    run = make_run(f"teacher.checkpoint={json.dumps(str(teacher))}")
    train_student(run)
    assert not run.network_directory("teacher").exists()


def test_a_finished_student_needs_no_teacher_any_more(make_run: MakeRun) -> None:
    run = make_run()
    path = train_student(run)
    for checkpoint in run.network_directory("teacher").glob("*.pt"):
        checkpoint.unlink()
    assert train_student(run) == path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("student.network.widths=[4, 10]", "student.network.widths"),
        ("targets.erosion=2", "targets.erosion"),
        ("student.training.learning_rate=0.5", "student.training.learning_rate"),
        ('volumes.train=[{"source": "p", "z_share": [0.0, 0.5]}]', "volumes.train"),
    ],
)
def test_a_changed_config_is_refused_with_the_ways_out(make_run: MakeRun, change: str, message: str) -> None:
    train_student(make_run(ALONE))
    with pytest.raises(UserError, match=rf"{message}.*another run_directory"):
        train_student(make_run(ALONE, change))


def test_another_teacher_is_not_taken_for_the_one_before(make_run: MakeRun) -> None:
    train_student(make_run())
    other = train_teacher(make_run("seed=7", name="other"))
    with pytest.raises(UserError, match=r"teacher.checkpoint: is another file"):
        train_student(make_run(f"teacher.checkpoint={json.dumps(str(other))}"))


def test_only_the_newest_checkpoints_and_the_best_are_kept(make_run: MakeRun) -> None:
    schedule = ("iterations=6", "checkpoint_every=1", "keep_checkpoints=2", "validate_every=2")
    run = make_run(ALONE, *(f"student.training.{setting}" for setting in schedule))
    train_student(run)
    names = sorted(path.name for path in run.network_directory("student").glob("*.pt"))
    assert names == ["best.pt", "checkpoint_0000005.pt", "checkpoint_0000006.pt"]
    scores = [line for line in curves(run, "student") if "validation" in line]
    assert [line["iteration"] for line in scores] == [2, 4, 6]
    assert {"loss", "voi_split", "voi_merge", "voi_sum", "threshold"} == scores[0]["validation"].keys()
    best = min(scores, key=lambda line: line["validation"]["voi_sum"])["iteration"]
    assert load_network(run.network_directory("student") / "best.pt")[1]["iteration"] == best


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("volumes.train=[]",), "volumes.train: training needs"),
        (("student.training.patch_shape=[5, 50, 49]",), r"student.training.patch_shape: .*\(5, 50, 50\)"),
        (("student.training.patch_shape=[5, 128, 128]",), r"volumes.train.0: .*\(3, 128, 128\)"),
        (("student.training.patch_shape=[2, 48, 48]",), "student.training.patch_shape"),
        (("student.training.device=cuda:9",), "student.training.device: .*not available"),
        (("student.training.device=toaster",), "student.training.device: .*no device"),
        (("augment.transpose_all=true",), "augment.transpose_all: .*isotropic"),
        (('student.distillation={"layers": ["decoder_9"]}',), "student.distillation.layers: .*decoder_0"),
        (('teacher.checkpoint="nowhere.pt"', "student.distillation={}"), "teacher.checkpoint: .*nowhere.pt"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(
    make_run: MakeRun, overrides: tuple[str, ...], message: str
) -> None:
    teacher = train_teacher(make_run("teacher.training.iterations=1", name="elsewhere"))
    named = f"teacher.checkpoint={json.dumps(str(teacher))}"
    distilled = any("distillation" in override for override in overrides)
    run = make_run(named, *(() if distilled else (ALONE,)), *overrides)
    with pytest.raises(UserError, match=message):
        train_student(run)
    assert not list(run.directory.glob("student/checkpoint_*"))


def test_a_source_without_labels_cannot_train(make_run: MakeRun) -> None:
    run = make_run(ALONE)
    (run.volume / "labels").file.rename(run.directory / "moved")
    with pytest.raises(UserError, match=r"volumes.train.0: .*no labels"):
        train_student(run)


def test_a_teacher_of_another_architecture_is_refused(make_run: MakeRun) -> None:
    teacher = train_teacher(make_run("teacher.network.widths=[4, 10]", name="elsewhere"))
    run = make_run(f"teacher.checkpoint={json.dumps(str(teacher))}")
    with pytest.raises(UserError, match=r"another network.*widths"):
        train_student(run)


def test_a_checkpoint_that_cannot_be_written_leaves_the_older_ones(make_run: MakeRun) -> None:
    run = make_run(ALONE, *STEADY)
    path = train_student(run)
    before = path.read_bytes()
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cannot be written: File too large"):
            train_student(make_run(ALONE, *STEADY, "student.training.iterations=6"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert {found.name for found in path.parent.iterdir() if ".pt" in found.name} == {"best.pt", path.name}


def test_a_loss_that_explodes_stops_with_the_cure(make_run: MakeRun) -> None:
    run = make_run(
        ALONE,
        "student.training.learning_rate=1e30",
        "student.training.iterations=20",
        "student.training.gradient_clip=null",
    )
    with pytest.raises(UserError, match=r"student.training.learning_rate: .*lower"):
        train_student(run)


def test_an_optimiser_that_has_diverged_is_not_continued(make_run: MakeRun) -> None:
    """Its weights may be numbers still; the next step would make them NaN."""
    train_student(make_run(ALONE, "student.training.iterations=2"))
    run = make_run(ALONE, "student.training.iterations=3")
    path = latest_checkpoint(run.network_directory("student"))
    document = load_checkpoint(path)
    document["training"]["optimizer"]["state"][0]["exp_avg"].fill_(float("inf"))
    write_torch_file(path, document)
    with pytest.raises(UserError, match=r"state\.0\.exp_avg holds NaN or infinite values; the optimizer has diverged"):
        train_student(run)


def test_images_can_be_trained_section_by_section(make_run: MakeRun) -> None:
    network = {"name": "residual_unet", "dimensions": 2, "widths": [4, 6]}
    run = make_run(
        f"student.network={json.dumps(network)}",
        "student.training.patch_shape=[2, 32, 32]",
        'student.distillation={"layers": ["decoder_0"]}',
        "student.training.validate_every=4",
        f"teacher.network={json.dumps({**network, 'widths': [4, 8]})}",
        "teacher.training.patch_shape=[2, 32, 32]",
    )
    train_student(run)
    assert any("validation" in line for line in curves(run, "student"))


def test_the_best_validation_of_other_voxels_does_not_count(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """A perfect score on what is easy would keep best.pt for ever."""
    sums = iter((0.1, 2.0, 3.0))
    monkeypatch.setattr(
        loop, "validate", lambda *_, **__: {"voi_split": 0.0, "voi_merge": 0.0, "voi_sum": next(sums), "threshold": 0.5}
    )
    every = (ALONE, *STEADY, "student.training.validate_every=2")

    def best(*overrides: str) -> int:
        run = make_run(*every, *overrides, name="same")
        train_student(run)
        return int(load_checkpoint(run.network_directory("student") / "best.pt")["iteration"])

    assert best("student.training.iterations=2", "evaluate.ignore=[7]") == 2
    assert best("student.training.iterations=4", "evaluate.ignore=[]") == 4
    assert best("student.training.iterations=6", "evaluate.ignore=[]") == 4
