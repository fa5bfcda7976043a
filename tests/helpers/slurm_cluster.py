"""A real SLURM for tests: munged, slurmctld and one slurmd per node, all on this machine and in one temporary folder.

It needs root and the programs of Debian's `slurm-wlm` and `munge`; `.ci/run` installs them. SLURM's own commands find
the cluster through `SLURM_CONF`. It has two partitions: `main`, and `scavenger`, whose jobs those of `main` cancel.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil
from daemons import Daemon, free_ports
from node_memory import remove_memory_groups
from node_networks import NodeNetwork

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "TIMEOUT",
}
"""States in which nothing of a job runs any more."""
LOCK = Path("/tmp/emdistill-slurm.lock")
"""Held by a cluster whose networks or control groups have names that another one on this machine would give too."""


@dataclass(frozen=True)
class Job:
    """One line of squeue.

    Attributes:
        state: as SLURM spells it, `RUNNING` for example.
        reason: why it is pending or ended, `None` if SLURM names none (then a string all the same).
        node: where it runs or ran; empty before it starts.
    """

    id: int
    name: str
    state: str
    reason: str
    node: str

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.state in ENDED


class SlurmCluster:
    """A private cluster.

    Args:
        nodes: how many nodes there are; they are called n1, n2 and so on.
        processors: what every node claims to have, whatever the machine has.
        namespaces: give every node its own network (10.77.1.0/24, 10.77.2.0/24 and so on), as different machines have;
            the controller and the commands are on the host's side, 10.77.1.1, 10.77.2.1 and so on.
        memory_limits: kill what uses more memory than its job asked for, which ends the job as OUT_OF_MEMORY.

    Attributes:
        configuration: what `SLURM_CONF` must name.
        nodes: their names.
    """

    def __init__(
        self, nodes: int = 2, processors: int = 4, namespaces: bool = False, memory_limits: bool = False
    ) -> None:
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self._processors = processors
        self._memory_limits = memory_limits
        self._lock: IO[str] | None = None
        self._networks = {
            name: NodeNetwork(name, number) for number, name in enumerate(self.nodes, 1) if namespaces
        }  # none without namespaces
        # Not in TMPDIR: sockets are in this folder, and their paths must be short.
        self._folder = Path(tempfile.mkdtemp(prefix="emdistill-slurm-", dir="/tmp"))
        self._folder.chmod(0o755)  # munged wants its socket reachable by all and replaceable by root alone
        self.configuration = self._folder / "slurm.conf"
        self._munged: Daemon | None = None
        self._controller: Daemon | None = None
        self._daemons: dict[str, Daemon] = {}

    def start(self) -> None:
        """Start everything, and wait until all nodes are idle; first for the end of a cluster with the same names."""
        if self._networks or self._memory_limits:
            self._lock = LOCK.open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        for network in self._networks.values():
            network.create()
        self._configure()
        self._start_munged()
        self.start_controller()
        for node in self.nodes:
            self._start_daemon(node)
        self._wait_for_idle_nodes()

    def stop(self) -> None:
        """End all jobs and all processes, and remove every trace."""
        try:
            if self._controller is not None:
                self.cancel_all()
        finally:
            for daemon in self._daemons.values():
                daemon.end()
            self.stop_controller()
            if self._munged is not None:
                self._munged.end()
            for node in self.nodes:
                if self._memory_limits:
                    remove_memory_groups(node)
            for network in self._networks.values():
                network.remove()
            shutil.rmtree(self._folder)
            if self._lock is not None:
                self._lock.close()

    def start_controller(self) -> None:
        """Start slurmctld with the state that it kept, and wait until it answers."""
        self._controller = self._daemon("slurmctld", "-D", "-f", str(self.configuration))
        self.wait_until(self._answers, "slurmctld to answer")

    def stop_controller(self) -> None:
        """End slurmctld, which keeps its state; jobs go on."""
        if self._controller is None:
            return
        self._controller.end()
        self._controller = None

    def kill_node(self, name: str) -> None:
        """End everything on a node at once, as if its power failed.

        Its jobs are requeued, SLURM's default for batch jobs, or become NODE_FAIL if submitted with `--no-requeue`.
        """
        self._daemons.pop(name).end()
        self.call("scontrol", "update", f"nodename={name}", "state=down", "reason=killed")

    def revive_node(self, name: str) -> None:
        """Start a killed node, and wait until it takes jobs."""
        self._start_daemon(name)
        self.wait_until(lambda: self._node_state(name) in {"idle", "mixed", "allocated"}, f"{name} to return")

    def jobs(self) -> list[Job]:
        """All jobs, those included that ended in the last five minutes."""
        lines = self.call("squeue", "--states=all", "--noheader", "--format=%A|%T|%N|%r|%j").splitlines()
        fields = [line.strip().split("|", 4) for line in lines]
        return [Job(int(number), name, state, reason, node) for number, state, node, reason, name in fields]

    def job(self, number: int) -> Job:
        """One job."""
        return next(job for job in self.jobs() if job.id == number)

    def cancel_all(self) -> None:
        """Cancel all jobs, and wait until nothing of them runs."""
        self.wait_until(self._all_cancelled, "jobs to end")

    def call(self, *command: str) -> str:
        """What one of SLURM's commands says."""
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def wait_until(self, condition: Callable[[], bool], what: str, timeout: float = 300) -> None:
        """Wait for a condition.

        Raises:
            TimeoutError: with the jobs, the nodes and the end of the logs.
        """
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"waited {timeout:g} s for {what}\n{self._describe()}")
            time.sleep(0.05)

    def _configure(self) -> None:
        for folder in ("state", *(f"spool/{node}" for node in self.nodes)):
            (self._folder / folder).mkdir(parents=True)
        key = self._folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        limits = "ConstrainRAMSpace=yes\nConstrainSwapSpace=yes\n" if self._memory_limits else ""
        (self._folder / "cgroup.conf").write_text(f"CgroupAutomount=no\n{limits}")
        self.configuration.write_text("\n".join(self._settings()) + "\n")

    def _settings(self) -> list[str]:
        """The lines of slurm.conf."""
        folder, host = self._folder, socket.gethostname().split(".")[0]
        address = next((network.host_address for network in self._networks.values()), "127.0.0.1")
        ports = free_ports(1 + len(self.nodes))
        return [
            "ClusterName=emdistill",
            f"SlurmctldHost={host}({address})",
            f"SlurmctldPort={ports[0]}",
            "SlurmUser=root",
            "SlurmdUser=root",
            "AuthType=auth/munge",
            "CredType=cred/munge",
            # A requeued job waits for cred_expire (seconds, 120 unless told) before it starts again.
            f"AuthInfo=socket={folder}/munge.sock,cred_expire=5",
            f"StateSaveLocation={folder}/state",
            f"SlurmdSpoolDir={folder}/spool/%n",
            f"SlurmctldPidFile={folder}/slurmctld.pid",
            f"SlurmdPidFile={folder}/%n.pid",
            f"SlurmctldLogFile={folder}/slurmctld.log",
            f"SlurmdLogFile={folder}/%n.log",
            "ProctrackType=proctrack/linuxproc",
            f"TaskPlugin=task/{'cgroup' if self._memory_limits else 'none'}",
            "MpiDefault=none",
            "SwitchType=switch/none",
            "JobAcctGatherType=jobacct_gather/none",
            "AccountingStorageType=accounting_storage/none",
            "JobCompType=jobcomp/none",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core_Memory",
            "DefMemPerCPU=100",
            "SchedulerType=sched/backfill",
            # Without these a job waits up to 3 s after sbatch, and up to a minute if it was pending.
            "SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1",
            "PreemptType=preempt/partition_prio",
            "PreemptMode=CANCEL",
            "SlurmdParameters=config_overrides",  # nodes may claim more than the machine has
            "TreeWidth=65533",  # nodes need not reach each other
            "ReturnToService=2",
            "KillWait=2",
            "InactiveLimit=0",
            "MinJobAge=300",
            "SlurmdTimeout=20",
            *(self._node_line(node, port) for node, port in zip(self.nodes, ports[1:], strict=True)),
            f"PartitionName=main Nodes={','.join(self.nodes)} Default=YES PriorityTier=2 PreemptMode=OFF",
            f"PartitionName=scavenger Nodes={','.join(self.nodes)} PriorityTier=1",
        ]

    def _node_line(self, node: str, port: int) -> str:
        host = socket.gethostname().split(".")[0]
        address = self._networks[node].address if self._networks else "127.0.0.1"
        memory = psutil.virtual_memory().total >> 20
        return (
            f"NodeName={node} NodeHostname={host} NodeAddr={address} Port={port} CPUs={self._processors} "
            f"RealMemory={memory} State=UNKNOWN"
        )

    def _start_munged(self) -> None:
        folder = self._folder
        paths = {"key-file": "munge.key", "pid-file": "munged.pid", "seed-file": "munged.seed", "socket": "munge.sock"}
        options = [f"--{option}={folder}/{name}" for option, name in paths.items()]
        self._munged = self._daemon("munged", "--foreground", *options)
        self.wait_until((folder / "munge.sock").is_socket, "munged's socket")

    def _start_daemon(self, node: str) -> None:
        slurmd = ["slurmd", "-D", "-N", node, "-f", str(self.configuration)]
        if self._networks:
            slurmd = self._networks[node].command(*slurmd)
        self._daemons[node] = self._daemon(*slurmd, politely=False)

    def _daemon(self, *command: str, politely: bool = True) -> Daemon:
        return Daemon(command, self._environment(), self._folder / "daemons.log", politely)

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.configuration)}

    def _answers(self) -> bool:
        ping = subprocess.run(["scontrol", "ping"], env=self._environment(), capture_output=True, text=True)
        return "UP" in ping.stdout

    def _all_cancelled(self) -> bool:
        """Cancel what has not ended; again and again, for jobs may requeue themselves."""
        if all(job.ended for job in self.jobs()):
            return True
        self.call("scancel", f"--user={os.geteuid()}")
        return False

    def _node_state(self, name: str) -> str:
        return self.call("sinfo", "--noheader", f"--nodes={name}", "--partition=main", "--format=%T").strip()

    def _wait_for_idle_nodes(self) -> None:
        self.wait_until(lambda: all(self._node_state(node) == "idle" for node in self.nodes), "idle nodes")

    def _describe(self) -> str:
        """What helps to understand why something did not happen."""
        commands = (["squeue", "--states=all"], ["sinfo", "--Node", "--long"])
        said = [
            subprocess.run(command, env=self._environment(), capture_output=True, text=True).stdout
            for command in commands
        ]
        logs = [
            "\n".join([log.name, *log.read_text(errors="replace").splitlines()[-15:]])
            for log in sorted(self._folder.glob("*.log"))
        ]
        return "\n\n".join([*said, *logs])


def why_no_slurm() -> str | None:
    """What is missing for a cluster, if anything."""
    if os.geteuid() != 0:
        return "no SLURM: its daemons need root"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"no SLURM: {', '.join(absent)} not found (install slurm-wlm and munge)" if absent else None
