"""Runs of two processes: one sleeps, is stopped or is killed, and all start again."""

import re
import signal
import time

import pytest

LIMIT_S = 5
# launch.train, whose main thread falls asleep when it is told to.
PROGRAM = """
import runpy, signal, time

def sleeps_for_an_hour(*_):
    time.sleep(3600)

signal.signal(signal.SIGUSR1, sleeps_for_an_hour)
runpy.run_module("launch.train", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def run_with(train, environment, tmp_path):
    """Signals process `victim` in its steps; returns seconds to the next step."""
    (tmp_path / "train_or_sleep.py").write_text(PROGRAM)
    environment["PYTHONPATH"] = str(tmp_path)

    def run(number, victim):
        job = train(
            2,
            1,
            tmp_path / "run",
            "--config.train.steps=60",
            "--config.train.evaluate_every_steps=20",
            "--config.train.checkpoint_every_steps=10",
            f"--config.train.hang_limit_s={LIMIT_S}",
            own=["--max_restarts=1", "--grace_s=5"],
            program=["train_or_sleep"],
        )
        assert job.signal_after("step 25/", victim, number)
        began = time.monotonic()
        times = {}
        while job.process.poll() is None and "steps" not in times:
            for name, words in (
                ("end", "start 1 of 1 more"),
                ("steps", r"continuing at step \d+ of(.|\n)*\] step \d+/"),
            ):
                if name not in times and re.search(words, job.printed()):
                    times[name] = time.monotonic() - began
            time.sleep(0.05)
        assert job.end() == 0, job.printed()
        print({name: f"{s:.1f} s" for name, s in times.items()})
        print(job.printed())
        return job.printed(), times["end"], tmp_path / "run" / "logs"

    return run


@pytest.mark.cluster
def test_a_main_thread_that_sleeps_ends_all_with_their_stacks_and_they_start_again(
    run_with,
):
    printed, end_s, logs = run_with(signal.SIGUSR1, 1)
    assert re.search(
        r"\[0\] error: no progress for .*: process 1 \(.*\) is behind at step \d+",
        printed,
    )
    assert "left with status 134" in printed and end_s < LIMIT_S + 15
    assert "sleeps_for_an_hour" in (logs / "process_1.log").read_text()
    assert "most recent call first" in (logs / "process_0.log").read_text()


@pytest.mark.cluster
@pytest.mark.parametrize("victim", [0, 1])
def test_a_stopped_process_is_named_and_killed_by_the_launcher(run_with, victim):
    printed, end_s, _ = run_with(signal.SIGSTOP, victim)
    said = f"process {victim} of 2 says" if victim == 0 else r"process 1 \(.*stopped\?"
    assert re.search(rf"error: .*{said}", printed)
    assert f"process {victim} does not end by itself: killed" in printed
    assert end_s < LIMIT_S + 20  # grace_s is 5 of them


@pytest.mark.cluster
def test_a_killed_process_is_named_at_once(run_with):
    printed, end_s, _ = run_with(signal.SIGKILL, 1)
    assert re.search(r"\[0\] error: process 1 of 2 \(.*\) died", printed)
    assert end_s < 5
