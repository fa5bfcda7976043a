"""Programs that run beside the tests and never outlive them, whatever they start and however the tests end."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

BECOME_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of prctl(2)."""
LIBC = ctypes.CDLL(None, use_errno=True)

KEEPER = """
"${@:2}" </dev/null &
read -r
if [ "$1" = politely ]; then kill -TERM $!; wait $!; fi
while children=$(</proc/$$/task/$$/children) && [ -n "$children" ]; do
    kill -KILL $children
    sleep 0.01
done 2>/dev/null
"""
"""A shell that keeps a program until it hears a line, or until nobody is left to say one. It adopts what descends from
the program (SLURM's slurmd leaves its jobs to the init process), so at the end all of that is among its children.
Waiting for `sleep`, it takes leave of those that have ended, which a loop of builtins does not always."""


class Daemon:
    """A program, and everything that it starts.

    Args:
        command: the program and its arguments.
        environment: its environment.
        log: the file that its output is appended to.
        politely: ask it to end (SIGTERM) and wait for that, before what is left of it is killed.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str], log: Path, politely: bool) -> None:
        manner = "politely" if politely else "at once"
        with log.open("ab") as output:
            self._keeper = subprocess.Popen(
                ["bash", "-c", KEEPER, "keeper", manner, *command],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=log.parent,
                start_new_session=True,  # Ctrl-C is for the tests
                preexec_fn=_become_subreaper,
            )

    def end(self) -> None:
        """End it, and return when all its processes are gone."""
        self._keeper.communicate(b"\n", timeout=300)


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _become_subreaper() -> None:
    """Adopt the orphans among one's descendants, instead of the init process."""
    if LIBC.prctl(BECOME_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
