"""Large pages of memory for programs on CPUs, seen in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch import large_pages

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import os, sys
from pathlib import Path
print(os.getpid(), flush=True)
from launch.large_pages import use_large_pages
use_large_pages()
held = b"x" * (64 << 20)
rollup = Path("/proc/self/smaps_rollup").read_text().split("AnonHugePages:")[1]
print(sys.argv[1:], os.environ.get("GLIBC_TUNABLES"), int(rollup.split()[0]) >> 10)
"""

on_request = pytest.mark.skipif(
    not large_pages._for_the_asking(), reason="large pages are not for the asking here"
)


def run(tmp_path: Path, **environment: str) -> list[str]:
    """Lines of the program, with JAX_PLATFORMS=cpu unless `environment` says else."""
    (tmp_path / "program.py").write_text(PROGRAM)
    inherited = {k: v for k, v in os.environ.items() if k != large_pages.VARIABLE}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "program", "--one=a b", "two"],
        cwd=tmp_path,
        env=inherited
        | {"PYTHONPATH": f"{tmp_path}:{ROOT}", "JAX_PLATFORMS": "cpu"}
        | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


@on_request
def test_the_program_begins_once_more_as_the_same_process_with_large_pages(tmp_path):
    first, second, said = run(tmp_path)
    assert first == second
    words, megabytes = said.rsplit(" ", 1)
    assert words == "['--one=a b', 'two'] glibc.malloc.hugetlb=1"
    assert int(megabytes) >= 20  # of 64: Linux gives as many as it has


@pytest.mark.parametrize(
    ("environment", "kept"),
    [
        ({"GLIBC_TUNABLES": ""}, ""),
        ({"GLIBC_TUNABLES": "glibc.malloc.check=0"}, "glibc.malloc.check=0"),
        ({"JAX_PLATFORMS": "cuda,cpu"}, "None"),
    ],
)
def test_it_goes_on_where_the_user_chose_or_an_accelerator_is_meant(
    tmp_path, environment, kept
):
    *pids, said = run(tmp_path, **environment)
    assert len(pids) == 1
    assert said.rsplit(" ", 1)[0] == f"['--one=a b', 'two'] {kept}"


@on_request
@pytest.mark.parametrize(
    "words",
    [
        ("launch.predict", "--help"),
        ("launch.train", "--nonsense"),
        ("launch.train",),  # without --data; the next ones lack theirs too
        ("launch.predict", "--input=pyproject.toml"),
        ("launch.evaluate", "--workdir=RUN"),
        ("launch.tables", "--data=DATA"),
        ("launch.benchmark", "--help"),
        ("launch.benchmark", "memory", "--memory_gb=0"),
    ],
)
def test_help_and_mistakes_are_said_without_beginning_again(words):
    inherited = {k: v for k, v in os.environ.items() if k != large_pages.VARIABLE}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", *words],
        cwd=ROOT,
        env=inherited | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr.count("launch.large_pages\n") == 1


def test_it_goes_on_where_linux_gives_none_or_gives_them_to_all(tmp_path, monkeypatch):
    for text in ("always madvise [never]", "[always] madvise never"):
        (tmp_path / "enabled").write_text(text)
        monkeypatch.setattr(large_pages, "PAGES", tmp_path / "enabled")
        assert not large_pages._for_the_asking()
    monkeypatch.setattr(large_pages, "PAGES", tmp_path / "none")
    assert not large_pages._for_the_asking()
