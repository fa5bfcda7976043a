"""What is asked of SLURM, word by word, where a test cluster cannot provoke it; and what its answers are taken for."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from pipeline.config import ClusterConfig, JobConfig
from pipeline.errors import UserError
from pipeline.slurm import (
    ControllerAway,
    JobState,
    Rejected,
    cancel,
    job_in_words,
    job_options,
    job_script,
    job_states,
    jobs_named,
    submit,
)

FAKE = """#!{python}
import json, os, sys
script = "" if sys.stdin.isatty() else sys.stdin.read()
call = {{"arguments": sys.argv[1:], "script": script, "environment": dict(os.environ)}}
open({record!r}, "w").write(json.dumps(call))
sys.stdout.write({out!r})
sys.stderr.write({err!r})
sys.exit({status})
"""


class FakeCommand:
    """A command of SLURM that records how it is called, and answers as told."""

    def __init__(self, folder: Path, name: str, out: str = "", err: str = "", status: int = 0) -> None:
        self._record = folder / f"{name}.json"
        program = folder / name
        program.write_text(
            FAKE.format(python=sys.executable, record=str(self._record), out=out, err=err, status=status)
        )
        program.chmod(program.stat().st_mode | stat.S_IEXEC)

    @property
    def call(self) -> dict[str, object]:
        """The last call."""
        return dict(json.loads(self._record.read_text()))


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is first on the PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


EVERYTHING = JobConfig(
    partition="gpu",
    account="lab",
    qos="high",
    time="1-12",
    memory="24G",
    cpus=6,
    gpus="a100:2",
    constraint="rome&ib",
    extra=("--exclude=node07", "--nice=100"),
    setup=("module load cuda/12.4", "source venv/bin/activate"),
)


def test_what_a_job_asks_for_is_told_whole_with_what_is_left_to_the_cluster() -> None:
    assert job_in_words(EVERYTHING, threads=2) == (
        "partition gpu, account lab, qos high, constraint rome&ib, GPUs a100:2, 6 CPUs, memory 24G, time 1-12,"
        " --exclude=node07, --nice=100"
    )
    assert job_in_words(JobConfig(), threads=1) == (
        "1 CPU, partition as the cluster's default, memory as the cluster's default, time as the cluster's default"
    )


def test_the_whole_command_line_and_script_of_a_worker(commands: Path) -> None:
    sbatch = FakeCommand(commands, "sbatch", out="4711;cluster\n")
    options = job_options(EVERYTHING, name="run.predict.w3", log=Path("/logs/w3_%j.log"), threads=2, grace=90)
    script = job_script(EVERYTHING.setup or (), {"WORKER": "3", "CONTEXT": "a b'c"}, ["/usr/bin/python", "-m", "job"])
    assert submit(options, script) == "4711"
    assert sbatch.call["arguments"] == [
        "--parsable",
        "--job-name=run.predict.w3",
        "--output=/logs/w3_%j.log",
        "--open-mode=append",
        "--ntasks=1",
        "--no-requeue",
        "--signal=B:TERM@90",
        "--partition=gpu",
        "--account=lab",
        "--qos=high",
        "--time=1-12",
        "--mem=24G",
        "--cpus-per-task=6",
        "--gpus=a100:2",
        "--constraint=rome&ib",
        "--exclude=node07",
        "--nice=100",
    ]
    assert sbatch.call["script"] == (
        "#!/bin/bash\nset -e\nmodule load cuda/12.4\nsource venv/bin/activate\n"
        "export WORKER=3\nexport CONTEXT='a b'\"'\"'c'\nexec /usr/bin/python -m job\n"
    )


def test_what_is_not_set_is_not_asked_for() -> None:
    options = job_options(JobConfig(), name="n", log=Path("l"), threads=2, grace=60)
    assert options[6:] == ["--cpus-per-task=2"]


def test_a_stage_asks_for_the_same_but_for_its_own_settings() -> None:
    cluster = ClusterConfig.model_validate_json(
        """{"executor": "slurm", "workers": 64, "slurm": {"partition": "cpu", "time": "60", "setup": ["module load a"],
        "stages": {"predict": {"partition": "gpu", "gpus": 1, "workers": 4}}}}"""
    )
    predict = cluster.slurm.job("predict")
    assert (predict.partition, predict.gpus, predict.time, predict.setup) == ("gpu", 1, "60", ("module load a",))
    assert (cluster.slurm.job("rag").partition, cluster.slurm.job("rag").gpus) == ("cpu", None)
    assert (cluster.workers_of("predict"), cluster.workers_of("rag")) == (4, 64)


def test_jobs_submitted_from_a_job_inherit_none_of_its_limits(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sbatch = FakeCommand(commands, "sbatch", out="1\n")
    for name, value in {
        "SLURM_MEM_PER_NODE": "100",
        "SLURM_JOB_ID": "7",
        "SLURM_CONF": "/c",
        "PGPASSWORD": "p",
    }.items():
        monkeypatch.setenv(name, value)
    submit([], "")
    environment = sbatch.call["environment"]
    assert isinstance(environment, dict)
    assert "SLURM_MEM_PER_NODE" not in environment and "SLURM_JOB_ID" not in environment
    assert environment["SLURM_CONF"] == "/c" and environment["PGPASSWORD"] == "p"


REFUSED = "Batch job submission failed: "


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (f"{REFUSED}Unable to contact slurm controller (connect failure)", ControllerAway),
        (f"{REFUSED}Socket timed out on send/recv operation", ControllerAway),
        (f"{REFUSED}Invalid account or account/partition combination specified", Rejected),
        (f"QOSMaxSubmitJobPerUserLimit\nsbatch: error: {REFUSED}Job violates policy", Rejected),
    ],
)
def test_a_refusal_is_told_from_silence(commands: Path, said: str, error: type[Exception]) -> None:
    FakeCommand(commands, "sbatch", err=f"sbatch: error: {said}\n", status=1)
    with pytest.raises(error) as caught:
        submit([], "")
    assert "error:" not in str(caught.value) and "submission failed" in str(caught.value)


def test_states_and_what_the_controller_has_forgotten(commands: Path) -> None:
    squeue = FakeCommand(commands, "squeue", out="1|PENDING|Resources|\n2|TIMEOUT|TimeLimit|n4\n4|RUNNING|None|n1\n")
    assert job_states(["4", "1", "2", "3"]) == {
        "1": JobState("PENDING", "Resources", ""),
        "2": JobState("TIMEOUT", "TimeLimit", "n4"),
        "3": JobState("GONE"),
        "4": JobState("RUNNING", "", "n1"),
    }
    assert squeue.call["arguments"] == ["--noheader", "--states=all", "--jobs=1,2,3,4", "--format=%i|%T|%r|%N"]
    FakeCommand(commands, "squeue", err="slurm_load_jobs error: Invalid job id specified\n", status=1)
    assert job_states(["9"])["9"].ended
    FakeCommand(commands, "squeue", err="slurm_load_jobs error: Unable to contact slurm controller\n", status=1)
    with pytest.raises(ControllerAway):
        job_states(["9"])


def test_only_jobs_of_the_run_are_cancelled(commands: Path) -> None:
    FakeCommand(commands, "squeue", out="1|run-a.predict.w0\n2|other.predict.w0\n3|run-a.rag.w1\n")
    scancel = FakeCommand(commands, "scancel")
    cancel(jobs_named("run-a."))
    assert scancel.call["arguments"] == ["1", "3"]


def test_a_machine_without_slurm_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="sbatch is not on the PATH"):
        submit([], "")
