"""Which of a machine's addresses the workers of a cluster are told to dial."""

from __future__ import annotations

import ipaddress
import re
import socket

import psutil

from ..errors import UserError
from .commands import ControllerAway, query

WHERE = "cluster.slurm.address"


def address_for_workers(wanted: str | None) -> str:
    """The address of this machine that compute nodes can reach.

    Args:
        wanted: an address or name, which is taken as it is; an interface or a network of this machine, whose address is
            looked up; or None for the address from which this machine reaches the compute nodes.

    Raises:
        UserError: this machine is not in that network, or the interface has no address.
    """
    if wanted is None:
        return _towards_nodes()
    interfaces = _addresses()
    if wanted in interfaces:
        return interfaces[wanted][0]
    if "/" not in wanted:
        return wanted
    try:
        network = ipaddress.ip_network(wanted, strict=False)
    except ValueError as error:
        raise UserError(f'"{wanted}" is no network; one looks like "10.20.0.0/16"', WHERE) from error
    mine = [address for addresses in interfaces.values() for address in addresses]
    for address in mine:
        if ipaddress.ip_address(address) in network:
            return address
    raise UserError(f"this machine has no address in {wanted}; it has {', '.join(mine)}", WHERE)


def _towards_nodes() -> str:
    """The source address of packets to the nodes; where nodes are unknown, to anywhere else."""
    candidates = [_source_towards(node) for node in _node_addresses()]
    for address in candidates:
        if address is not None:
            return address
    return _source_towards("192.0.2.1") or "127.0.0.1"  # reserved for documentation: only the routing table is asked


def _node_addresses() -> list[str]:
    """Addresses of the compute nodes, from SLURM, those of other machines first."""
    try:
        told = query("scontrol", "show", "node", "-o")
    except (ControllerAway, UserError):
        return []
    here = socket.gethostname().split(".")[0]
    nodes = re.findall(r"NodeAddr=(\S+)(?: NodeHostName=(\S+))?", told)
    return [address for address, host in sorted(nodes, key=lambda node: node[1] == here)]


def _source_towards(target: str) -> str | None:
    """The address that this machine would send from; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((target, 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])


def _addresses() -> dict[str, list[str]]:
    """The IPv4 addresses of each interface that has some."""
    found = {
        name: [address.address for address in addresses if address.family == socket.AF_INET]
        for name, addresses in psutil.net_if_addrs().items()
    }
    return {name: addresses for name, addresses in found.items() if addresses}
