"""Starts other libraries in processes of their own and asks them for times."""

import json
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

from attunet_jax.errors import BadArguments, BadData
from launch.benchmark.timing import Runner
from launch.benchmark.workload import Size

ROOT = Path(__file__).resolve().parents[3]
LIBRARIES = ("torch", "monai")
# (name, channels last, compute type, torch.compile)
VARIANTS = (
    ("eager", False, "float32", False),
    ("channels_last_3d", True, "float32", False),
    ("channels_last_3d, autocast", True, "bfloat16", False),
)
COMPILED_VARIANTS = (
    ("channels_last_3d, torch.compile", True, "float32", True),
    ("channels_last_3d, autocast, torch.compile", True, "bfloat16", True),
)

COMPILATION_S = 900  # allowed for torch.compile, and for imports


class PeerFailed(Exception):
    """A peer ended or is too slow: it is skipped."""


def check_libraries(libraries: tuple[str, ...], python: str) -> None:
    """Raises `BadArguments` with what to install where a library is missing."""
    script = (
        "import sys, importlib.util as u; "
        "print(*[n for n in sys.argv[1:] if not u.find_spec(n)])"
    )
    # Every peer computes with PyTorch, MONAI's too.
    needed = sorted({"torch", *libraries}) if libraries else []
    if not needed:
        return
    try:
        finished = subprocess.run(
            [python, "-c", script, *needed],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise BadArguments(
            f"--peer_python={python}: is not a working Python ({error})"
        ) from None
    if finished.stdout.strip():
        missing = ", ".join(finished.stdout.split())
        raise BadArguments(
            f"--against={','.join(libraries)}: {python} has no {missing}; "
            "run `pip install -e '.[benchmark]'` there, or choose another --peer_python"
        )


class Peer:
    """A process that runs one network of another library; a context manager.

    Raises `PeerFailed` where it cannot start.
    """

    def __init__(
        self, name: str, python: str, request: dict[str, Any], longest_call_s: float
    ) -> None:
        self.name, self.request = name, request
        self._longest_call_s, self._too_slow = longest_call_s, False
        self._warm: set[str] = set()
        self.compute_dtype: str = request["compute_dtype"]
        self._stderr = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [
                python,
                "-m",
                "launch.benchmark.peers.torch_process",
                json.dumps(request),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        try:
            self.about = self._answer(COMPILATION_S)
        except BaseException:
            self.close()
            raise

    def runner(self, run: str) -> Runner:
        """Returns a `timing.Runner` of its "forward" or "train"."""

        def seconds(calls: int) -> float:
            assert self._process.stdin
            try:
                print(
                    json.dumps({"run": run, "calls": calls}),
                    file=self._process.stdin,
                    flush=True,
                )
            except BrokenPipeError:
                pass  # the process ended; _answer finds out why
            allowed_s = calls * self._longest_call_s
            if run not in self._warm and self.request["compile"]:
                allowed_s += COMPILATION_S
            self._warm.add(run)
            return self._answer(allowed_s)["seconds"]

        return seconds

    def _answer(self, allowed_s: float) -> dict[str, Any]:
        assert self._process.stdout
        timer = threading.Timer(allowed_s, self._stop)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        answer = json.loads(line) if line else {"error": self._reason_of_end()}
        if "error" in answer:
            raise PeerFailed(f"{self.name}: {answer['error']}")
        return answer

    def _stop(self) -> None:
        self._too_slow = True
        self._process.kill()

    def _reason_of_end(self) -> str:
        status = self._process.wait()
        if self._too_slow:
            return f"a call takes longer than --longest_call_s={self._longest_call_s:g}"
        self._stderr.seek(0)
        lines = self._stderr.read().strip().splitlines()
        if status == -9:
            return "was killed, as the system does when memory runs out"
        return f"ended with status {status}: {lines[-1] if lines else 'no message'}"

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._stderr.close()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def peer_requests(
    libraries: tuple[str, ...],
    model: Any,
    classes: int,
    size: Size,
    *,
    backend: str,
    compiled: bool,
) -> dict[str, dict[str, Any]]:
    """Returns name -> request of each peer's process, for one of our networks."""
    requests = {}
    variants = VARIANTS + (COMPILED_VARIANTS if compiled else ())
    for library in libraries:
        if library == "monai" and not model["sub_gates"]:
            continue  # it has no plain U-Net of this kind
        for name, channels_last, compute_dtype, compile_it in variants:
            if library == "monai" and not channels_last:
                continue
            requests[f"{library}, {name}"] = {
                "library": library,
                "widths": list(size.widths),
                "classes": classes,
                "sub_gates": model["sub_gates"],
                "gating": model["gating_channels"],
                "shape": list(size.shape),
                "batch": {"forward": 1, "train": size.batch},
                "device": "cuda" if backend == "gpu" else "cpu",
                "channels_last": channels_last,
                "compute_dtype": compute_dtype,
                "compile": compile_it,
            }
    return requests


def check_equal(peer: Peer, parameters: int) -> None:
    """Raises `BadData` if the peer's published network differs from ours."""
    if peer.request["library"] == "torch" and peer.about["parameters"] != parameters:
        raise BadData(
            f"peer {peer.name} has {peer.about['parameters']:,} parameters, ours "
            f"{parameters:,}: it is another network"
        )
