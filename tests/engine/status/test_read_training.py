"""The status says of a training what is so: while it goes on, after it failed, was stopped, was killed or is done."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from status_runs import NO_PROCESS, look
from voronoi_run import NETWORK, make_run

from pipeline.checkpoints import checkpoint_path
from pipeline.command_names import goes_on_by_itself
from pipeline.engine.status import StageState, TerminalStyle, render_text, status_document, write_page
from pipeline.engine.status.model import TrainingStatus
from pipeline.engine.tracking import training_record
from pipeline.engine.tracking.driver_lock import only_driver
from pipeline.engine.tracking.training_record import TrainingNotes, read_training_record
from pipeline.errors import UserError
from pipeline.networks import build_network, save_checkpoint
from pipeline.run import Run
from pipeline.stages.importing import ensure_imported
from pipeline.volumes import delete_volume

ITERATIONS = 100


def untrained(directory: Path) -> Run:
    """A run that has to train its student."""
    volumes = {
        "sources": {"a": {"kind": "phantom", "shape": [9, 42, 38]}},
        "segment": {"source": "a", "begin": [1, 2, 3]},
        "train": [{"source": "a", "end": [4, 20, 20]}],
    }
    student = {"training": {"iterations": ITERATIONS}}
    run = make_run(directory, volumes=volumes, student=student)
    checkpoint_path(run.network_directory("student"), 1).unlink()
    return run


def student_of(run: Run) -> TrainingStatus:
    (training,) = look(run).trainings
    return training


def some_steps(run: Run, steps: int = 20) -> TrainingNotes:
    """As a training takes them, with a validation."""
    notes = TrainingNotes(run.network_directory("student"), 0, ITERATIONS)
    for _ in range(steps):
        notes.advance(0.5)
    notes.validation(steps, {"voi_sum": 1.25, "threshold": float("inf")})
    return notes


def test_a_training_that_is_needed_is_told_and_comes_first(tmp_path: Path) -> None:
    status = look(untrained(tmp_path))
    assert [(each.name, each.state, each.iterations) for each in status.trainings] == [
        ("student", StageState.NOT_BEGUN, ITERATIONS)
    ]
    assert status.command == "python workflows/01_distill.py config.json"
    assert "not begun" in render_text(status, TerminalStyle())


def test_a_training_comes_first_where_its_data_are_imported(tmp_path: Path) -> None:
    run = untrained(tmp_path)
    delete_volume(run.volume, "raw")
    ensure_imported(run, "a")
    assert look(run).stages[0].script == "import_data.py"
    some_steps(run).end(KeyboardInterrupt())
    assert look(run).command == f"python workflows/01_distill.py {run.directory / 'config.json'}"


def test_a_training_that_is_a_part_of_all_steps_goes_on_with_these(tmp_path: Path) -> None:
    run = untrained(tmp_path)
    with goes_on_by_itself(), only_driver(run):  # as run_all.py does
        some_steps(run).end(KeyboardInterrupt())
    assert look(run).command == "python workflows/run_all.py config.json"


def test_a_run_that_trains_nothing_has_no_such_row(tmp_path: Path) -> None:
    assert look(make_run(tmp_path)).trainings == ()


def test_a_training_under_way_says_how_far_it_is_how_fast_and_how_good(tmp_path: Path) -> None:
    run = untrained(tmp_path)
    with only_driver(run):
        some_steps(run)
        status = look(run)
    (student,) = status.trainings
    assert (student.state, student.done, student.validated) == (StageState.RUNNING, 20, 20)
    assert student.per_second is not None and student.seconds_left is not None
    assert status.goes_on and not status.is_over and status.command == ""
    text = render_text(status, TerminalStyle())
    assert "20 of 100 iterations" in text and "iterations/s" in text and "done in" in text
    assert "validation at 20: voi_sum 1.250" in text and "threshold" not in text
    document = json.loads(json.dumps(status_document(status)))
    assert document["trainings"][0]["fraction"] == 0.2 and document["trainings"][0]["state"] == "running"
    write_page(tmp_path / "status.html", status, 10.0)
    page = (tmp_path / "status.html").read_text()
    assert "20 of 100 iterations" in page and 'aria-label="student"' in page


def test_what_ended_a_training_is_told(tmp_path: Path) -> None:
    run = untrained(tmp_path)
    some_steps(run).end(UserError("the loss is nan", "student.training.learning_rate"))
    failed = student_of(run)
    assert failed.state is StageState.FAILED and failed.note == "student.training.learning_rate: the loss is nan"
    assert failed.done == 0, "there is no checkpoint to continue from"
    some_steps(run).end(KeyboardInterrupt())
    assert student_of(run).state is StageState.STOPPED
    save_checkpoint(
        checkpoint_path(run.network_directory("student"), ITERATIONS), build_network(NETWORK), ITERATIONS, {}
    )
    some_steps(run, ITERATIONS).end(None)
    done = student_of(run)
    assert (done.state, done.done) == (StageState.DONE, ITERATIONS)
    assert look(run).command.split()[1] == "workflows/02_predict_blockwise.py"


def test_a_training_that_was_killed_is_not_said_to_go_on(tmp_path: Path) -> None:
    """Even if another process has the run by now."""
    run = untrained(tmp_path)
    notes = some_steps(run)
    assert student_of(run).state is StageState.STOPPED
    notes._record = replace(notes._record, process=NO_PROCESS)
    notes._write()
    with only_driver(run):
        assert student_of(run).state is StageState.STOPPED


def test_a_damaged_record_is_no_record(tmp_path: Path) -> None:
    run = untrained(tmp_path)
    some_steps(run)
    path = training_record._path(run.network_directory("student"))
    path.write_text('{"iteration": -1}')
    assert read_training_record(path.parent) is None
    assert student_of(run).state is StageState.NOT_BEGUN
