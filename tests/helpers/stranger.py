"""Somebody else on the same machine, who found daisy's port: `python stranger.py PORT TASK`.

Connects as a worker of a task, says so, asks for blocks, and reports each as done without computing it. As root, it
first becomes another user, when everything is imported that this one may not be able to read.
"""

from __future__ import annotations

import os
import sys

import daisy.v2 as daisy
from daisy.logging import set_log_basedir

NOBODY = 65534


def become_somebody_else() -> None:
    """Give up being root."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def say(text: str) -> None:
    """Tell whoever started this."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(port: int, task: str) -> None:
    """Take all blocks that there are."""
    set_log_basedir(None)
    become_somebody_else()
    client = daisy.Client(daisy.Context(hostname="127.0.0.1", port=port, task_id=task, worker_id=-1, logdir=""))
    say("connected")
    while True:
        with client.acquire_block() as block:
            if block is None:
                break
        say(f"reported {block.block_id[1]}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
