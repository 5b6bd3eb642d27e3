"""Twenty minutes of two processes, one of which is killed every four."""

import json
import re
import signal
import time

import pytest

MINUTES, KILL_EVERY_MINUTES = 20, 4
AT_LEAST, RESTART_AT_MOST_S = 0.85, 30


def wait_until(job, end_s, *, of=time.monotonic):
    while of() < end_s:
        assert job.process.poll() is None, job.printed()
        time.sleep(0.05)


def seconds_to_next_step(job, start, killed_s):
    """From a kill to the first step that is printed after the start's first line."""
    words = re.compile(r"continuing at step \d+ of(.|\n)*?\] step \d+/")
    while time.monotonic() < killed_s + 300:
        after = job.printed().split(f"start {start} of")
        if len(after) == 2 and words.search(after[1]):
            return time.monotonic() - killed_s
        time.sleep(0.05)
    raise AssertionError(job.printed())


@pytest.mark.cluster
def test_a_run_that_is_killed_every_four_minutes_spends_its_time_in_steps(
    train, tmp_path
):
    workdir = tmp_path / "run"
    begun_s, begun = time.monotonic(), time.time()
    job = train(
        2,
        1,
        workdir,
        "--config.train.steps=1000000",
        "--config.train.checkpoint_every_steps=60",
        "--config.train.evaluate_every_steps=2000",
        "--config.train.log_cases=False",
        own=["--max_restarts=9"],
    )
    kills = range(KILL_EVERY_MINUTES, MINUTES, KILL_EVERY_MINUTES)
    restarts_s = []
    for i, minute in enumerate(kills, start=1):
        wait_until(job, begun_s + 60 * minute)
        job.send(i % 2, signal.SIGKILL)  # process 1, then the one that judges
        restarts_s.append(seconds_to_next_step(job, i, time.monotonic()))
    wait_until(job, begun_s + 60 * MINUTES)
    job.process.terminate()  # the launcher, which then starts no more
    assert job.end() == 75, job.printed()[-3000:]
    whole_s = time.time() - begun

    line = re.search(r"\[0\] (goodput .*)", job.printed()).group(1)  # pyright: ignore[reportOptionalMemberAccess]
    last = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
    print("\ndeath to next step:", *(f"{s:.1f} s" for s in restarts_s))
    print(line)
    print(json.dumps(last))

    assert max(restarts_s) <= RESTART_AT_MOST_S
    assert last["goodput"] >= AT_LEAST and f"goodput {last['goodput']:.1%} of" in line
    # One account: every second from the first start on has a name.
    seconds = {k: v for k, v in last.items() if k.startswith("time_")}
    assert sum(seconds.values()) == pytest.approx(whole_s, abs=15)
    assert last["starts"] == 1 + len(kills) and last["clean_stop"] == 1
    assert seconds["time_lost_steps_s"] > 0 and seconds["time_down_s"] > 0
    assert seconds["time_not_running_s"] == 0
