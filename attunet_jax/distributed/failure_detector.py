"""Ends all processes of a job when one fails or hangs, with a line that names it.

JAX ends the survivors of a dead process too, but late, by an abort that names none; a
process that lives and hangs stops all others for ever. Here each process holds a
connection to process 0 and sends over it, every second, how far it is:

- a connection that breaks without a goodbye: the process has died;
- none of the processes makes progress within its limit (`progress.Report`): one hangs,
  the one that is behind; all write their stacks;
- nothing comes any more: the process was stopped, or its host is gone.

Process 0 decides, and answers how much longer the job may be idle; if it hangs itself,
the others find that out by this time. A single process watches itself.
"""

import hmac
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from attunet_jax.distributed.loopback import server_at
from attunet_jax.distributed.progress import PROGRESS, Progress, Report
from attunet_jax.distributed.who_is_behind import (
    CONTINUES,
    INTERVAL_S,
    is_silent,
    who_hangs,
    who_is_silent,
)
from attunet_jax.distributed.who_is_behind import slack_s as slack_of_job
from attunet_jax.errors import INTERRUPTED

# What JAX's own abort would give (128 + SIGABRT): launch scripts start the job again.
LOST = 134
# How long an error of another process waits for our own, which may be the same.
PATIENCE_S = 10.0


# Process 0 finds a hang first; the others only where it does not.
GRACE_S = 5.0
# A share of JAX's own limit, so that this line comes before its abort.
SILENCE_SHARE = 0.8


