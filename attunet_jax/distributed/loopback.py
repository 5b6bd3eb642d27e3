"""Refuses a coordinator's address that each host would look for in itself.

127.0.0.0/8 and ::1 are every host's own: the processes of other hosts would wait for a
process 0 that never answers. It happens where somebody wrote localhost, and where
/etc/hosts gives a host's name the address 127.0.1.1, as Debian does for its own.
"""

import ipaddress
import re
import socket
from collections.abc import Callable, Mapping
from typing import Any

from attunet_jax.errors import BadArguments


def refuse_loopback(
    coordinator: str,
    environ: Mapping[str, str],
    resolve: Callable[..., Any] = socket.getaddrinfo,
    this_host: str | None = None,
) -> None:
    """Raises `BadArguments` if HOST:PORT is loopback and the job has several hosts.

    Where the environment does not tell the number of hosts, nothing is refused, nor is
    a host's own name on that host: the others may find it.
    """
    host = coordinator.rpartition(":")[0].strip("[]")
    own_name = (this_host or socket.gethostname()).partition(".")[0]
    if host.partition(".")[0] == own_name != "localhost":
        return
    if several_hosts(environ) and is_loopback(host, resolve):
        raise BadArguments(
            f"{coordinator.rstrip(':')}: the coordinator's host is a loopback address "
            "(127.x) here, which no other host of the job reaches: give "
            "JAX_COORDINATOR_ADDRESS=ADDRESS:PORT, with the address of process 0's "
            "host in the network, or take its name off the line 127.0.1.1 of /etc/hosts"
        )


def several_hosts(environ: Mapping[str, str]) -> bool:
    """Whether the scheduler's variables say that the job spans hosts."""
    nodes = environ.get("SLURM_STEP_NODELIST", "")
    if nodes.startswith("127."):  # nodes named so are all on one machine: tests
        return False
    if any(
        _number(environ.get(name)) > 1
        for name in ("SLURM_STEP_NUM_NODES", "SLURM_NNODES", "SLURM_JOB_NUM_NODES")
    ):
        return "SLURM_PROCID" in environ
    on_host = _number(environ.get("OMPI_COMM_WORLD_LOCAL_SIZE"))
    if 0 < on_host < _number(environ.get("OMPI_COMM_WORLD_SIZE")):
        return True
    # A pod of an indexed job has a network of its own.
    pods = "KUBERNETES_SERVICE_HOST" in environ and "JOB_COMPLETION_INDEX" in environ
    return pods and _number(environ.get("JAX_NUM_PROCESSES")) > 1


def first_slurm_node(environ: Mapping[str, str]) -> str | None:
    """The coordinator's host, as JAX takes it: `node1` of `node[1-2,7]`, `node1,x`."""
    nodes = environ.get("SLURM_STEP_NODELIST", "")
    found = re.match(r"([^,\[]+)(?:\[([^\],-]+))?", nodes)
    return found[1] + (found[2] or "") if found else None


def is_loopback(host: str, resolve: Callable[..., Any] = socket.getaddrinfo) -> bool:
    """Whether the host's first address is its own; False if it has none."""
    try:
        address = resolve(host, None)[0][4][0]
        return ipaddress.ip_address(address).is_loopback
    except (OSError, ValueError, IndexError):
        return False


def server_at(address: str) -> socket.socket | None:
    """A port on the interface of `address` ("": all); None where it is not ours.

    A host's own name may mean 127.x to itself, which others cannot reach: all then.
    """
    try:
        if not address:
            dual = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if dual else socket.AF_INET
            return socket.create_server(("", 0), family=family, dualstack_ipv6=dual)
        family, *_, where = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)[
            0
        ]
        if is_loopback(address) and address not in (where[0], "localhost"):
            return None
        return socket.create_server((str(where[0]), 0), family=family)
    except OSError:
        return None


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0
