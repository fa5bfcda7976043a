"""Networks for nodes on one machine: a network namespace each, joined to the host by a pair of interfaces."""

from __future__ import annotations

import shutil
import subprocess


class NodeNetwork:
    """The network of one node.

    Attributes:
        namespace: its name for `ip netns`.
        address: the node's.
        host_address: the host's, seen from the node.
    """

    def __init__(self, node: str, number: int) -> None:
        self.namespace = f"emdistill-{node}"
        self._link, self._peer = f"emd-{node}", f"emd-{node}-node"  # at most 15 characters
        self.address, self.host_address = f"10.77.{number}.2", f"10.77.{number}.1"

    def create(self) -> None:
        """Make the namespace and the link; what an earlier run left is removed."""
        self.remove()
        _ip("netns", "add", self.namespace)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", self._peer, "netns", self.namespace)
        _ip("address", "add", f"{self.host_address}/24", "dev", self._link)
        _ip("link", "set", self._link, "up")
        self._inside("address", "add", f"{self.address}/24", "dev", self._peer)
        self._inside("link", "set", "lo", "up")
        self._inside("link", "set", self._peer, "up")
        self._inside("route", "add", "default", "via", self.host_address)

    def remove(self) -> None:
        """Remove the link and the namespace, if they are there."""
        subprocess.run(["ip", "link", "delete", self._link], capture_output=True)
        subprocess.run(["ip", "netns", "delete", self.namespace], capture_output=True)

    def command(self, *command: str) -> list[str]:
        """A command that runs a command on the node."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}", *command]

    def _inside(self, *arguments: str) -> None:
        _ip("-netns", self.namespace, *arguments)


def why_no_networks() -> str | None:
    """What is missing for networks of nodes, if anything."""
    absent = [program for program in ("ip", "nsenter") if shutil.which(program) is None]
    if absent:
        return f"no network namespaces: {', '.join(absent)} not found (install iproute2 and util-linux)"
    try:
        network = NodeNetwork("try", 250)
        network.create()
        network.remove()
    except RuntimeError as error:
        return f"no network namespaces: {error}"
    return None


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
