"""Runs N processes of one program on this machine, as a cluster would on N hosts.

    launch/cluster/local.sh 2 -- --data=DIR --workdir=RUN
    launch/cluster/local.sh 2 --cpu_devices=4 --max_restarts=3 -- \\
        --data=DIR --workdir=RUN
    launch/cluster/local.sh 2 -- launch.train --data=DIR --dry_run

What stands after `--` goes to launch.train, or to the module named first. Every line
of output begins with the number of its process. When one process fails the others
are ended and it is named; the exit status is its own (128 + signal for a signal), not
that of those that left because it died.
SIGTERM and Ctrl-C go on to all of them.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import IO

from attunet_jax.distributed.failure_detector import LOST
from attunet_jax.errors import BAD_ARGUMENTS, INTERRUPTED, exit_status

# Interrupted with everything saved; aborted for want of another; killed.
WORTH_A_RESTART = (INTERRUPTED, LOST, 137)


def main() -> int:
    """The status of the process that failed first, or 0."""
    argv = sys.argv[1:]
    if "--" not in argv and not {"-h", "--help"} & set(argv):
        print("error: what to run comes after -- (--help)", file=sys.stderr)
        return BAD_ARGUMENTS
    cut = argv.index("--") if "--" in argv else len(argv)
    own, words = _parser().parse_args(argv[:cut]), argv[cut + 1 :]
    if own.n < 1:
        print(f"error: {own.n} processes are none", file=sys.stderr)
        return BAD_ARGUMENTS
    if not words or words[0].startswith("-"):
        words = ["launch.train", *words]
    restarts = 0
    while True:
        job = Job(own.n, words, own.cpu_devices, own.grace_s)
        status = job.run()
        again = status in WORTH_A_RESTART and not job.told_to_stop
        if not again or restarts == own.max_restarts:
            return status
        restarts += 1
        _say(f"status {status}: start {restarts} of {own.max_restarts} more")


class Job:
    """N processes from start to end, once."""

    def __init__(
        self, count: int, words: list[str], cpu_devices: int | None, grace_s: float
    ) -> None:
        self._count, self._words, self._grace_s = count, words, grace_s
        self._cpu_devices = cpu_devices
        self._processes: list[subprocess.Popen] = []
        self.told_to_stop = False

    def run(self) -> int:
        before = {
            number: signal.signal(number, self._pass_on)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            return self._run()
        finally:
            for process in self._processes:
                if process.poll() is None:
                    process.kill()
            for number, handler in before.items():
                signal.signal(number, handler)

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
            for source, to in ((process.stdout, 1), (process.stderr, 2)):
                reader = threading.Thread(target=_prefix, args=(source, i, to))
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
        """Number of the process that failed first; None where all are done.

        One that left because another died may be seen before that one: it is the
        cause only where no other fails by itself.
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
                _say(f"process {i} {_ending(status)}{others}")
            if failed is not None and running and time.monotonic() > end:
                for i in sorted(running):
                    _say(f"process {i} does not end by itself: killed")
                    self._processes[i].kill()
                end = float("inf")
        return failed

    def _pass_on(self, number: int, _: object) -> None:
        self.told_to_stop = True
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)


def _prefix(source: IO[bytes] | None, process: int, to: int) -> None:
    """Copies whole lines, so that those of two processes never mix."""
    assert source is not None
    for line in source:
        if line.startswith(b"[Gloo] Rank"):
            continue  # the CPU backend counts its connections, for every collective
        try:
            os.write(to, f"[{process}] ".encode() + line.rstrip(b"\n") + b"\n")
        except OSError:  # our own reader went away
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
    """That this shell may use; 0 where there are none."""
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
    """Equal shares in order; empty where they cannot be equal."""
    each = gpus // processes if gpus % processes == 0 else 0
    return range(process * each, (process + 1) * each)


def _say(line: str) -> None:
    print(f"launch.cluster.local: {line}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launch/cluster/local.sh",
        usage="launch/cluster/local.sh N [flags] -- [module] arguments",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("n", type=int, help="how many processes")
    parser.add_argument(
        "--cpu_devices", type=int, help="CPU only, so many simulated devices each"
    )
    parser.add_argument(
        "--max_restarts", type=int, default=0, help="after status 75, 134 or 137"
    )
    parser.add_argument(
        "--grace_s",
        type=float,
        default=30.0,
        help="how long the others may take to end by themselves (30)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(exit_status(main))
