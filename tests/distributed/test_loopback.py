"""A coordinator that every host would look for in itself is refused."""

import socket

import pytest

from attunet_jax.distributed.loopback import first_slurm_node, refuse_loopback
from attunet_jax.errors import BadArguments

SLURM = {"SLURM_PROCID": "1", "SLURM_NNODES": "2", "SLURM_STEP_NODELIST": "node[1-2]"}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
PODS = {
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    "JOB_COMPLETION_INDEX": "1",
    "JAX_NUM_PROCESSES": "4",
}
HOSTS = {"node1": "127.0.1.1", "localhost": "127.0.0.1", "far": "10.0.0.7"}


def resolve(host, port):
    address = str(HOSTS.get(host, host))
    if not address[0].isdigit() and ":" not in address:
        raise socket.gaierror("unknown")
    return [(0, 0, 0, "", (address, port))]


def refused(address, environ, this_host="node2"):
    try:
        refuse_loopback(address, environ, resolve, this_host)
    except BadArguments as error:
        assert "\n" not in str(error) and "JAX_COORDINATOR_ADDRESS" in str(error)
        return True
    return False


@pytest.mark.parametrize("environ", [SLURM, OPEN_MPI, PODS])
def test_a_loopback_coordinator_of_several_hosts_is_refused(environ):
    for host in ("127.0.0.1", "127.0.1.1", "[::1]", "localhost", "node1"):
        assert refused(f"{host}:8476", environ), host
    for host in ("10.0.0.7", "far", "[fd00::7]", "not-in-dns"):
        assert not refused(f"{host}:8476", environ), host


def test_a_hosts_own_name_may_be_loopback_on_that_host():
    # Debian: the other hosts find node1 in the DNS.
    assert not refused("node1:8476", SLURM, "node1.cluster.org")
    assert refused("localhost:8476", SLURM, "localhost")
    assert refused("127.0.1.1:8476", SLURM, "node1")


def test_processes_of_one_host_may_use_loopback():
    one_node = SLURM | {"SLURM_NNODES": "1"}
    one_host = OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}
    # A shell in an allocation of two nodes is no process of the job.
    shell = {"SLURM_NNODES": "2"}
    simulated = SLURM | {"SLURM_STEP_NODELIST": "127.0.0.[1-2]"}
    for environ in ({}, one_node, one_host, shell, simulated):
        assert not refused("127.0.0.1:8476", environ)


def test_the_first_node_is_read_from_slurms_list():
    lists = {
        "node1": "node1",
        "node1,node7": "node1",
        "node[1-2]": "node1",
        "gpu-a[003,007-9]": "gpu-a003",
        "a1,b[2-3]": "a1",
        "127.0.0.[1-2]": "127.0.0.1",
    }
    for text, first in lists.items():
        assert first_slurm_node({"SLURM_STEP_NODELIST": text}) == first
    assert first_slurm_node({}) is None
