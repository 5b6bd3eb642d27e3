"""Sends the metrics of a training elsewhere too, by a function of the user's.

`--on_metrics=FILE.py:FUNCTION` names it; docs/metrics_hooks.py has some. Process 0
calls FUNCTION(workdir, config) before the first step, `config` being a dict, and what
it returns with (step, metrics) for each row of metrics.jsonl. Its `close`, if it has
one, is called at the end, whatever ended the training.
"""

import runpy
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attunet_jax.errors import BadArguments, one_line
from attunet_jax.files import local_path

OnMetrics = Callable[[int, Mapping[str, float]], object]


@contextmanager
def opened(given: str | None, workdir: Path, config: Any) -> Iterator[OnMetrics]:
    """Yields what takes (step, metrics); without `given` it does nothing.

    Raises `BadArguments` where FUNCTION is missing or fails at the start. A failure
    afterwards is one line, and the training goes on without it: metrics.jsonl has all.
    """
    if not given:
        yield lambda step, metrics: None
        return
    hook = _start(given, workdir, config)
    working = True

    def send(step: int, metrics: Mapping[str, float]) -> None:
        nonlocal working
        if working:
            working = _tried(given, lambda: hook(step, dict(metrics)))

    try:
        yield send
    finally:
        close = getattr(hook, "close", None)
        if callable(close):
            _tried(given, close)


def _start(given: str, workdir: Path, config: Any) -> OnMetrics:
    name, _, function = given.rpartition(":")
    if not name.endswith(".py") or not function.isidentifier():
        raise BadArguments(f"--on_metrics={given}: is not FILE.py:FUNCTION")
    path = local_path(name)
    if not path.is_file():
        raise BadArguments(f"--on_metrics={given}: there is no file {path}")
    try:
        start = runpy.run_path(str(path)).get(function)
        if not callable(start):
            raise BadArguments(f"--on_metrics={given}: {path} has no such function")
        hook = start(Path(workdir), config.to_dict())
    except BadArguments:
        raise
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        raise BadArguments(
            f"--on_metrics={given}: {type(error).__name__}: {one_line(error)[:200]}"
        ) from None
    if not callable(hook):
        raise BadArguments(
            f"--on_metrics={given}: {function}(workdir, config) must return a function "
            "of (step, metrics)"
        )
    return hook


def _tried(given: str, call: Callable[[], object]) -> bool:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - as above
        print(
            f"warning: --on_metrics={given}: {type(error).__name__}: "
            f"{one_line(error)[:200]}; the training goes on without it, metrics.jsonl "
            "has all metrics",
            file=sys.stderr,
            flush=True,
        )
        return False
    return True
