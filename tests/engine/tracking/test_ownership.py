"""Other users of the machine: they see nothing of `tracking/`, and nothing of theirs is believed or run."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from stranger import NOBODY
from toy_tasks import Doubled, make_run, wait_until

from pipeline.commands.status import main as status_main
from pipeline.engine.chain import run_stages
from pipeline.engine.executors.add_workers import add_workers
from pipeline.engine.tracking.driver_lock import only_driver
from pipeline.engine.tracking.driver_record import DriverRecord, TaskRecord
from pipeline.engine.tracking.worker_spec import WorkerSpec, worker_spec_path
from pipeline.errors import UserError
from pipeline.run import Run

two_users = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
ROOT = Path(__file__).parents[3]
LOOK = (
    "import os, sys\nos.setgroups([]); os.setgid({user}); os.setuid({user})\n"
    "for place in sys.argv[1:]:\n"
    "    try:\n        os.listdir(place) if os.path.isdir(place) else open(place).read()\n        print(place)\n"
    "    except PermissionError:\n        pass\n"
)
HARM = "from pathlib import Path\nPath({mark!r}).touch()\n"


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def give_to_stranger(run: Run) -> None:
    """The whole run directory belongs to somebody else, who lets everybody read it."""
    for path in (run.directory, *run.directory.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
        path.chmod(0o755 if path.is_dir() else 0o644)


def run_with_a_trap(directory: Path, host: str) -> tuple[Run, Path]:
    """A run whose driver seems to be at work, and whose workers are told to run a script."""
    run = make_run(directory, cluster={"executor": "local"})
    assert run_stages(run, [Doubled(run)], False)
    mark, script = directory.parent / "harm", directory / "trap.py"
    script.write_text(HARM.format(mark=str(mark)))
    task = Doubled(run)
    spec = WorkerSpec.of_task(task, "127.0.0.1", 1, "secret")
    document = {**vars(spec), "script": str(script), "module": "__worker_main__", "name": "Trap"}
    worker_spec_path(task).write_text(json.dumps(document))
    folder = str(task.folder.relative_to(run.directory))
    context = f"hostname=127.0.0.1:port=1:task_id={task.name}:worker_id=0:logdir="
    DriverRecord(host, 1, None, "local", 1.0, 0.0, (TaskRecord(task.name, folder, 12, 0, context),)).save(run)
    (run.tracking / "lock").write_text(f"process 1 on {host}\n")
    return run, mark


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022])
def test_tracking_is_closed_to_others_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    with umask(mask):
        run = make_run(tmp_path, cluster={"executor": "local", "workers": 1})
        (tmp_path / "raise").write_text("3")
        assert not run_stages(run, [Doubled(run)], False)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (run.tracking, *run.tracking.rglob("*"))}
    assert len(modes) > 10
    wrong = [str(path) for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)]
    assert not wrong


@two_users
def test_another_user_cannot_read_tracking_while_a_driver_works_nor_lock_it(open_place: Path) -> None:
    with umask(0o000):
        run = make_run(open_place / "run", cluster={"executor": "local", "workers": 1})
        (run.directory / "wait").write_text("3")
        work = "import sys; from toy_tasks import Doubled, Run; from pipeline.config import load_config\n"
        work += "from pipeline.engine.chain import run_stages\n"
        work += "if __name__ == '__main__': run = Run(load_config(sys.argv[1])); run_stages(run, [Doubled(run)], False)"
        run.save_config()
        command = [sys.executable, "-c", work, str(run.directory / "config.json")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "helpers")))}
        driver = subprocess.Popen(command, env=environment)
    wait_until((run.directory / "waiting").exists)
    task = Doubled(run)
    places = [run.directory, run.tracking, run.tracking / "lock", run.tracking / "driver.json", worker_spec_path(task)]
    look = [sys.executable, "-c", LOOK.format(user=NOBODY), *map(str, places)]
    seen = subprocess.run(look, capture_output=True, text=True, check=True).stdout.split()
    (run.directory / "go").touch()
    assert driver.wait(120) == 0
    assert seen == [str(run.directory)]


@two_users
@pytest.mark.parametrize("dry_run", [True, False])
def test_nothing_of_a_strangers_run_is_run_by_who_adds_workers(tmp_path: Path, dry_run: bool) -> None:
    run, mark = run_with_a_trap(tmp_path / "run", "elsewhere")
    give_to_stranger(run)
    with pytest.raises(UserError, match=r"tracking: belongs to the user \w+, and this is run by root: nothing of it"):
        add_workers(run, 1, dry_run=dry_run)
    assert not mark.exists()


def test_no_workers_cannot_be_added(tmp_path: Path) -> None:
    run, _ = run_with_a_trap(tmp_path / "run", "elsewhere")
    with pytest.raises(UserError, match="0 workers cannot be added; 1 or more"):
        add_workers(run, 0)


def test_what_others_could_have_written_is_not_run_by_who_adds_workers(tmp_path: Path) -> None:
    run, mark = run_with_a_trap(tmp_path / "run", "elsewhere")
    worker_spec_path(Doubled(run)).chmod(0o666)
    with pytest.raises(UserError, match=r"worker.json: is open to other users \(mode 666\)"):
        add_workers(run, 1, dry_run=True)
    worker_spec_path(Doubled(run)).chmod(0o600)
    run.tracking.chmod(0o777)
    with pytest.raises(UserError, match=r"tracking: is open to other users \(mode 777\)"):
        add_workers(run, 1, dry_run=True)
    assert not mark.exists()


@two_users
def test_a_worker_does_not_obey_a_strangers_order(tmp_path: Path) -> None:
    run, mark = run_with_a_trap(tmp_path / "run", "elsewhere")
    spec = worker_spec_path(Doubled(run))
    os.chown(spec, NOBODY, NOBODY)
    command = [sys.executable, "-P", "-m", "pipeline.engine.workers.job", str(spec)]
    environment = {**os.environ, "EMDISTILL_WORKER": "0", "PYTHONPATH": str(ROOT)}
    worker = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert worker.returncode == 1
    assert worker.stderr.startswith(f"{spec}: belongs to the user")
    assert worker.stderr.count("\n") == 1
    assert not mark.exists()


@two_users
def test_stages_do_not_go_on_with_what_a_stranger_left(tmp_path: Path) -> None:
    run, _ = run_with_a_trap(tmp_path / "run", "elsewhere")
    os.chown(Doubled(run).records.path, NOBODY, NOBODY)
    with pytest.raises(UserError, match="records: belongs to the user"), only_driver(run):
        pass
    give_to_stranger(run)
    with pytest.raises(UserError, match="tracking: belongs to the user"):
        run_stages(run, [Doubled(run)], False)


@two_users
def test_the_status_of_a_strangers_run_is_told_without_running_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, mark = run_with_a_trap(tmp_path / "run", "elsewhere")
    run.save_config()
    give_to_stranger(run)
    before = {path: path.stat().st_mtime_ns for path in run.directory.rglob("*")}
    monkeypatch.setattr(sys, "argv", ["status.py", str(run.directory / "config.json")])
    with pytest.raises(SystemExit) as exit_:
        status_main()
    assert exit_.value.code == 0
    assert "fragments" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in run.directory.rglob("*")}
    assert not mark.exists()


def test_a_copy_of_a_strangers_run_without_its_tracking_goes_on(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert run_stages(run, [Doubled(run)], False)
    shutil.copytree(run.directory, tmp_path / "copy", ignore=shutil.ignore_patterns("tracking"))
    copied = Run(run.config.model_copy(update={"run_directory": str(tmp_path / "copy")}))
    assert run_stages(copied, [Doubled(copied)], False)
