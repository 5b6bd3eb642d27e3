"""A page in headless Chromium, driven through the browser's own pipe."""

import json
import os
import select
import shutil
import subprocess
import sys
import time

PROGRAM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
# Without them it asks for updates and looks up hosts.
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--disable-dev-shm-usage --remote-debugging-pipe"
).split()
PATIENCE_S = 30
# The browser reads from 3 and writes to 4. JAX in this process forbids to fork it.
_PLACE = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(word), fcntl.F_DUPFD, 20) for word in sys.argv[1:3]]
for number, pipe in zip((3, 4), pipes):
    os.dup2(pipe, number)
    os.set_inheritable(number, True)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One page; `events` are what the browser told of it: requests, errors, logs."""

    def __init__(self, profile):
        assert PROGRAM is not None
        read, self._write = os.pipe()
        self._read, write = os.pipe()

        self._process = subprocess.Popen(
            [sys.executable, "-c", _PLACE, str(read), str(write), PROGRAM, *FLAGS]
            + [f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(read, write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        self.events, self._buffer, self._number = [], b"", 0
        self._session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _next(self):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], PATIENCE_S)
            assert ready, "the browser does not answer"
            self._buffer += os.read(self._read, 2**20)
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, path):
        self.call("Page.navigate", url=path.as_uri())
        while not self.value("document.readyState === 'complete'"):
            time.sleep(0.05)

    def value(self, expression):
        """What JavaScript gives, as JSON."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, text="\r",
                windowsVirtualKeyCode=13,
            )  # fmt: skip

    def told(self, *methods):
        return [e["params"] for e in self.events if e.get("method") in methods]

    def close(self):
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        os.close(self._read)
        os.close(self._write)
