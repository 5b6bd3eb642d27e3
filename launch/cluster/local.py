r"""Runs N processes of one program on this machine, as a cluster would on N hosts.

    launch/cluster/local.sh 2 -- --data=DIR --workdir=RUN
    launch/cluster/local.sh 2 --cpu_devices=4 --max_restarts=3 -- \
        --data=DIR --workdir=RUN
    launch/cluster/local.sh 2 -- launch.train --data=DIR --dry_run

The words after `--` go to launch.train, or to the module named first. Every line of
output begins with the number of its process. When one process fails it is named and the
others are ended; the exit status is that of the process that failed (128 + signal for a
signal), not of those that ended because it died. SIGTERM and Ctrl-C are forwarded to
all of them.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import IO

from attunet_jax import interrupts
from attunet_jax.distributed.failure_detector import LOST
from attunet_jax.errors import INTERRUPTED, BadArguments, exit_status
from launch import cli

# Interrupted with everything saved; ended because another process died; killed.
WORTH_A_RESTART = (INTERRUPTED, LOST, 137)

FLAGS = cli.Flags(__doc__)
FLAGS.add("cpu_devices", int, None, "CPU only, with so many simulated devices each.")
FLAGS.add("max_restarts", int, 0, "How often to start again after 75, 134 or 137.")
FLAGS.add("grace_s", float, 30.0, "How long the others may take to end by themselves.")


def main() -> int:
    """Returns the status of the process that failed first, or 0."""
    argv = sys.argv[1:]
    cut = argv.index("--") if "--" in argv else len(argv)
    own, words = argv[:cut], argv[cut + 1 :]
    count = own.pop(0) if own and not own[0].startswith("-") else "no"
    if cut == len(argv) and not {"--help", "-h"} & set(own):
        raise BadArguments(f"what to run comes after -- {cli.SEE_HELP}")
    flags = FLAGS.parse(own)
    if not count.isdecimal() or int(count) < 1:
        raise BadArguments(f"{count} processes: the first word is how many, from 1")
    if not words or words[0].startswith("-"):
        words = ["launch.train", *words]
    restarts = 0
    while True:
        job = Job(int(count), words, flags.cpu_devices, flags.grace_s, restarts)
        status = job.run()
        again = status in WORTH_A_RESTART and not job.stop_requested
        if not again or restarts == flags.max_restarts:
            return status
        restarts += 1
        _print(f"status {status}: start {restarts} of {flags.max_restarts} more")


class Job:
    """N processes from start to end, once."""

    def __init__(
        self,
        count: int,
        words: list[str],
        cpu_devices: int | None,
        grace_s: float,
        restarts: int,
    ) -> None:
        self._count, self._words, self._grace_s = count, words, grace_s
        self._cpu_devices, self._restarts = cpu_devices, restarts
        self._processes: list[subprocess.Popen] = []
        self.stop_requested = False

    def run(self) -> int:
        with interrupts.deferred(on_signal=self._forward, second_ends=False):
            try:
                return self._run()
            finally:
                for process in self._processes:
                    if process.poll() is None:
                        process.kill()

    def _run(self) -> int:
        address = f"127.0.0.1:{_free_port()}"
        readers = []
        for i in range(self._count):
            process = subprocess.Popen(
                [sys.executable, "-m", *self._words],
                env=self._environment(i, address),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C comes through us, once
            )
            self._processes.append(process)
            for source, target in ((process.stdout, 1), (process.stderr, 2)):
                reader = threading.Thread(target=_prefix, args=(source, i, target))
                reader.start()
                readers.append(reader)
        failed = self._wait()
        for reader in readers:
            reader.join()
        return 0 if failed is None else _status(self._processes[failed])

    def _environment(self, i: int, address: str) -> dict[str, str]:
        own = {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": str(self._count),
            "JAX_PROCESS_ID": str(i),
            "PYTHONUNBUFFERED": "1",
            "ATTUNET_JAX_RESTARTS": str(self._restarts),
        }
        if self._cpu_devices:
            count = f"--xla_force_host_platform_device_count={self._cpu_devices}"
            flags = f"{os.environ.get('XLA_FLAGS', '')} {count}"  # the last one counts
            own |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags.strip()}
        elif self._count > 1 and "JAX_LOCAL_DEVICE_IDS" not in os.environ:
            share = _share_of_gpus(_gpu_count(), i, self._count)
            if share:
                own["JAX_LOCAL_DEVICE_IDS"] = ",".join(map(str, share))
        return os.environ | own

    def _wait(self) -> int | None:
        """Returns the number of the process that failed first; None when all are done.

        A process that ended because another died may be noticed before that one: it
        is the cause only where no other fails by itself.
        """
        running, failed, end = set(range(self._count)), None, 0.0
        while running:
            time.sleep(0.05)
            for i in sorted(running):
                status = self._processes[i].poll()
                if status is None:
                    continue
                running.discard(i)
                killed_by_us = end == float("inf")
                known = failed is not None and (
                    self._processes[failed].returncode != LOST or status == LOST
                )
                if status == 0 or killed_by_us or known:
                    continue
                if failed is None:
                    end = time.monotonic() + self._grace_s
                failed = i
                others = "; the others are to end with it" if running else ""
                _print(f"process {i} {_ending(status)}{others}")
            if failed is not None and running and time.monotonic() > end:
                for i in sorted(running):
                    _print(f"process {i} does not end by itself: killed")
                    self._processes[i].kill()
                end = float("inf")
        return failed

    def _forward(self, number: int) -> None:
        self.stop_requested = True
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)


def _prefix(source: IO[bytes] | None, process: int, target: int) -> None:
    """Copies whole lines to a file descriptor, so that those of two never mix."""
    assert source is not None
    for line in source:
        if line.startswith(b"[Gloo] Rank"):
            continue  # the CPU backend counts its connections, for every collective
        try:
            os.write(target, f"[{process}] ".encode() + line.rstrip(b"\n") + b"\n")
        except OSError:  # the reader of our output went away
            pass


def _ending(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"left with status {code}"


def _status(process: subprocess.Popen) -> int:
    code = process.returncode
    return 128 - code if code < 0 else code


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _gpu_count() -> int:
    """Returns how many GPUs this shell may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([word for word in visible.split(",") if word.strip()])
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def _share_of_gpus(gpus: int, process: int, processes: int) -> range:
    """Returns the GPUs of a process: equal shares, or none where that is impossible."""
    each = gpus // processes if gpus % processes == 0 else 0
    return range(process * each, (process + 1) * each)


def _print(line: str) -> None:
    print(f"launch.cluster.local: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    interrupts.leave(exit_status(main))
