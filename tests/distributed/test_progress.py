"""How long a process may be idle, and who hangs, on a clock that the test turns."""

import math

import pytest

from attunet_jax.distributed.progress import (
    KNOWN_FROM,
    MIN_STEPS,
    PAUSE_LIMIT_S,
    PAUSE_LIMITS,
    Progress,
    Report,
)
from attunet_jax.distributed.who_is_behind import slack_s, who_hangs, who_is_silent

HOSTS = {0: "left", 1: "right", 2: "third"}


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def progress(clock):
    return Progress(clock)


def make_steps(progress, clock, steps, seconds):
    for step in range(1, steps + 1):
        progress.begin_step(step)
        clock.now += seconds
    progress.begin_step(steps + 1)


def test_a_step_may_take_the_limit_or_twenty_medians_where_that_is_longer(
    progress, clock
):
    with progress.steps(0, 600):
        make_steps(progress, clock, 9, 2)
        assert progress.report() == Report(10, "in a step", 0, 600)
        clock.now += 599
        assert progress.report().slack_s == 1
        clock.now += 2
        assert progress.report().slack_s == -1
    with progress.steps(10, 600):
        make_steps(progress, clock, 9, 50)
        assert progress.report().limit_s == 20 * 50


def test_one_slow_step_does_not_move_the_limit(progress, clock):
    with progress.steps(0, 5):
        make_steps(progress, clock, 9, 0.2)
        clock.now += 3
        make_steps(progress, clock, 2, 0.2)
        assert progress.report().limit_s == 5


def test_steps_that_were_only_sent_to_the_devices_say_nothing_of_how_long_they_take(
    progress, clock
):
    """Slow devices: the first ones return at once, then each takes 700 s."""
    with progress.steps(0, 600):
        make_steps(progress, clock, KNOWN_FROM - 1, 0)
        clock.now += 700
        assert progress.report().slack_s > 0
        for step in range(KNOWN_FROM, MIN_STEPS + 6):
            progress.begin_step(step)
            clock.now += 700
            assert progress.report().slack_s > 0


def test_pauses_are_no_part_of_a_step_and_have_limits_of_their_own(progress, clock):
    assert progress.report().limit_s == math.inf  # data of any size may be copied
    with progress.doing("compiles", pause=True):
        clock.now += 1000
        assert progress.report() == Report(None, "compiles", 1000, PAUSE_LIMIT_S)
    with progress.steps(0, 5):
        make_steps(progress, clock, 9, 0.2)
        for step in range(20, 30):  # saved at every step
            progress.begin_step(step)
            clock.now += 0.1
            with progress.doing("saves", pause=True):
                clock.now += 10
                assert progress.report().slack_s > 0
                with progress.doing("waits for data"):
                    assert progress.report().doing == "waits for data"
            clock.now += 0.1
            assert progress.report().idle_s == pytest.approx(0.1)
        assert progress.report().limit_s == 5
    clock.now += 10_000
    assert progress.report().limit_s == math.inf


def test_a_pause_may_take_an_hour_once_and_later_as_long_as_its_kind_does(
    progress, clock
):
    def limit_s(kind, seconds):
        with progress.doing(kind, pause=True):
            clock.now += seconds
            return progress.report().limit_s

    with progress.steps(0, 5):
        assert limit_s("saves", 0.1) == PAUSE_LIMIT_S
        assert limit_s("saves", 8) == PAUSE_LIMITS * 5 == 30
        assert limit_s("saves", 0.1) == 20 * 8
        assert limit_s("validates", 0.1) == PAUSE_LIMIT_S
    with progress.steps(0, 6000):
        assert limit_s("draws", 1) == 36_000


def test_waiting_for_data_or_devices_is_part_of_the_step(progress, clock):
    with progress.steps(0, 5):
        make_steps(progress, clock, 9, 0.2)
        with progress.doing("waits for data"):
            clock.now += 6
            assert progress.report() == Report(10, "waits for data", 6, 5)


def test_time_in_which_the_whole_process_was_stopped_is_not_its_own(progress, clock):
    with progress.steps(0, 5):
        make_steps(progress, clock, 9, 0.2)
        clock.now += 1000.5
        progress.stood_still(1000)
        assert progress.report().idle_s == pytest.approx(0.5)


def test_all_time_is_spent_on_the_innermost_thing_that_the_process_does(
    progress, clock
):
    clock.now += 7
    with progress.doing("compiles", pause=True):
        clock.now += 30
    with progress.steps(0, 600):
        make_steps(progress, clock, 2, 1)
        with progress.doing("saves", pause=True):
            clock.now += 2
            with progress.doing("waits for data"):
                clock.now += 4
            clock.now += 3
        with progress.doing("waits for data"):
            clock.now += 8
        clock.now += 1000
        progress.stood_still(999)
    clock.now += 6
    assert progress.spent_s() == {
        "starting": 7,
        "compiles": 30,
        "in a step": 3,
        "saves": 5,
        "waits for data": 12,
        "stopped": 999,
        "ending": 6,
    }
    progress.start()
    clock.now += 1
    assert progress.spent_s()["starting"] == 8


def step(number, idle_s, doing="in a step", limit_s=5.0):
    return Report(number, doing, idle_s, limit_s)


def test_the_process_at_the_lowest_step_is_behind():
    reports = {
        0: (step(22, 6.0, "waits for its devices"), 0.0),
        1: (step(20, 8.0, "waits for data"), 0.5),
        2: (step(22, 6.0, "waits for its devices"), 0.5),
    }
    line = who_hangs(reports, 3, HOSTS)
    assert line is not None
    assert "process 1 (right, waits for data) is behind at step 20" in line
    assert "the others at step 22" in line and "left" not in line
    assert "no progress for 6 s, more than 5 s" in line
    assert "--config.train.hang_limit_s" in line


def test_no_job_hangs_while_one_process_compiles_saves_or_makes_steps():
    waits = step(22, 900.0, "waits for its devices", 600.0)
    for other in (
        step(20, 900.0, "validates", 3600.0),
        step(20, 900.0, "compiles", 3600.0),
        step(22, 1.0, limit_s=600.0),
        Report(),
    ):
        assert who_hangs({0: (waits, 0.0), 1: (other, 0.5)}, 2, HOSTS) is None
    # What it said goes on to age.
    assert who_hangs({0: (waits, 0.0), 1: (waits, 2700.0)}, 2, HOSTS)
    assert slack_s({0: (waits, 0.0), 1: (step(20, 1.0), 3.0)}) == 1.0


def test_a_stopped_process_is_told_from_one_that_sleeps():
    line = who_hangs({0: (step(21, 6.0), 0.0), 1: (step(20, 0.2), 7.0)}, 2, HOSTS)
    assert line is not None
    assert "process 1 (right, says nothing since 7 s: stopped?) is behind" in line
    assert who_is_silent({0: (step(1, 0), 0), 1: (step(1, 0), 40.0)}, 2, HOSTS, 36.0)
    assert not who_is_silent({0: (step(1, 0), 0), 1: (step(1, 0), 30)}, 2, HOSTS, 36.0)


def test_where_none_is_behind_all_are_named_and_one_alone_names_what_it_does():
    both = {i: (step(7, 6.0, "waits for its devices"), 0.0) for i in range(2)}
    line = who_hangs(both, 2, HOSTS)
    assert line is not None
    assert "all 2 processes are at step 7" in line and "behind" not in line
    alone = who_hangs({0: (step(7, 6.0, "waits for data"), 0.0)}, 1, HOSTS)
    assert alone is not None
    assert "step 7, waits for data" in alone and "process" not in alone.split(";")[0]
