"""Ctrl-C and SIGTERM in processes of a few lines: what they say, leave and end with."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}

BEGIN = """
import os, subprocess, sys, time
from pathlib import Path
from attunet_jax import files, interrupts
folder = Path(sys.argv[1])
interrupts.listen()
"""


@pytest.fixture
def start(tmp_path):
    """Starts a program of some lines; returns it once it prints that it is ready."""
    begun = []

    def start(lines: str):
        begun.append(
            subprocess.Popen(
                [sys.executable, "-c", BEGIN + lines, str(tmp_path)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        while begun[-1].stdout.readline() != "ready\n":
            assert begun[-1].poll() is None, begun[-1].stderr.read()
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def line_of(process) -> tuple[str, float]:
    """The next line on stderr, and how long it took."""
    began = time.monotonic()
    return process.stderr.readline(), time.monotonic() - began


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_program_at_once_though_its_main_thread_is_in_c(start, number):
    process = start(
        """
import ctypes
lock = ctypes.CDLL(None).pthread_mutex_lock
mutex = ctypes.create_string_buffer(64)
lock(mutex)
print("ready", flush=True)
lock(mutex)  # never returns, whatever signal comes
"""
    )
    time.sleep(0.2)
    began = time.monotonic()
    process.send_signal(number)
    output, errors = process.communicate(timeout=20)
    assert time.monotonic() - began < 5
    assert process.returncode == 75 and output == ""
    (line,) = errors.splitlines()
    assert SIGNALS[number] in line and "the same command continues" in line


def test_a_program_that_is_ended_leaves_no_child_and_no_half_file(start, tmp_path):
    (tmp_path / "kept.txt").write_text("before")
    process = start(
        """
child = subprocess.Popen(["sleep", "60"])
with files.replacing(folder / "kept.txt") as temporary, files.temporary_folder("x"):
    temporary.write_text("half")
    (folder / "pid").write_text(str(child.pid))
    print("ready", flush=True)
    time.sleep(60)
"""
    )
    pid = int((tmp_path / "pid").read_text())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 75
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept.txt", "pid"]
    assert (tmp_path / "kept.txt").read_text() == "before"
    status = Path(f"/proc/{pid}/status")  # it may wait for its parent to hear of it
    assert not status.exists() or "State:\tZ" in status.read_text()


@pytest.mark.parametrize("number", SIGNALS)
def test_what_waits_for_work_says_so_and_a_second_signal_ends_it(start, number):
    lines = """
with interrupts.deferred("the step") as stop:
    print("ready", flush=True)
    time.sleep(SECONDS)
print("done", stop.number, flush=True)
"""
    process = start(lines.replace("SECONDS", "60"))
    process.send_signal(number)
    line, seconds = line_of(process)
    assert seconds < 2 and SIGNALS[number] in line and "the step" in line
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(number)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 75 and output == "" and "Traceback" not in errors
    # Once: the work comes to its end, and has been told.
    process = start(lines.replace("SECONDS", "1.5"))
    process.send_signal(number)
    process.send_signal(number)  # passed on by another program: the same request
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 0 and output == f"done {int(number)}\n"


def test_outside_of_programs_handlers_are_as_before_afterwards():
    from attunet_jax import interrupts

    before = {number: signal.getsignal(number) for number in SIGNALS}
    with interrupts.deferred() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        end = time.monotonic() + 5
        while not stop.number and time.monotonic() < end:
            time.sleep(0.01)
        assert stop.number == signal.SIGTERM
        with pytest.raises(interrupts.Interrupted, match="SIGTERM.* continues"):
            stop.check()
    assert {number: signal.getsignal(number) for number in SIGNALS} == before
