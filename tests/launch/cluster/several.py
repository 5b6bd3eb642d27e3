"""Runs of `launch/cluster/local.sh` for tests: watched, signalled, compared."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict

ROOT = Path(__file__).resolve().parents[3]
STEPS = 12  # of a run, where a test says no other number


class Job:
    """One start of the launcher; its output is kept in a file while it runs."""

    def __init__(self, output: Path, words: list[str], environment: dict) -> None:
        self.output = output
        self._file = output.open("w")
        self.process = subprocess.Popen(
            [ROOT / "launch" / "cluster" / "local.sh", *words],
            cwd=ROOT,
            env=environment,
            stdout=self._file,
            stderr=subprocess.STDOUT,
        )

    def printed(self) -> str:
        return self.output.read_text(errors="replace")

    def end(self, timeout: float = 300) -> int:
        try:
            return self.process.wait(timeout)
        finally:
            if self.process.poll() is None:
                self.process.terminate()
            self._file.close()

    def child(self, number: int) -> int:
        """The process id of one of the processes that run now."""
        for pid in map(int, self._children()):
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            if f"JAX_PROCESS_ID={number}".encode() in environment:
                return pid
        raise AssertionError(f"no process {number}: {self.printed()}")

    def _children(self) -> list[str]:
        pid = self.process.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()

    def send(self, number: int, to: signal.Signals) -> None:
        """Signals process `number` now."""
        os.kill(self.child(number), to)

    def signal_after(self, text: str, number: int, to: signal.Signals) -> bool:
        """Signals process `number` once `text` was printed; False if all ended first.

        The launcher's `exec` keeps the pid, so its children are the processes.
        """
        while text not in self.printed():
            if self.process.poll() is not None:
                self._file.close()
                return False
            try:
                self.process.wait(0.05)
            except subprocess.TimeoutExpired:
                pass
        self.send(number, to)
        return True


# 2026-11-24: read as NumPy, so that it does not matter on which devices it was saved.
def state_of(workdir: Path, step: int) -> dict[tuple[str, ...], np.ndarray]:
    """Parameters and statistics of a checkpoint, by path."""
    place = (workdir / "checkpoints" / str(step) / "state").absolute()
    with ocp.PyTreeCheckpointer() as reader:
        metadata: Any = reader.metadata(place)
        plain = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
            metadata.item_metadata.tree,
        )
        tree = reader.restore(place, restore_args=plain)
    leaves = {"params": tree["params"], "stats": tree["batch_stats"]}
    return {path: np.asarray(leaf) for path, leaf in flatten_dict(leaves).items()}  # pyright: ignore[reportReturnType]


def assert_same_state(a: Path, b: Path, step: int, within: float = 0.0) -> None:
    expected, got = state_of(a, step), state_of(b, step)
    assert expected.keys() == got.keys() and len(expected) > 30
    for path, array in expected.items():
        np.testing.assert_allclose(
            got[path], array, rtol=0, atol=within, err_msg=str(path)
        )


def losses(workdir: Path) -> dict[int, float]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def validation_dice(workdir: Path) -> list[dict]:
    """The rows of validation: step, held_out_dice and that of each organ."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if "held_out_dice" in row]


def cases_of(workdir: Path) -> dict[int, dict[int, list[str]]]:
    """step -> process -> the cases it read, the last time the step was done.

    A step may be done again after a kill; whenever it was, it must be with the same.
    """
    found: dict[int, dict[int, list[str]]] = {}
    for path in sorted((workdir / "logs").glob("process_*.log")):
        process = int(path.stem.partition("_")[2])
        for step, names in re.findall(r" step (\d+): cases (.*)", path.read_text()):
            found.setdefault(int(step), {})[process] = names.split()
    return found
