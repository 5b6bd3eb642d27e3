"""Ends all processes of a job when one fails, with a line that names it.

JAX ends the survivors of a dead process too, but late, by an abort that names none.
Here each process holds a connection to process 0: if it breaks without a goodbye, the
process has died; a process that ends with an error sends it first.
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
from typing import Any

from attunet_jax.errors import INTERRUPTED

# What JAX's own abort would give (128 + SIGABRT): launch scripts start the job again.
LOST = 134
# How long an error of another process waits for our own, which may be the same.
PATIENCE_S = 10.0


class FailureDetector:
    """The connection of one process, or all connections where it is process 0."""

    def __init__(self, process: int, processes: int, host: str) -> None:
        self._process, self._processes = process, processes
        self._host = host
        self._lock = threading.Lock()
        self._peers: dict[int, socket.socket] = {}
        self._gone: set[int] = set()  # sent a goodbye or an error
        self._leaving = False

    def leave(self, status: int, line: str) -> None:
        """Ends this process with `status`, and the others with it. Never returns.

        Process 0 prints the line and ends last, as JAX's coordinator runs in it.
        """
        with self._lock:
            first, self._leaving = not self._leaving, True
        if not first:  # another thread ends the process already
            time.sleep(2 * PATIENCE_S)
        if self._process == 0:
            _print_error(line)
            self._send({"status": status, "line": line})
            self._wait_for_others()
        else:
            alone = not self._peers
            self._send({"status": status, "line": line})
            if alone:
                _print_error(f"process {self._process} ({self._host}): {line}")
        _end(status)

    def goodbye(self) -> None:
        """Announces that this process is done; later failures do not concern it."""
        self._leaving = True
        self._send({"bye": True})

    # Process 0

    def listen(self, token: str) -> int:
        """Opens the port that the others connect to, and returns it."""
        if socket.has_dualstack_ipv6():
            family, dual = socket.AF_INET6, True
        else:
            family, dual = socket.AF_INET, False
        server = socket.create_server(("", 0), family=family, dualstack_ipv6=dual)
        _thread(self._accept, server, token)
        return server.getsockname()[1]

    def _accept(self, server: socket.socket, token: str) -> None:
        while True:
            connection, _ = server.accept()
            _thread(self._follow, connection, token)

    def _follow(self, connection: socket.socket, token: str) -> None:
        _keep_alive(connection)
        lines = connection.makefile("r", encoding="utf-8")
        hello = _read(lines)
        if not hmac.compare_digest(str(hello.get("token")), token):
            connection.close()
            return
        process, host = int(hello["process"]), str(hello["host"])
        self._peers[process] = connection
        message = _read(lines)
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
            f"error: process {process} of {self._processes} ({host}) died; the last "
            "checkpoint is whole: the same command continues from it",
        )

    def _wait_for_others(self) -> None:
        end = time.monotonic() + PATIENCE_S
        while len(self._gone) < self._processes - 1 and time.monotonic() < end:
            time.sleep(0.05)

    # The others

    def connect(self, host: str, port: int, token: str) -> None:
        """Connects to process 0. Raises `OSError` where that is not possible."""
        connection = socket.create_connection((host, port), 20)
        connection.settimeout(None)
        _keep_alive(connection)
        self._peers[0] = connection
        self._send({"token": token, "process": self._process, "host": self._host})
        _thread(self._listen_to_0, connection)

    def _listen_to_0(self, connection: socket.socket) -> None:
        message = _read(connection.makefile("r", encoding="utf-8"))
        if self._leaving or message.get("bye"):
            return
        if "status" in message:  # process 0 has printed why
            if message["status"] != INTERRUPTED:
                _end(message["status"])
            return
        _print_error(
            f"error: process 0 of {self._processes} died; the last checkpoint is "
            "whole: the same command continues from it"
        )
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
    process: int, processes: int, address: str, share: Callable[[str], list[str]]
) -> FailureDetector:
    """Connects all processes to process 0 at `address`.

    `share(text)` returns the text of every process to each. A process that cannot
    connect relies on JAX's heartbeats alone.
    """
    detector = FailureDetector(process, processes, socket.gethostname())
    token = secrets.token_hex(16)
    port = detector.listen(token) if process == 0 else 0
    message = share(json.dumps({"port": port, "token": token, "address": address}))
    first = json.loads(message[0])
    if process:
        try:
            detector.connect(first["address"], first["port"], first["token"])
        except OSError as error:
            print(
                f"process {process} cannot reach process 0 at {first['address']}: "
                f"{error}; a death is noticed by JAX's heartbeats alone",
                file=sys.stderr,
            )
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


def _keep_alive(connection: socket.socket) -> None:
    """Ends the connection after 25 s of silence, as of a host without power."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("KEEPIDLE", 10), ("KEEPINTVL", 5), ("KEEPCNT", 3)):
        option = getattr(socket, f"TCP_{name}", None)
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _print_error(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _end(status: int) -> None:
    """Exits at once: the main thread may be in a collective that never ends."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
