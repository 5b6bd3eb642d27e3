"""Finds the other processes of a job and joins them.

In this order: `--coordinator`, `--num_processes` and `--process_id`; the same from
JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID (an indexed Kubernetes
job: JOB_COMPLETION_INDEX); SLURM, Open MPI, Kubernetes and TPU as JAX detects them;
else a single process.
"""

import importlib.util
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from attunet_jax.distributed.failure_detector import LOST, start, start_alone
from attunet_jax.distributed.loopback import (
    first_slurm_node,
    is_loopback,
    refuse_loopback,
)
from attunet_jax.errors import (
    BAD_ARGUMENTS,
    BAD_DATA,
    INTERRUPTED,
    BadArguments,
    BadData,
    Interrupted,
    one_line,
)

# All that srun sets and JAX asks for; without them a shell is no SLURM step.
SLURM_STEP = (
    "SLURM_JOB_ID",
    "SLURM_STEP_NODELIST",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
)
ALL_VISIBLE: tuple[int, ...] = ()


@dataclass(frozen=True)
class ClusterSpec:
    """How a process finds the others."""

    # A name that JAX knows, "explicit" or "single"; None: JAX detects the cluster.
    method: str | None
    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None
    # Which of the host's accelerators; None leaves it to JAX, which under SLURM and
    # MPI takes one a task and leaves the others of a host idle.
    local_devices: tuple[int, ...] | None = ALL_VISIBLE


SINGLE_PROCESS = ClusterSpec("single")


def detect_cluster(
    environ: Mapping[str, str],
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    has_package: Callable[[str], Any] = importlib.util.find_spec,
) -> ClusterSpec:
    """Reads flags and environment; uses neither JAX nor the network.

    Raises `BadArguments` for flags that are missing or contradict each other.
    """
    if (coordinator, processes, process) == (None, None, None):
        coordinator = environ.get("JAX_COORDINATOR_ADDRESS")
        if "JAX_NUM_PROCESSES" not in environ:
            return _detected(environ, has_package)
        processes = _number(environ, "JAX_NUM_PROCESSES")
        index = ("JAX_PROCESS_ID", "JOB_COMPLETION_INDEX")
        given = next((name for name in index if name in environ), None)
        process = _number(environ, given) if given else None
    return _explicit(coordinator, processes, process)


