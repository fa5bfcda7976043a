"""A run directory of another user can be looked at: nothing of it is run, and nothing is written into it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stranger import NOBODY
from toy_tasks import make_run

from pipeline.commands import evaluate, status, view
from pipeline.run import Run, write_json
from pipeline.viewer import open_viewer
from pipeline.volumes import create_volume

two_users = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
ROOT = Path(__file__).parents[2]

AS_ANOTHER = """
import sys
sys.path[:0] = {path!r}
from pipeline.commands import status, view
from stranger import become_somebody_else

def run(main, *arguments):
    sys.argv = ["script.py", *arguments]
    try:
        main()
    except SystemExit as exit_:
        return exit_.code

def look(target):
    report = target + "/report.html"
    views = [run(view.main, config, *how) for how in (["--report-to", report], ["--dry-run"])]
    return [*views, run(status.main, config)]

config = sys.argv[1]
own, others = sys.argv[2:]
look(own)  # everything that is imported late, which another user may not be able to read
become_somebody_else()
sys.exit(look(others) != [0, 0, 2])
"""


class Trap:
    """Whoever unpickles it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def strangers_run(directory: Path) -> Run:
    """A run with an affinity array and a segmentation, whose small files are pickles that leave a mark."""
    run = make_run(directory / "run")
    shape = tuple(int(extent) for extent in np.array([8, 8, 10]))
    for name in ("fragments", "segmentation/0.50"):
        made = create_volume(run.volume, name, shape, "uint64", voxel_size=(40, 8, 8), chunks=(4, 4, 4))
        made.write(made.box, np.random.default_rng(1).integers(1, 9, shape, dtype=np.uint64))
    run.save_config()
    write_json(run.summary, {"stages": {}, "scores": {}})
    trap = pickle.dumps(Trap(directory / "harm"))
    for name in (
        "tracking/driver.json",
        "tracking/predict.json",
        "tracking/lock",
        "luts/lut_0.50.npy",
        "student/best.pt",
    ):
        (run.directory / name).parent.mkdir(parents=True, exist_ok=True)
        (run.directory / name).write_bytes(trap)
    (run.directory / "student" / "checkpoint_0000001.pt").write_bytes(trap)
    for path in (run.directory, *run.directory.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    return run


def state_of(directory: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in directory.rglob("*")}


@two_users
def test_status_report_viewer_and_scores_of_arrays_only_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = strangers_run(tmp_path)
    before, config = state_of(run.directory), str(run.directory / "config.json")
    arrays = [str(run.volume / name / "s0") for name in ("segmentation/0.50", "fragments")]
    looks: list[tuple[Any, list[str]]] = [
        (status.main, [config]),
        (view.main, [config, "--dry-run"]),
        (view.main, [config, "--report-to", str(tmp_path / "report.html")]),
        (evaluate.main, ["--prediction", arrays[0], "--labels", arrays[1]]),
    ]
    for main, arguments in looks:
        monkeypatch.setattr(sys, "argv", ["script.py", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        assert exit_.value.code == 0, capsys.readouterr().err
    open_viewer(run)
    assert "<html" in (tmp_path / "report.html").read_text()
    assert state_of(run.directory) == before
    assert not (tmp_path / "harm").exists()


@two_users
def test_who_may_not_enter_tracking_sees_the_rest(open_place: Path) -> None:
    run = strangers_run(open_place)
    for path in (run.directory, *run.directory.rglob("*")):
        os.chown(path, 0, 0)
    run.tracking.chmod(0o700)
    places = [open_place / "mine", open_place / "others"]
    for place in places:
        place.mkdir()
        place.chmod(0o777)
    script = AS_ANOTHER.format(path=[str(ROOT), str(ROOT / "tests" / "helpers")])
    command = [sys.executable, "-c", script, str(run.directory / "config.json"), *map(str, places)]
    done = subprocess.run(command, cwd=open_place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tracking" in done.stderr.splitlines()[-1]
    assert (places[1] / "report.html").stat().st_uid == NOBODY
