"""How a process finds the others, from each cluster's own variables."""

import pytest

from attunet_jax.distributed.processes import (
    ALL_VISIBLE,
    SINGLE_PROCESS,
    ClusterSpec,
    detect_cluster,
    is_secondary_process,
)
from attunet_jax.errors import BadArguments

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "3"}
OURS = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "4"}
FOUR_GPUS = {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}


@pytest.mark.parametrize(
    "environment, packages, expected",
    [
        ({}, (), SINGLE_PROCESS),
        (OURS | {"JAX_PROCESS_ID": "2"}, (), ClusterSpec("explicit", "a:1", 4, 2)),
        # An indexed job tells each pod its number under this name.
        (OURS | KUBERNETES, (), ClusterSpec("explicit", "a:1", 4, 3)),
        (
            OURS | SLURM | {"JAX_PROCESS_ID": "0"},
            (),
            ClusterSpec("explicit", "a:1", 4, 0),
        ),
        # One task a node: all accelerators of the node are its own.
        (SLURM, (), ClusterSpec("slurm", local_devices=ALL_VISIBLE)),
        (SLURM | FOUR_GPUS, (), ClusterSpec("slurm", local_devices=ALL_VISIBLE)),
        # Four tasks that see four GPUs: JAX gives each the one of its local rank.
        (
            SLURM | FOUR_GPUS | {"SLURM_STEP_TASKS_PER_NODE": "4(x2)"},
            (),
            ClusterSpec("slurm", local_devices=None),
        ),
        # SLURM has bound one GPU to each task already.
        (
            SLURM | {"SLURM_STEP_TASKS_PER_NODE": "4(x2)", "CUDA_VISIBLE_DEVICES": "0"},
            (),
            ClusterSpec("slurm", local_devices=ALL_VISIBLE),
        ),
        (SLURM | {"SLURM_NTASKS": "1"}, (), SINGLE_PROCESS),
        # A shell inside an allocation is no step of it.
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}, (), SINGLE_PROCESS),
        (OPEN_MPI, ("mpi4py",), ClusterSpec("mpi4py", local_devices=None)),
        (
            OPEN_MPI | {"OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:34"},
            (),
            ClusterSpec("ompi", local_devices=None),
        ),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, (), SINGLE_PROCESS),
        (KUBERNETES, ("kubernetes",), ClusterSpec("k8s")),
        (KUBERNETES, (), SINGLE_PROCESS),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, ("kubernetes",), SINGLE_PROCESS),
        ({}, ("libtpu",), ClusterSpec(None)),
        ({"JAX_PLATFORMS": "cpu"}, ("libtpu",), SINGLE_PROCESS),
    ],
)
def test_each_cluster_is_found_by_its_own_variables(environment, packages, expected):
    found = detect_cluster(environment, has_package=lambda name: name in packages)
    assert found == expected


@pytest.mark.parametrize(
    "environment, another",
    [
        ({}, False),
        (OURS | {"JAX_PROCESS_ID": "0"}, False),
        (OURS | {"JAX_PROCESS_ID": "2"}, True),
        (SLURM, True),
        (SLURM | {"SLURM_PROCID": "0"}, False),
        (SLURM | {"SLURM_NTASKS": "1"}, False),
    ],
)
def test_a_program_that_needs_no_others_runs_in_process_0(environment, another):
    assert is_secondary_process(environment) == another


def test_flags_come_before_the_environment():
    environment = OURS | SLURM | {"JAX_PROCESS_ID": "2"}
    assert detect_cluster(environment, "b:2", 8, 7) == ClusterSpec(
        "explicit", "b:2", 8, 7
    )


@pytest.mark.parametrize(
    "environment, given, words",
    [
        ({}, ("a:1", 2, None), "go together"),
        (OURS, (None, None, None), "a:1, 4 and None"),
        ({}, ("a", 2, 0), "--coordinator=a is not HOST:PORT"),
        ({}, ("a:99999", 2, 0), "is not HOST:PORT"),
        ({}, ("a:1", 2, 2), "--process_id=2 is not in 0..1"),
        (OURS | {"JAX_PROCESS_ID": "two"}, (None,) * 3, "JAX_PROCESS_ID=two"),
        (OPEN_MPI, (None,) * 3, "pip install mpi4py"),
    ],
)
def test_what_does_not_fit_together_is_named(environment, given, words):
    with pytest.raises(BadArguments, match=words):
        detect_cluster(environment, *given, has_package=lambda name: False)
