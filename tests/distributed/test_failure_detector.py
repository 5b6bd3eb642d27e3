"""Processes of a few lines that hang, are stopped, die or are done; without JAX."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from attunet_jax.distributed.failure_detector import start, start_alone
from attunet_jax.distributed.progress import PROGRESS

me, of, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
what = sys.argv[4]

def share(text):
    if me == 0:
        (folder / "new").write_text(text)
        (folder / "new").rename(folder / "first")
    while not (folder / "first").exists():
        time.sleep(0.01)
    return [(folder / "first").read_text()]

detector = start_alone() if of == 1 else start(me, of, "127.0.0.1", share, 60.0)
PROGRESS.log = (folder / f"{me}.log").open("w")

def sleeps_in_a_reader():
    time.sleep(60)

with PROGRESS.steps(0, 4.0 if what == "stop" else 1.0):
    for step in range(1, 10 + (me == 0)):
        PROGRESS.begin_step(step)
        time.sleep(0.02)
    if what == "stop":
        for _ in range(30):  # until all have said where they are
            PROGRESS.begin_step(step)
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGSTOP)
    if what == "die":
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "pause":
        with PROGRESS.doing("saves", pause=True):
            time.sleep(4)
    elif what == "done":
        time.sleep(0.5)
    else:
        sleeps_in_a_reader()
detector.goodbye()
time.sleep(0.5)
"""


@pytest.fixture
def job(tmp_path):
    started = []

    def start(name, *what):
        folder = tmp_path / name
        folder.mkdir()
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(i), str(len(what)), folder, each],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for i, each in enumerate(what)
        ]
        started.extend(processes)
        return folder, processes

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ends(processes):
    """[(status, stderr)]"""
    printed = [process.communicate(timeout=60)[1] for process in processes]
    return [(p.returncode, text) for p, text in zip(processes, printed, strict=True)]


def test_hangs_and_deaths_end_all_with_134_and_one_line_that_names_the_process(job):
    hanging = job("hanging", "hang", "hang")
    killed = job("killed", "hang", "hang", "die")
    alone = job("alone", "hang")

    (zero, line), other = ends(hanging[1])
    assert zero == 134 and other == (134, "")
    assert len(line.splitlines()) == 1
    assert "process 1 (" in line and "behind at step 9, the others at step 10" in line
    for number in (0, 1):
        log = (hanging[0] / f"{number}.log").read_text()
        assert "behind at step 9" in log and "sleeps_in_a_reader" in log
        assert log.count("most recent call first") > 1  # of all threads

    (zero, line), (last, _), (ended, _) = ends(killed[1])
    assert (zero, last, ended) == (134, 134, -signal.SIGKILL)
    assert line.count("\n") == 1 and "process 2 of 3" in line and "died" in line

    ((status, line),) = ends(alone[1])
    assert status == 134 and "step 10, in a step" in line and line.count("\n") == 1
    assert "sleeps_in_a_reader" in (alone[0] / "0.log").read_text()


@pytest.mark.cluster
def test_a_stopped_process_is_named_by_those_that_run_and_pauses_are_left_alone(job):
    stopped = job("stopped", "hang", "stop")
    frozen_0 = job("frozen_0", "stop", "hang")
    resting = job("resting", "pause", "pause")
    done = job("done", "pause", "done")

    ((zero, line),) = ends(stopped[1][:1])
    assert zero == 134 and "process 1 (" in line and "behind at step 9" in line
    assert "says nothing since" in line and "stopped?" in line
    assert stopped[1][1].poll() is None  # for the launcher, or the scheduler

    ((status, line),) = ends(frozen_0[1][1:])
    assert status == 134 and "process 0 of 2 says nothing since" in line

    assert ends(resting[1]) == ends(done[1]) == [(0, "")] * 2
