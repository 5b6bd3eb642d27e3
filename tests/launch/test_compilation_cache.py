"""What was compiled is found at the next start: a real JAX in real processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch.cli import keep_compiled

PROGRAM = """
from launch.cli import keep_compiled
keep_compiled()
import jax
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
jax.jit(lambda x: (x @ x).sum())(jax.numpy.ones((8, 8)))
print(hits.count("/jax/compilation_cache/cache_hits"))
"""


def start(home: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if "CACHE" not in k} | {
        "XDG_CACHE_HOME": str(home),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).resolve().parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_the_second_start_finds_what_the_first_compiled(tmp_path):
    assert start(tmp_path) == "0"
    assert int(start(tmp_path)) >= 1
    (folder,) = (tmp_path / "attunet_jax" / "xla").iterdir()
    assert any(folder.iterdir())


@pytest.fixture
def environment(monkeypatch):
    # Set first, so that what the code sets is taken back.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    return monkeypatch


def test_a_place_that_was_chosen_is_kept(environment, tmp_path):
    environment.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    environment.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep_compiled()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "/elsewhere"
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be_written_does_without(environment, tmp_path):
    blocked = tmp_path / "a file"
    blocked.touch()
    environment.setenv("XDG_CACHE_HOME", str(blocked))
    keep_compiled()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
