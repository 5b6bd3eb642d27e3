"""Memory of processes: of a command with its children, and of one train step alone.

    python -m launch.benchmark.process_memory '{"by": "torch", ...}'

runs one train step and prints {"step_bytes": n, "state_bytes": m}: what the step needs
beside the state, and the state, which is parameters and optimizer. On a GPU the library
itself counts, on a CPU the kernel: resident pages before the step and their high-water
mark in it. Needs /proc.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SELF = Path("/proc/self")
# Memory is sampled after this share of the time that the command has run, which keeps
# the cost of sampling small, and at least this often.
_INTERVAL_SHARE, _MAX_INTERVAL_S = 0.05, 0.5


@dataclass(frozen=True)
class FinishedProcess:
    """Time and memory of a command and all processes that it started.

    `all_processes_bytes` is the largest sampled sum over all processes, pages that they
    share counted once; `largest_process_bytes` the high-water mark of a single one.
    """

    status: int
    seconds: float
    cpu_seconds: float
    all_processes_bytes: int
    largest_process_bytes: int
    out: str
    err: str


def measure_process(command: Sequence[str], log: Path) -> FinishedProcess:
    """Runs `command` to its end; its output goes to `log` with endings .out and .err.

    The memory of all processes is sampled, so a short peak may be missed.
    """
    out, err = log.with_suffix(".out"), log.with_suffix(".err")
    total = largest = 0
    with out.open("wb") as stdout, err.open("wb") as stderr:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=stdout, stderr=stderr, start_new_session=True
        )
        try:
            ended = 0
            while not ended:
                memory = [_memory(pid) for pid in _with_descendants(process.pid)]
                total = max(total, sum(now for now, _ in memory))
                largest = max(largest, *(peak for _, peak in memory), 0)
                ran_s = time.perf_counter() - start
                time.sleep(min(0.01 + _INTERVAL_SHARE * ran_s, _MAX_INTERVAL_S))
                ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # its children too
            process.wait()
            raise
        seconds = time.perf_counter() - start
    return FinishedProcess(
        process.returncode,
        seconds,
        usage.ru_utime + usage.ru_stime,
        total,
        largest,
        out.read_text(errors="replace"),
        err.read_text(errors="replace"),
    )


def available() -> bool:
    """Returns whether the memory of processes can be read here."""
    return sys.platform == "linux" and Path("/proc/self/status").exists()


def _with_descendants(pid: int) -> list[int]:
    """Returns the process and all its descendants."""
    found = [pid]
    for parent in found:
        try:
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:  # it ended meanwhile
            continue
    return found


def _memory(pid: int) -> tuple[int, int]:
    """Returns (now, shared pages in part; high-water mark, shared pages in full)."""
    proc = Path(f"/proc/{pid}")
    now = _field(proc / "smaps_rollup", "Pss")
    return now, _field(proc / "status", "VmHWM")


def _field(path: Path, name: str) -> int:
    """Returns a field in bytes; 0 if the process has ended."""
    try:
        for line in path.read_text().splitlines():
            key, _, value = line.partition(":")
            if key == name:
                return int(value.split()[0]) * 1024
    except OSError:  # it ended meanwhile
        pass
    return 0


def main() -> None:
    request = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keeps what libraries print apart from the answer
    run = {"attunet_jax": _our_step, "torch": _torch_step}[request["by"]]
    print(json.dumps(run(request)), file=answers, flush=True)


def _our_step(request: dict) -> dict[str, int]:
    import jax
    import numpy as np

    from attunet_jax.data.batch import whole_scans
    from launch.benchmark import workload
    from launch.benchmark.ours import Ours

    size = workload.find_size(request["size"], backend="cpu")
    config = workload.make_config(request["network"], size, request["compute_dtype"])
    config.model.remat = request["remat"]
    rng = np.random.default_rng(0)
    shape = (size.batch, *size.read_shape)
    batch = whole_scans(
        rng.integers(-1000, 1000, shape).astype(np.int16),
        rng.integers(0, 4, shape).astype(np.uint8),
    )
    with tempfile.TemporaryDirectory() as folder:
        tiny = workload.find_size("tiny", backend="cpu")
        dataset = workload.make_dataset(Path(folder), tiny)
    device = jax.devices()[0]
    ours = Ours(config, dataset, device)
    call = ours.train_step(batch)
    state = sum(x.nbytes for x in jax.tree.leaves(ours.state))
    stats = device.memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        before = stats["bytes_in_use"]
        call()
        step = device.memory_stats()["peak_bytes_in_use"] - before
    else:
        step = resident_bytes_of(call)
    return {"step_bytes": step, "state_bytes": state}


def _torch_step(request: dict) -> dict[str, int]:
    from launch.benchmark.peers.torch_process import Peer, torch

    peer = Peer(request["peer"])
    image, label = peer.make_inputs(request["peer"]["batch"]["train"])
    parameter_bytes = 4 * peer.parameters
    if peer.device.type == "cuda":
        cuda = torch.cuda
        peer.train_step(image, label)
        peer.optimizer.zero_grad(set_to_none=True)
        cuda.synchronize()
        before = cuda.memory_allocated()
        cuda.reset_peak_memory_stats()
        peer.train_step(image, label)
        cuda.synchronize()
        step = cuda.max_memory_allocated() - before
    else:
        # The first step makes Adam's two moments, which belong to the state.
        step = resident_bytes_of(lambda: peer.train_step(image, label))
        step -= 2 * parameter_bytes
    return {"step_bytes": step, "state_bytes": 3 * parameter_bytes}


def resident_bytes_of(call: Callable[[], object]) -> int:
    """Returns the high-water mark of resident memory in a call, less that before it."""
    before = _field(SELF / "status", "VmRSS")
    (SELF / "clear_refs").write_text("5")  # resets the high-water mark
    call()
    return _field(SELF / "status", "VmHWM") - before


if __name__ == "__main__":
    main()