class FailureDetector:
    """The connection of one process, or all connections where it is process 0.

    `silence_s` is how long a process may say nothing.
    """

    def __init__(
        self,
        process: int,
        processes: int,
        host: str,
        *,
        silence_s: float = float("inf"),
        progress: Progress = PROGRESS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._process, self._processes = process, processes
        self._hosts = {process: host}
        self._silence_s = silence_s
        self._progress, self._clock = progress, clock
        self._lock = threading.Lock()
        self._peers: dict[int, socket.socket] = {}
        self._gone: set[int] = set()  # sent a goodbye or an error
        # What a process said last, and when; in process 0 that of all.
        self._reports: dict[int, tuple[Report, float]] = {}
        # Elsewhere: how long the job may be idle, and when process 0 said so.
        self._word: tuple[float, float] | None = None
        self._leaving = False

    def watch(self) -> None:
        """Begins to say how far this process is, and to look after all."""
        _thread(self._watch)

    def leave(
        self, status: int, line: str, *, stacks: bool = False, alone: bool = False
    ) -> None:
        """Ends this process with `status`, and the others with it. Never returns.

        Process 0 prints the line and ends last, as JAX's coordinator runs in it; where
        there is none to print it, or it does not (`alone`), this one does. With
        `stacks` each process writes those of its threads into its log.
        """
        with self._lock:
            first, self._leaving = not self._leaving, True
        if not first:  # another thread ends the process already
            time.sleep(2 * PATIENCE_S)
        message = {"status": status, "line": line, "stacks": stacks}
        if self._process == 0:
            _print_error(line)
            self._send(message)
            if stacks:
                self._progress.write_stacks(line)
            self._wait_for_others()
        else:
            alone = alone or not self._peers
            self._send(message)
            if stacks:
                self._progress.write_stacks(line)
            if alone:
                host = self._hosts[self._process]
                _print_error(f"process {self._process} ({host}): {line}")
        _end(status)

    def goodbye(self) -> None:
        """Announces that this process is done; later failures do not concern it."""
        self._leaving = True
        self._send({"bye": True})

    def _watch(self) -> None:
        before = self._clock()
        while not self._leaving:
            time.sleep(INTERVAL_S)
            now = self._clock()
            self._look(now, now - before - INTERVAL_S)
            before = now

    def _look(self, now: float, late_s: float) -> None:
        """Once every interval; `late_s` after it this process came to itself."""
        if self._leaving:
            return
        if late_s > INTERVAL_S:  # stopped and continued, as a suspended job is
            self._progress.stood_still(late_s)
            with self._lock:
                for i, (report, at) in self._reports.items():
                    self._reports[i] = report, at + late_s
                if self._word:
                    self._word = self._word[0], self._word[1] + late_s
        own = self._progress.report()
        if self._process:
            self._send({"report": asdict(own)})
            self._look_at_0(own, now)
            return
        with self._lock:
            self._reports[0] = own, now
            reports = {
                i: (report, now - at)
                for i, (report, at) in self._reports.items()
                if i not in self._gone
            }
        line = who_is_silent(reports, self._processes, self._hosts, self._silence_s)
        stacks = line is None
        line = line or who_hangs(reports, self._processes, self._hosts)
        if line:
            self.leave(LOST, f"error: {line}", stacks=stacks)
        self._send({"slack_s": slack_of_job(reports)})

    def _look_at_0(self, own: Report, now: float) -> None:
        """Whether process 0 has to be given up, which would have found a hang."""
        if not self._word:
            return
        slack_s, silent_s = self._word[0], now - self._word[1]
        hangs = max(own.slack_s, slack_s - silent_s) < -GRACE_S
        if hangs or silent_s > self._silence_s + GRACE_S:
            self.leave(
                LOST,
                f"error: process 0 of {self._processes} says nothing since "
                f"{silent_s:.0f} s: it was stopped, hangs, or its host is gone; "
                f"{CONTINUES}",
                stacks=hangs,
                alone=True,
            )

    # Process 0

    def listen(self, token: str, address: str = "") -> int:
        """Opens the port that the others connect to, and returns it.

        On the interface of `address` alone, where that is one of this host's.
        """
        server = server_at(address) or server_at("")
        assert server is not None
        _thread(self._accept, server, token)
        return server.getsockname()[1]

    def _accept(self, server: socket.socket, token: str) -> None:
        while True:
            connection, _ = server.accept()
            _thread(self._follow, connection, token)

    def _follow(self, connection: socket.socket, token: str) -> None:
        lines = connection.makefile("r", encoding="utf-8")
        hello = _read(lines)
        if not hmac.compare_digest(str(hello.get("token")), token):
            connection.close()
            return
        process, host = int(hello["process"]), str(hello["host"])
        self._hosts[process] = host
        with self._lock:
            self._peers[process] = connection
            self._reports[process] = Report(), self._clock()
        while "report" in (message := _read(lines)):
            with self._lock:
                self._reports[process] = Report(**message["report"]), self._clock()
        self._gone.add(process)
        if message.get("bye") or self._leaving:
            return
        if "status" in message:
            if message["status"] == INTERRUPTED:
                return  # all stop at this step; ours is still being saved
            time.sleep(PATIENCE_S)
            if not self._leaving:
                self.leave(
                    message["status"], f"process {process} ({host}): {message['line']}"
                )
            return
        self.leave(
            LOST,
            f"error: process {process} of {self._processes} ({host}) died; {CONTINUES}",
        )

    def _wait_for_others(self) -> None:
        """Not for those that say nothing: they may be stopped."""
        now = self._clock()
        with self._lock:
            silent = {i for i, (_, at) in self._reports.items() if is_silent(now - at)}
        others = set(range(1, self._processes)) - silent
        end = time.monotonic() + PATIENCE_S
        while others - self._gone and time.monotonic() < end:
            time.sleep(0.05)

    # The others

    def connect(self, host: str, port: int, token: str) -> None:
        """Connects to process 0. Raises `OSError` where that is not possible."""
        connection = socket.create_connection((host, port), 20)
        connection.settimeout(None)
        self._peers[0] = connection
        own_host = self._hosts[self._process]
        self._send({"token": token, "process": self._process, "host": own_host})
        _thread(self._listen_to_0, connection)

    def _listen_to_0(self, connection: socket.socket) -> None:
        lines = connection.makefile("r", encoding="utf-8")
        while "slack_s" in (message := _read(lines)):
            with self._lock:
                self._word = message["slack_s"], self._clock()
        self._word = None  # no more will come
        if self._leaving or message.get("bye"):
            return
        if "status" in message:  # process 0 has printed why
            if message.get("stacks"):
                self._progress.write_stacks(message["line"])
            if message["status"] != INTERRUPTED:
                _end(message["status"])
            return
        _print_error(f"error: process 0 of {self._processes} died; {CONTINUES}")
        _end(LOST)

    def _send(self, message: dict[str, Any]) -> None:
        line = (json.dumps(message) + "\n").encode()
        with self._lock:
            for peer in list(self._peers.values()):
                try:
                    peer.sendall(line)
                except OSError:
                    pass  # it is gone; its connection's thread reports that


def start(
    process: int,
    processes: int,
    address: str,
    share: Callable[[str], list[str]],
    heartbeat_timeout_s: float,
) -> FailureDetector:
    """Connects all processes to process 0 at `address`, and watches from then on.

    `share(text)` returns the text of every process to each. A process that cannot
    connect relies on JAX's heartbeats alone.
    """
    detector = FailureDetector(
        process,
        processes,
        socket.gethostname(),
        silence_s=SILENCE_SHARE * heartbeat_timeout_s,
    )
    token = secrets.token_hex(16)
    port = detector.listen(token, address) if process == 0 else 0
    message = share(json.dumps({"port": port, "token": token, "address": address}))
    first = json.loads(message[0])
    if process:
        try:
            detector.connect(first["address"], first["port"], first["token"])
        except OSError as error:
            print(
                f"process {process} cannot reach process 0 at {first['address']}: "
                f"{error}; a death is noticed by JAX's heartbeats alone, a hang of all "
                "by no one",
                file=sys.stderr,
            )
    detector.watch()
    return detector


def start_alone() -> FailureDetector:
    """Watches a single process."""
    detector = FailureDetector(0, 1, socket.gethostname())
    detector.watch()
    return detector


def _thread(target: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=target, args=arguments, daemon=True).start()


def _read(lines: Any) -> dict[str, Any]:
    """The next message; empty if the connection is closed or sends something else."""
    try:
        message = json.loads(lines.readline(100_000) or "{}")
    except (OSError, ValueError):
        return {}
    return message if isinstance(message, dict) else {}


def _print_error(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _end(status: int) -> None:
    """Exits at once: the main thread may be in a collective that never ends."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
