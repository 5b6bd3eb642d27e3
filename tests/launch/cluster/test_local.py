"""The launcher of several processes on one machine, with programs of a few lines."""

import os
import signal
import sys

import pytest
from several import Job

PROGRAM = """
import os, signal, sys, time
me = os.environ["JAX_PROCESS_ID"]
what = dict(word.split("=") for word in sys.argv[1:]).get(me, "end")
print(f"{me} of {os.environ['JAX_NUM_PROCESSES']} does {what}", flush=True)
if what == "wait":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    time.sleep(60)
if what == "die_later":
    time.sleep(0.5)
if what.startswith("die"):
    os.kill(os.getpid(), signal.SIGKILL)
if what == "once" and not os.path.exists("{mark}"):
    open("{mark}", "w").close()
    sys.exit(75)
if what.isdecimal():
    sys.exit(int(what))
"""


@pytest.fixture
def local(tmp_path):
    (tmp_path / "program.py").write_text(
        PROGRAM.replace("{mark}", str(tmp_path / "mark"))
    )

    def start(*words):
        environment = os.environ | {
            "PYTHONPATH": str(tmp_path),
            "PYTHON": sys.executable,
        }
        return Job(tmp_path / "output.txt", list(words), environment)

    return start


def test_all_done_is_status_0_and_each_line_says_whose_it_is(local):
    job = local("3", "--", "program")
    assert job.end() == 0
    assert sorted(job.printed().splitlines()) == [
        f"[{i}] {i} of 3 does end" for i in range(3)
    ]


def test_a_killed_process_is_named_and_takes_the_others_down(local):
    job = local("2", "--grace_s=0.5", "--", "program", "0=wait", "1=die")
    assert job.end() == 128 + signal.SIGKILL
    printed = job.printed()
    assert "launch.cluster.local: process 1 was ended by SIGKILL; the others" in printed
    assert "launch.cluster.local: process 0 does not end by itself: killed" in printed


def test_a_process_that_left_because_another_died_is_not_the_cause(local):
    job = local("3", "--", "program", "0=134", "1=die_later", "2=134")
    assert job.end() == 128 + signal.SIGKILL
    assert "launch.cluster.local: process 1 was ended by SIGKILL" in job.printed()


def test_where_all_miss_another_the_status_says_so(local):
    job = local("2", "--grace_s=0.5", "--", "program", "0=134", "1=wait")
    assert job.end() == 134


def test_the_status_of_the_first_that_fails_is_that_of_all(local):
    job = local("2", "--grace_s=0.5", "--", "program", "0=3", "1=wait")
    assert job.end() == 3
    assert "process 0 left with status 3" in job.printed()


def test_an_interrupted_job_is_started_again_as_often_as_asked(local):
    job = local("2", "--max_restarts=1", "--", "program", "0=once")
    assert job.end() == 0
    assert "status 75: start 1 of 1 more" in job.printed()
    assert job.printed().count("[1] 1 of 2 does end") == 2
    again = local("1", "--max_restarts=1", "--", "program", "0=75")
    assert again.end() == 75
    assert again.printed().count("does 75") == 2
    other = local("1", "--max_restarts=1", "--", "program", "0=3")
    assert other.end() == 3
    assert other.printed().count("does 3") == 1


def test_sigterm_goes_on_to_all_and_is_no_reason_to_start_again(local):
    job = local("2", "--max_restarts=1", "--", "program", "0=wait", "1=wait")
    while job.printed().count("does wait") < 2:
        assert job.process.poll() is None
    job.process.send_signal(signal.SIGTERM)
    assert job.end() == 75
    assert job.printed().count("does wait") == 2


@pytest.mark.parametrize(
    "words, said",
    [(["2", "program"], "comes after --"), (["0", "--", "program"], "0 processes")],
)
def test_what_is_not_understood_is_one_line(local, words, said):
    job = local(*words)
    assert job.end() == 2
    assert len(job.printed().splitlines()) == 1 and said in job.printed()
