"""What a worker is told: JSON for its owner's eyes, from which it makes the very task that the driver has."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from slurm_cluster import SlurmCluster
from toy_tasks import Doubled, make_run

from pipeline.checkpoints import latest_checkpoint
from pipeline.engine.tracking.worker_spec import WorkerSpec
from pipeline.errors import UserError
from pipeline.rag import password_in_environment
from pipeline.stages.predict import PredictTask
from pipeline.stages.segment import SegmentTask
from pipeline.volumes import open_volume

HELPERS = Path(__file__).parents[2] / "helpers"


def spec_of(task: Any, folder: Path) -> WorkerSpec:
    """The spec of a task, as a worker reads it."""
    WorkerSpec.of_task(task, "127.0.0.1", 1, "secret").save(folder / "worker.json")
    return WorkerSpec.load(folder / "worker.json")


def test_a_task_comes_back_with_its_parameters_and_its_key(tmp_path: Path) -> None:
    run = make_run(tmp_path, segment={"minimum_size": 3})
    for task in (Doubled(run, 5), SegmentTask(run, 0.1 + 0.2)):
        task.take_key("abc")
        made = spec_of(task, tmp_path).task
        assert made == task
        assert made.run.config == run.config
        assert made.folder == task.folder


def test_the_file_is_private_and_holds_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, rag={"url": "postgresql://me:s3cr3t@host/em"})
    spec_of(Doubled(run), tmp_path)
    file = tmp_path / "worker.json"
    assert file.stat().st_mode & 0o077 == 0
    assert "s3cr3t" not in file.read_text()
    assert json.loads(file.read_text())["name"] == "Doubled"
    monkeypatch.delenv("EMDISTILL_RAG_PASSWORD", raising=False)
    with password_in_environment(run.config.rag.url):
        code = "import os; print(os.environ['EMDISTILL_RAG_PASSWORD'])"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "s3cr3t"


def test_workers_keep_the_checkpoint_that_their_driver_chose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path)
    folder = run.network_directory("student")
    folder.mkdir()
    (folder / "checkpoint_0000001.pt").write_text("the driver's")
    task = PredictTask(run)
    spec = spec_of(task, tmp_path)
    (folder / "checkpoint_0000002.pt").write_text("of a training that goes on")
    assert latest_checkpoint(folder).name == "checkpoint_0000002.pt"
    made = spec.task
    assert isinstance(made, PredictTask)
    assert made.checkpoint == task.checkpoint
    assert made.key == task.key


def test_a_stage_that_workers_cannot_make_is_refused_in_one_line(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Hidden(Doubled):
        """Where no import finds it."""

    run = make_run(tmp_path)
    with pytest.raises(UserError, match="the stage Hidden must be defined at the top of a module"):
        spec_of(Hidden(run), tmp_path)
    with pytest.raises(UserError, match="factor of the stage Doubled must be text, a number, or a tuple of these"):
        spec_of(Doubled(run, np.int64(2)), tmp_path)  # type: ignore[arg-type]


def test_what_is_no_stage_is_not_made(tmp_path: Path) -> None:
    spec_of(Doubled(make_run(tmp_path)), tmp_path)
    document = json.loads((tmp_path / "worker.json").read_text())
    document.update(module="subprocess", name="Popen", parameters={"args": "touch harm"})
    (tmp_path / "worker.json").write_text(json.dumps(document))
    with pytest.raises(TypeError, match="is no stage"):
        _ = WorkerSpec.load(tmp_path / "worker.json").task


SCRIPT = """
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.append({helpers!r})
from toy_tasks import Doubled, make_run

from pipeline.engine.chain import run_stages


@dataclass(frozen=True)
class Shifted(Doubled):
    stage = "shifted"
    version = 1
    by: int = 1

    @property
    def dataset(self):
        return "shifted"

    def settings(self):
        return {{"by": self.by}}

    @contextmanager
    def process(self):
        raw, output = self.run.open_raw("toy"), self.open_output()
        yield lambda block: output.write(block, raw.read(self.grid.to_source(block.box)).astype("uint64") + self.by)


if __name__ == "__main__":
    run = make_run(Path(sys.argv[1]), cluster={{"executor": sys.argv[2], "slurm": {{"poll": 0.5}}}})
    sys.exit(not run_stages(run, [Shifted(run, by=7)], overwrite=False))
"""


def assert_script_works(folder: Path, executor: str) -> None:
    """A script of the user's own that is called like a module of this program."""
    script = folder / "pipeline" / "config.py"
    script.parent.mkdir()
    script.write_text(SCRIPT.format(helpers=str(HELPERS)))
    command = [sys.executable, str(script), str(folder / "run"), executor]
    done = subprocess.run(command, cwd=script.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shifted = open_volume(folder / "run" / "volume.zarr", "shifted")
    raw = open_volume(folder / "run" / "volume.zarr", "raw")
    assert shifted.read(shifted.box).tolist() == (raw.read(raw.box)[1:, 2:, 1:].astype(int) + 7).tolist()


def test_a_stage_of_a_users_script_runs_in_worker_processes(tmp_path: Path) -> None:
    assert_script_works(tmp_path, "local")


def test_a_stage_of_a_users_script_runs_in_jobs(slurm: SlurmCluster, tmp_path: Path) -> None:
    assert_script_works(tmp_path, "slurm")
