"""Metrics that go elsewhere too: the documented hooks, and hooks that fail."""

import runpy
import socket
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from ml_collections import ConfigDict

from attunet_jax.errors import BadArguments
from attunet_jax.train.metrics import MetricWriter
from launch import metrics_hook

DOCUMENTED = Path(__file__).resolve().parents[2] / "docs" / "metrics_hooks.py"
CONFIG = ConfigDict({"train": {"steps": 3}})


@pytest.fixture
def hook_of(tmp_path):
    def opened(code: str, function: str = "start"):
        (tmp_path / "hook.py").write_text(code)
        given = f"{tmp_path}/hook.py:{function}"
        return metrics_hook.opened(given, tmp_path / "run", CONFIG)

    return opened


def test_a_hook_gets_the_rows_of_metrics_jsonl_and_is_closed(hook_of, tmp_path):
    code = """
def start(workdir, config):
    lines = [f"{workdir.name} {config['train']['steps']}"]
    def write(step, metrics):
        lines.append(f"{step} {sorted(metrics.items())}")
    write.close = lambda: (workdir / "seen").write_text("\\n".join(lines))
    return write
"""
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(KeyboardInterrupt), hook_of(code) as on_metrics:
        with MetricWriter(run, step=0, steps=3, enabled=True, also=on_metrics) as w:
            w.record(1, {"loss": 0.5, "rate": 2})
            w.record(1, {"held_out_dice": 0.25})
            raise KeyboardInterrupt
    assert (run / "seen").read_text().splitlines() == [
        "run 3",
        "1 [('loss', 0.5), ('rate', 2.0)]",
        "1 [('held_out_dice', 0.25)]",
    ]


def test_a_hook_that_fails_later_is_one_line_and_not_called_again(hook_of, capsys):
    code = """
def start(workdir, config):
    def write(step, metrics):
        raise OSError(f"no network at step {step}")
    return write
"""
    with hook_of(code) as on_metrics:
        on_metrics(1, {"loss": 1.0})
        on_metrics(2, {"loss": 1.0})
    (line,) = capsys.readouterr().err.splitlines()
    assert "OSError: no network at step 1" in line and "goes on" in line


def test_a_hook_that_cannot_start_is_one_line_before_training(hook_of, tmp_path):
    cases = {
        ("def start(workdir, config):\n    import not_there", "start"): "not_there",
        ("def start(workdir, config): pass", "start"): "must return a function",
        ("x = 1", "start"): "no such function",
        ("def broken(:", "start"): "SyntaxError",
        ("", "a b"): "FILE.py:FUNCTION",
    }
    for (code, function), said in cases.items():
        with pytest.raises(BadArguments, match=said) as error:
            with hook_of(code, function):
                pass
        assert "\n" not in str(error.value) and "--on_metrics=" in str(error.value)
    with pytest.raises(BadArguments, match="no file"):
        with metrics_hook.opened("gone.py:start", tmp_path, CONFIG):
            pass


def test_without_a_hook_nothing_happens(tmp_path):
    with metrics_hook.opened(None, tmp_path, CONFIG) as on_metrics:
        on_metrics(1, {"loss": 1.0})
    assert not list(tmp_path.iterdir())


def test_prometheus_is_served_the_newest_values():
    pytest.importorskip("prometheus_client")
    start = runpy.run_path(str(DOCUMENTED))["prometheus"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    write = start(Path("first"), {}, port)
    try:
        write(7, {"loss": 0.75})
        write(8, {"loss": 0.5})
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as r:
            lines = r.read().decode().splitlines()
    finally:
        write.close()
    assert 'attunet{metric="loss",run="first"} 0.5' in lines
    assert 'attunet{metric="step",run="first"} 8.0' in lines


def test_wandb_and_mlflow_get_what_their_functions_take(monkeypatch):
    seen = []

    def log(*args, **words):
        seen.append((args, words))

    run = SimpleNamespace(log=log, finish=lambda: seen.append("finish"))
    wandb = SimpleNamespace(init=lambda **words: seen.append(words) or run)
    mlflow = SimpleNamespace(
        set_experiment=log,
        start_run=log,
        log_metrics=log,
        end_run=lambda: seen.append("end"),
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    hooks = runpy.run_path(str(DOCUMENTED))
    for name, end in (("wandb", "finish"), ("mlflow", "end")):
        write = hooks[name](Path("RUNS/first"), {"a": 1})
        write(3, {"loss": 0.5})
        write.close()
        assert seen[-2:] == [(({"loss": 0.5},), {"step": 3}), end]
    assert seen[0]["id"] == "first" and seen[0]["resume"] == "allow"
