"""Metrics in; `metrics.jsonl`, TensorBoard events and a line on the terminal out."""

import json
import time
from pathlib import Path

import tensorboardX


class Journal:
    """Writes what happens; a resume drops rows beyond the restored step."""

    def __init__(self, workdir: Path, *, step: int, steps: int) -> None:
        self._path = workdir / "metrics.jsonl"
        self._steps = steps
        _drop_rows_after(self._path, step)
        self._rows = self._path.open("a", encoding="utf-8")
        self._events = tensorboardX.SummaryWriter(
            str(workdir / "tensorboard"), purge_step=step + 1 if step else None
        )
        self._mark, self._mark_step = time.perf_counter(), step
        self._waited_s = self._paused_s = 0.0

    def waited(self, seconds: float) -> None:
        """Adds time in which the loop stood still for want of data."""
        self._waited_s += seconds

    def paused(self, seconds: float) -> None:
        """Adds time that was not training: held-out measurement, compilation."""
        self._paused_s += seconds

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """A row and a line for the steps since the last call."""
        now = time.perf_counter()
        count = max(step - self._mark_step, 1)
        busy = max(now - self._mark - self._paused_s, 1e-9)
        figures = {
            "seconds_per_step": busy / count,
            "data_wait_share": min(self._waited_s / busy, 1.0),
        }
        self.record(step, metrics | figures)
        # Time left counts the pauses too: they come again.
        left = (now - self._mark) / count * (self._steps - step)
        print(
            f"step {step}/{self._steps}  loss {metrics['loss']:.4f}  "
            f"{figures['seconds_per_step']:.3f} s/step  "
            f"waiting for data {figures['data_wait_share']:.0%}  left {duration(left)}",
            flush=True,
        )
        self._mark, self._mark_step = now, step
        self._waited_s = self._paused_s = 0.0

    def record(self, step: int, metrics: dict[str, float]) -> None:
        """A row in the files, silently."""
        row = {"step": step, **{k: float(v) for k, v in metrics.items()}}
        self._rows.write(json.dumps(row) + "\n")
        self._rows.flush()
        for name, value in metrics.items():
            self._events.add_scalar(name, float(value), step)

    def close(self) -> None:
        self._rows.close()
        self._events.close()


def duration(seconds: float) -> str:
    """1:05:09 or 5:09."""
    minutes, s = divmod(int(seconds + 0.5), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def read_rows(path: Path) -> list[dict]:
    """The rows of a `metrics.jsonl`, without a line that a kill cut short."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
            row["step"] = int(row["step"])
        except (ValueError, KeyError, TypeError):
            continue
        rows.append(row)
    return rows


def _drop_rows_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [json.dumps(row) + "\n" for row in read_rows(path) if row["step"] <= step]
    beside = path.with_name(".metrics.jsonl.new")
    beside.write_text("".join(kept), encoding="utf-8")
    beside.replace(path)
