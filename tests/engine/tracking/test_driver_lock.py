"""One driver at a time; whoever looks whether there is one disturbs nobody."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from toy_tasks import make_run

from pipeline.engine.tracking import driver_lock as lock
from pipeline.engine.tracking.driver_lock import lock_state, only_driver
from pipeline.engine.tracking.mounts import shares_locks
from pipeline.errors import UserError
from pipeline.run import Run

MOUNTS = """\
/dev/vda / ext4 rw,relatime 0 0
server:/data /data nfs4 rw,relatime,vers=4.2,hard,local_lock=none 0 0
server:/old /old nfs rw,vers=3,nolock,local_lock=all 0 0
/dev/vdb /data/scratch\\040disk xfs rw 0 0
mgs:/fs /lustre lustre rw,flock,lazystatfs 0 0
mgs:/fs2 /lustre2 lustre rw,localflock 0 0
"""


def test_a_driver_at_work_is_seen_and_one_that_ended_is_not(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert lock_state(run).held is False
    assert not run.tracking.exists(), "a look must not write"
    with only_driver(run):
        state = lock_state(run)
        assert (state.held, state.process) == (True, os.getpid())
    ended = lock_state(run)
    assert (ended.held, ended.process) == (False, os.getpid())


def test_a_look_at_the_lock_does_not_keep_a_driver_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    with only_driver(run):
        pass
    looking = os.open(run.tracking / "lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    pauses: list[float] = []

    def look_ends(pause: float) -> None:
        pauses.append(pause)
        if pause:
            fcntl.flock(looking, fcntl.LOCK_UN)

    monkeypatch.setattr("time.sleep", look_ends)
    with only_driver(run):
        assert lock_state(run).held
    assert len(pauses) == 2, "the driver came while somebody looked"
    os.close(looking)


def take(run: Run) -> None:
    """Take the lock, and give it back."""
    with only_driver(run):
        pass


def take_in_another_thread(run: Run) -> None:
    """The same as somebody else, who just happens to live in this process."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(take, run).result()


def test_a_second_driver_is_still_refused_after_its_further_tries_and_told_who_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    monkeypatch.setattr("sys.argv", ["workflows/01_distill.py", "--set", "rag.url=postgresql://me:secret@host/db"])
    with only_driver(run), pytest.raises(UserError) as refused:
        take_in_another_thread(run)
    told = str(refused.value)
    assert f"process {os.getpid()} on {socket.gethostname()} (01_distill.py, since 2" in told
    assert f", {psutil.Process().username()}) works on" in told
    assert "works on this run directory; wait for it, or stop it first" in told
    assert "secret" not in told + (run.tracking / "lock").read_text()


def test_steps_of_one_command_nest_and_the_outermost_gives_the_lock_back(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with only_driver(run):
        take(run)
        with pytest.raises(UserError, match="works on this run directory"):
            take_in_another_thread(run)
    take_in_another_thread(run)


def test_a_lock_whose_folder_was_deleted_under_it_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path)
    taken = lock._take
    deleted: list[bool] = []

    def take_as_the_folder_goes(file: int) -> bool:
        if not deleted:
            deleted.append(True)
            shutil.rmtree(run.tracking)
        return taken(file)

    monkeypatch.setattr(lock, "_take", take_as_the_folder_goes)
    with only_driver(run):
        assert lock_state(run).held, "others must see it"


def test_a_free_lock_of_another_machine_says_nothing_where_locks_stay_on_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    run.tracking.mkdir(parents=True)
    (run.tracking / "lock").write_text("process 12 on elsewhere")
    monkeypatch.setattr(lock, "shares_locks", lambda path: False)
    state = lock_state(run)
    assert (state.held, state.holder) == (None, "process 12 on elsewhere")
    monkeypatch.setattr(lock, "shares_locks", lambda path: True)
    assert lock_state(run).held is False


@pytest.mark.parametrize(
    ("path", "shared"),
    [
        ("/home/me/run", False),
        ("/data/run", True),
        ("/data/scratch disk/run", False),
        ("/database/run", False),
        ("/old/run", False),
        ("/lustre/run", True),
        ("/lustre2/run", False),
    ],
)
def test_only_file_systems_that_share_their_locks_are_believed(
    path: str, shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "mounts").write_text(MOUNTS)
    (tmp_path / "filesystems").write_text("\text4\n")
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    assert shares_locks(Path(path)) is shared


def test_without_a_list_of_mounts_nothing_is_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path / "nothing"))
    assert shares_locks(Path("/data/run")) is False


@pytest.mark.skipif(not lock.LOCKS.exists(), reason="only Linux lists its locks")
def test_whoever_holds_the_lock_without_being_a_driver_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with only_driver(run):
        assert (run.tracking / "lock").stat().st_mode & 0o777 == 0o600
    script = "import fcntl, sys; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX)\n"
    script += "print('locked', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(run.tracking / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        user = psutil.Process(other.pid).username()
        with pytest.raises(UserError, match=rf"process {other.pid} on .* \(of {user}\) works on"), only_driver(run):
            pass
        other.communicate()
