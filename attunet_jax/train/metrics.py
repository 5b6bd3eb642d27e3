"""Writes metrics: `metrics.jsonl`, TensorBoard events, the terminal, process logs."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from attunet_jax.distributed.progress import PROGRESS
from attunet_jax.errors import BadData
from attunet_jax.files import write_text

# In rows, but not in TensorBoard: a time of day needs 64 bits.
NO_CURVE = {"unix_time_s", "clean_stop"}


class MetricWriter:
    """Writes rows of metrics and events; on a resume drops those beyond `step`.

    A context manager. In processes other than the main one it is not `enabled` and
    writes nothing. `account` is the row of `goodput.Goodput` that a start begins with.
    `also(step, metrics)` gets what each later row holds. Raises `BadData` if the disk
    is full.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        step: int,
        steps: int,
        enabled: bool,
        account: Mapping[str, float] | None = None,
        also: Callable[[int, dict[str, float]], object] = lambda step, metrics: None,
    ) -> None:
        self._also = also
        self._path = workdir / "metrics.jsonl"
        self._steps = steps
        self._enabled = enabled
        if enabled:
            # Late: they take a second, and one process alone needs them.
            import tensorboardX

            from attunet_jax.train.event_files import drop_events_after

            events = workdir / "tensorboard"
            with _writing(self._path):
                _drop_rows_after(self._path, step, account)
                drop_events_after(events, step)
                self._rows = self._path.open("a", encoding="utf-8")
                # Named by the second too; two may begin in one.
                self._events = tensorboardX.SummaryWriter(
                    str(events), filename_suffix=f".{step}"
                )

    def log(
        self,
        step: int,
        metrics: dict[str, float],
        speed: dict[str, float],
        remaining_s: float,
    ) -> None:
        """Writes a row and prints a line; `speed` is that of `monitor.StepTimer`."""
        self.record(step, metrics | speed)
        if self._enabled:
            print(
                f"step {step}/{self._steps}  loss {metrics['loss']:.4f}  "
                f"{speed_text(speed)}  left {duration(remaining_s)}",
                flush=True,
            )

    def record(self, step: int, metrics: dict[str, float]) -> None:
        """Writes a row without printing it."""
        if not self._enabled:
            return
        row = {"step": step, **{k: float(v) for k, v in metrics.items()}}
        with _writing(self._path):
            self._rows.write(json.dumps(row) + "\n")
            self._rows.flush()
            for name in metrics.keys() - NO_CURVE:
                self._events.add_scalar(name, row[name], step)
        self._also(step, {k: v for k, v in row.items() if k != "step"})

    def flush(self) -> None:
        """What was recorded so far is in the files when this returns."""
        if self._enabled:
            with _writing(self._path):
                self._rows.flush()
                self._events.flush()

    def close(self) -> None:
        """Everything is on disk when this returns."""
        if self._enabled:
            with _writing(self._path):
                self._rows.close()
                self._events.close()

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except BadData:
            if kind is None:  # otherwise the first exception says more
                raise


class ProcessLog:
    """`workdir/logs/process_N.log`: what one process did and when, if `enabled`.

    Stacks of a process that hangs go there too, else to the terminal.
    """

    def __init__(self, workdir: Path, process: int, *, enabled: bool) -> None:
        self._file = None
        if enabled:
            self._path = folder = workdir / "logs"
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / f"process_{process}.log").open("a", encoding="utf-8")
            PROGRESS.log = self._file

    def line(self, text: str) -> None:
        """Appends a line, which is on disk when this returns."""
        if self._file:
            with _writing(self._path):
                self._file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
                self._file.flush()

    def close(self) -> None:
        if self._file:
            PROGRESS.log = None
            self._file.close()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadData(
            f"{path}: cannot be written ({error.strerror}); make room there and the "
            "same command continues from the last checkpoint"
        ) from error


def speed_text(speed: dict[str, float]) -> str:
    """0.123 s/step  16.2 cases/s  waiting for data 1%  memory 71%"""
    words = [
        f"{speed['seconds_per_step']:.3f} s/step",
        f"{speed['cases_per_second']:.3g} cases/s",
        f"waiting for data {speed['data_wait_share']:.0%}",
    ]
    if "device_memory_share" in speed:
        words.append(f"memory {speed['device_memory_share']:.0%}")
    return "  ".join(words)


def duration(seconds: float) -> str:
    """1:05:09 or 5:09."""
    minutes, s = divmod(int(seconds + 0.5), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def read_rows(path: Path) -> list[dict]:
    """Reads the rows of a `metrics.jsonl`, without a line that a kill cut short."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
            row["step"] = int(row["step"])
        except (ValueError, KeyError, TypeError):
            continue
        rows.append(row)
    return rows


def _drop_rows_after(
    path: Path, step: int, account: Mapping[str, float] | None
) -> None:
    """Puts the new account in place of that at `step` and of all later rows."""
    rows = read_rows(path) if path.exists() else []
    kept = [row for row in rows if row["step"] <= step]
    if account is not None:
        kept = [r for r in kept if r["step"] < step or "goodput" not in r]
        kept.append({"step": step, **account})
    if rows or kept:
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
