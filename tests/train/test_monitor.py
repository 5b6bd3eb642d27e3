"""Speed, waits and detector, by hand, on a clock that the test turns."""

import pytest

from attunet_jax.distributed.progress import Progress
from attunet_jax.distributed.step_exchange import HostStatus
from attunet_jax.train.monitor import MIN_STEPS, StepTimer, StragglerDetector

HOSTS = ["left", "right"]


def status(step, step_s, own_s):
    return HostStatus(step, (0, 0), step_s, own_s)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_speed_leaves_pauses_out_and_time_left_counts_them():
    clock = Clock()
    timer = StepTimer(step=4, batch_size=8, progress=Progress(clock))
    with timer.spending("data"):
        clock.now += 2
    with timer.spending("devices"):
        clock.now += 5
    clock.now += 1
    with timer.spending("pause"):
        clock.now += 12
    speed = timer.speed(8)  # 4 steps in 8 s of training, 20 s in all
    assert speed == pytest.approx(
        {
            "seconds_per_step": 2.0,
            "steps_per_second": 0.5,
            "cases_per_second": 4.0,
            "data_wait_share": 0.25,
        }
    )
    assert timer.remaining_s(10) == pytest.approx(2 * 5)
    clock.now += 3
    assert timer.speed(9)["seconds_per_step"] == pytest.approx(3)


def test_a_steps_own_time_is_what_it_did_not_wait_for_the_devices():
    clock = Clock()
    timer = StepTimer(step=0, batch_size=8, progress=Progress(clock))
    clock.now += 1
    assert timer.step_times() == pytest.approx((1, 1))
    with timer.spending("devices"):
        clock.now += 4
    with timer.spending("data"):
        clock.now += 2
    with timer.spending("pause"):
        clock.now += 50
    assert timer.step_times() == pytest.approx((6, 2))
    assert timer.step_times() == (0, 0)


def usual(detector):
    for step in range(1, MIN_STEPS + 1):
        assert detector.check(status(step, (0.2, 0.2), (0.1, 0.1)), HOSTS) is None


def test_a_step_of_five_medians_is_a_stall_of_the_process_whose_time_it_was():
    detector = StragglerDetector()
    usual(detector)
    assert detector.check(status(6, (0.99, 0.99), (0.1, 0.9)), HOSTS) is None
    line = detector.check(status(7, (1.2, 1.2), (0.1, 1.1)), HOSTS)
    assert line is not None
    assert line.startswith(
        "stall: step 7 took 1.2 s (median 0.20 s); process 1 (right)"
    )
    # Where all waited for their devices, no process was late.
    assert detector.check(status(8, (1.2, 1.2), (0.1, 0.1)), HOSTS) is None


def test_a_process_that_stood_still_in_a_pause_is_named_too():
    detector = StragglerDetector()
    usual(detector)
    line = detector.check(status(6, (0.2, 0.2), (9.0, 0.1)), HOSTS)
    assert line is not None
    assert line.startswith("stall: step 6 took 9.0 s") and "process 0 (left)" in line


def test_the_first_steps_and_a_short_hiccup_are_no_stalls():
    detector = StragglerDetector()
    assert detector.check(status(1, (60.0, 60.0), (60.0, 1.0)), HOSTS) is None
    quick = StragglerDetector()
    for step in range(1, 9):
        assert quick.check(status(step, (0.01, 0.01), (0.01, 0.01)), HOSTS) is None
    assert quick.check(status(9, (0.4, 0.4), (0.4, 0.0)), HOSTS) is None