def _explicit(
    coordinator: str | None, processes: int | None, process: int | None
) -> ClusterSpec:
    if processes == 1 and not process:
        return SINGLE_PROCESS
    if coordinator is None or processes is None or process is None:
        raise BadArguments(
            "--coordinator=HOST:PORT, --num_processes and --process_id (or "
            "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID) go "
            f"together; here they are {coordinator}, {processes} and {process}"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise BadArguments(f"--coordinator={coordinator} is not HOST:PORT")
    if not 0 <= process < processes:
        raise BadArguments(
            f"--process_id={process} is not in 0..{processes - 1} (--num_processes="
            f"{processes})"
        )
    return ClusterSpec("explicit", coordinator, processes, process)


def _detected(
    environ: Mapping[str, str], has_package: Callable[[str], Any]
) -> ClusterSpec:
    if all(name in environ for name in SLURM_STEP):
        if environ["SLURM_NTASKS"] == "1":
            return SINGLE_PROCESS
        tasks = environ.get("SLURM_STEP_TASKS_PER_NODE", "1").partition("(")[0]
        return ClusterSpec("slurm", local_devices=_devices_of_task(environ, tasks))
    if int(environ.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        tasks = environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1")
        devices = _devices_of_task(environ, tasks)
        if "OMPI_MCA_orte_hnp_uri" in environ:  # Open MPI 4 and older
            return ClusterSpec("ompi", local_devices=devices)
        if not has_package("mpi4py"):
            raise BadArguments(
                "Open MPI 5 is detected through mpi4py: pip install mpi4py"
            )
        return ClusterSpec("mpi4py", local_devices=devices)
    cpu_only = environ.get("JAX_PLATFORMS", "") == "cpu"
    if has_package("libtpu") and not cpu_only:
        return ClusterSpec(None)
    if "KUBERNETES_SERVICE_HOST" in environ and "JOB_COMPLETION_INDEX" in environ:
        if has_package("kubernetes"):
            return ClusterSpec("k8s")
    return SINGLE_PROCESS


def _devices_of_task(
    environ: Mapping[str, str], tasks_on_host: str
) -> tuple[int, ...] | None:
    """All visible ones, unless tasks share a host and each sees all of its devices."""
    visible = environ.get("CUDA_VISIBLE_DEVICES", environ.get("ROCR_VISIBLE_DEVICES"))
    bound = visible is not None and "," not in visible
    if "JAX_LOCAL_DEVICE_IDS" in environ:
        return None
    return ALL_VISIBLE if tasks_on_host.strip() == "1" or bound else None


def _number(environ: Mapping[str, str], name: str) -> int:
    try:
        return int(environ[name])
    except ValueError:
        raise BadArguments(f"{name}={environ[name]} is not a number") from None


def join(spec: ClusterSpec, *, join_timeout_s: int, heartbeat_timeout_s: int) -> bool:
    """Initialises JAX for several processes; returns False for a single one.

    Ends the program with one line if the others do not come in time: JAX itself would
    abort. Raises `BadArguments` if the port is taken or detection fails.
    """
    if spec == SINGLE_PROCESS:
        return False
    address = spec.coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    if not address and spec.method == "slurm":
        address = f"{first_slurm_node(os.environ)}:"
    if address:
        refuse_loopback(address, os.environ)
    import jax

    devices = spec.local_devices
    if spec.method == "explicit" and "JAX_LOCAL_DEVICE_IDS" in os.environ:
        devices = None
    joined = threading.Event()
    threading.Thread(
        target=_leave_unless, args=(joined, spec, join_timeout_s), daemon=True
    ).start()
    try:
        jax.distributed.initialize(
            spec.coordinator,
            spec.processes,
            spec.process,
            local_device_ids=devices,
            cluster_detection_method=(
                "deactivate" if spec.method == "explicit" else spec.method
            ),
            initialization_timeout=join_timeout_s + 60,  # the thread is to be first
            heartbeat_timeout_seconds=heartbeat_timeout_s,
        )
    except ValueError as error:
        if spec.method is None:  # no TPU after all
            return False
        raise BadArguments(f"{spec.method}: {one_line(error)}") from None
    except (RuntimeError, OSError) as error:
        where = spec.coordinator or _address() or spec.method
        raise BadArguments(
            f"process cannot join at {where}: {one_line(error)[:200]}"
        ) from None
    finally:
        joined.set()
    return jax.process_count() > 1


def is_secondary_process(environ: Mapping[str, str]) -> bool:
    """Whether this is process 1, 2, ... of a job.

    For programs that do not join the others and would all write the same files.
    """
    if detect_cluster(environ) == SINGLE_PROCESS:
        return False
    names = ("JAX_PROCESS_ID", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
    number = next((environ[name] for name in names if name in environ), "0")
    return number != "0"


def is_main_process() -> bool:
    """Whether this is process 0, which writes the run's files and the terminal."""
    import jax

    return jax.process_index() == 0


def print_on_main(text: str) -> None:
    """Prints a line, in the main process only."""
    if is_main_process():
        print(text, flush=True)


def run_together(
    work: Callable[[], None],
    *,
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    join_timeout_s: int,
    heartbeat_timeout_s: int,
) -> None:
    """Joins the other processes of the job, if there are any, and runs `work`.

    An error of one process ends all, with one line on the terminal and the same status.
    One that hangs in its steps ends all with status 134, a single process too.
    """
    spec = detect_cluster(os.environ, coordinator, num_processes, process_id)
    if not join(
        spec, join_timeout_s=join_timeout_s, heartbeat_timeout_s=heartbeat_timeout_s
    ):
        detector = start_alone()
        try:
            work()
        finally:
            detector.goodbye()
        return
    import jax

    from attunet_jax.distributed.compilation_cache import keep_in_every_process
    from attunet_jax.distributed.consensus import gather_texts

    keep_in_every_process()
    address = (spec.coordinator or _address() or "").rpartition(":")[0]
    detector = start(
        jax.process_index(),
        jax.process_count(),
        address.strip("[]") or socket.gethostname(),
        gather_texts,
        heartbeat_timeout_s,
    )
    try:
        work()
    except (BadArguments, BadData, Interrupted) as error:
        detector.leave(error.status, f"error: {one_line(error)}")
    except KeyboardInterrupt:
        detector.leave(INTERRUPTED, "interrupted: the same command continues from here")
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        line = f"error: {place}{error.strerror or one_line(error)}"
        detector.leave(BAD_DATA, line)
    except BaseException as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and _of_another(error):
            # Most likely one has died: the detector names it first, if it notices.
            time.sleep(3)
            line = one_line(error)[:200]
            detector.leave(LOST, f"error: the processes lost each other ({line})")
        # Not re-raised: at its exit JAX would wait for the others, and they for us.
        traceback.print_exc()
        detector.leave(1, f"error: {type(error).__name__}: {one_line(error)[:300]}")
    detector.goodbye()


def _of_another(error: BaseException) -> bool:
    """Whether a collective failed, as it does when a process is gone."""
    words = ("Gloo", "NCCL", "Connection closed", "UNAVAILABLE", "DEADLINE_EXCEEDED")
    return any(word in str(error) for word in words)


def _leave_unless(joined: threading.Event, spec: ClusterSpec, timeout_s: int) -> None:
    if joined.wait(timeout_s):
        return
    address = spec.coordinator or _address() or "the coordinator"
    if _answers(address):
        reason = (
            f"{address}: the coordinator answers, but not all "
            f"{spec.processes or ''} processes came within {timeout_s} s: start the "
            "others, or give --join_timeout_s"
        )
    else:
        reason = (
            f"{address}: no answer from the coordinator within {timeout_s} s: is "
            "process 0 running there, and the port open?"
        )
    if is_loopback(address.rpartition(":")[0].strip("[]")):
        reason += "; a loopback address (127.x) serves the processes of one host only"
    print(f"error: {' '.join(reason.split())}", file=sys.stderr, flush=True)
    os._exit(BAD_ARGUMENTS)  # the main thread is inside JAX


def _address() -> str | None:
    """The coordinator's that JAX detected; JAX has no public name for it."""
    try:
        from jax._src import distributed

        return distributed.global_state.coordinator_address
    except (ImportError, AttributeError):
        return None


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), 2).close()
    except (OSError, ValueError):
        return False
    return True
