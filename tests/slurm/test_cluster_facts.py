"""What a job learns about itself on a real SLURM, and which address its driver has for it."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

import pytest
from slurm_cluster import SlurmCluster

from pipeline.errors import UserError
from pipeline.slurm import address_for_workers

REPOSITORY = Path(__file__).parents[2]
PROGRAM = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from pipeline.slurm import end_of_this_job
print(end_of_this_job())
"""
A_YEAR = 365 * 86400


def end_as_a_job_sees_it(cluster: SlurmCluster, output: Path, *options: str) -> str:
    command = shlex.join([sys.executable, "-c", PROGRAM])
    job = cluster.call("sbatch", "--parsable", f"--output={output}", *options, f"--wrap={command}").strip()
    cluster.wait_until(lambda: cluster.job(int(job)).ended, "the job to end")
    return output.read_text().strip()


def test_a_job_knows_when_it_must_end(slurm: SlurmCluster, tmp_path: Path) -> None:
    before = time.time()
    end = float(end_as_a_job_sees_it(slurm, tmp_path / "limited", "--time=5"))
    assert before + 299 <= end <= time.time() + 300
    unlimited = float(end_as_a_job_sees_it(slurm, tmp_path / "unlimited"))
    assert unlimited > time.time() + 0.9 * A_YEAR  # what SLURM calls the end of a job without a limit


def test_the_address_is_the_one_on_the_way_to_the_nodes(slurm_namespaces: SlurmCluster) -> None:
    assert address_for_workers(None) in ("10.77.1.1", "10.77.2.1")


def test_addresses_can_be_chosen_by_interface_network_or_name() -> None:
    assert address_for_workers("lo") == "127.0.0.1"
    assert address_for_workers("127.0.0.0/8") == "127.0.0.1"
    assert address_for_workers("driver.cluster") == "driver.cluster"
    with pytest.raises(UserError, match=r"no address in 203\.0\.113\.0/24; it has .*127\.0\.0\.1") as caught:
        address_for_workers("203.0.113.0/24")
    assert caught.value.where == "cluster.slurm.address"
    with pytest.raises(UserError, match="is no network"):
        address_for_workers("ib0/16/x")
