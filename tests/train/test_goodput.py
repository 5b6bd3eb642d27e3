"""The account of a run over its starts, by hand, on clocks that the test turns."""

import pytest

from attunet_jax.distributed.progress import Progress
from attunet_jax.train import goodput
from attunet_jax.train.goodput import NAMES, Goodput


class Clock:
    """Two clocks: the time of day stands still for no process."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def start(clock, *, rows=(), step=0, began_s=None, restarted: bool | None = False):
    progress = Progress(clock)
    began = goodput.begin(began_s, progress, clock)
    account = Goodput(
        rows, step, began, restarted=restarted, progress=progress, clock=clock
    )
    return progress, account


def spend(progress, clock, **seconds):
    for what, s in seconds.items():
        with progress.doing(what.replace("_", " ")):
            clock.now += s


def row(step, unix_s, clean=False, **seconds):
    times = {f"time_{name}_s": seconds.get(name, 0.0) for name in NAMES}
    account = {"goodput": 0.5, "starts": 2.0, "unix_time_s": unix_s, **times}
    return {"step": step, **account} | ({"clean_stop": 1.0} if clean else {})


def test_every_second_of_a_start_is_named(clock):
    progress = Progress(clock)
    spend(progress, clock, validates=50)  # of another run in this process
    clock.now += 3
    began = goodput.begin(clock.now - 2, progress, clock)
    clock.now += 5
    account = Goodput((), 0, began, restarted=False, progress=progress, clock=clock)
    spend(progress, clock, restores=1, compiles=20)
    with progress.steps(0, 600):
        clock.now += 60
        spend(progress, clock, waits_for_its_devices=10, waits_for_data=4)
        spend(progress, clock, saves=2, validates=3, draws_or_writes_a_profile=1)
        got = account.row()
    assert {k: v for k, v in got.items() if k.startswith("time_")} == {
        "time_steps_s": 70,
        "time_lost_steps_s": 0,
        "time_start_s": 7,
        "time_compilation_s": 20,
        "time_restoring_s": 1,
        "time_data_s": 4,
        "time_saving_s": 2,
        "time_validation_s": 3,
        "time_other_s": 1,
        "time_down_s": 0,
        "time_not_running_s": 0,
    }
    assert got["goodput"] == pytest.approx(70 / 108)
    assert got["starts"] == 1 and got["unix_time_s"] == clock.now
    assert "clean_stop" not in got and account.row(clean_stop=True)["clean_stop"] == 1


def test_steps_after_the_checkpoint_and_the_time_until_the_next_start_are_lost(clock):
    rows = [
        row(0, 900, start=10),
        {"step": 10, "loss": 0.5},
        row(10, 930, start=10, steps=30),
        row(14, 948, start=10, steps=48),
    ]
    progress, account = start(clock, rows=rows, step=10, began_s=990)
    with progress.steps(10, 600):
        clock.now += 40
    got = account.row()
    assert got["time_steps_s"] == 30 + 40 and got["time_lost_steps_s"] == 18
    assert got["time_down_s"] == 990 - 948
    assert got["time_start_s"] == 10 + 10 and got["starts"] == 3
    assert got["goodput"] == pytest.approx(70 / (70 + 18 + 42 + 20))
    assert account.text() == (
        "goodput 46.7% of 2:30 in 3 starts: steps 1:10, lost steps 0:18, start 0:20, "
        "down 0:42"
    )


def test_steps_until_a_checkpoint_between_two_rows_are_their_share(clock):
    rows = [row(10, 900, steps=30), row(14, 950, steps=50)]
    for step, lost_s in ((14, 0), (13, 5), (11, 15), (10, 20), (5, 35), (20, 0)):
        _, account = start(clock, rows=rows, step=step)
        assert account.seconds()["lost_steps"] == pytest.approx(lost_s)
        assert account.seconds()["steps"] == pytest.approx(50 - lost_s)


def test_a_night_after_a_clean_stop_is_not_running_unless_the_launcher_started_again(
    clock, monkeypatch
):
    clock.now = 90_000
    for clean, restarted, down_s in (
        (True, False, 0),
        (True, True, 89_100),
        (False, False, 89_100),
    ):
        rows = [row(10, 900, clean=clean, steps=100)]
        _, account = start(clock, rows=rows, step=10, restarted=restarted)
        assert account.row()["time_down_s"] == down_s
        assert account.row()["time_not_running_s"] == 89_100 - down_s
        assert account.row()["goodput"] == 100 / (100 + down_s)
        assert ("not running 24:45:00" in account.text()) == (not down_s)
    for name in ("ATTUNET_JAX_RESTARTS", "SLURM_RESTART_COUNT"):
        for count, down_s in (("0", 0), ("2", 89_100)):
            monkeypatch.setenv(name, count)
            rows = [row(10, 900, clean=True, steps=100)]
            _, account = start(clock, rows=rows, step=10, restarted=None)
            assert account.row()["time_down_s"] == down_s
        monkeypatch.delenv(name)


def test_ten_starts_have_one_account_that_adds_up_to_the_time_since_the_first(clock):
    """Each start takes 5 s and makes 8 steps of 2 s; 3 are lost, 4 s later the next."""
    first_s, rows, step = clock.now, [], 0
    for _ in range(10):
        progress, account = start(clock, rows=rows, step=step, began_s=clock.now - 5)
        rows = [r for r in rows if r["step"] < step] + [{"step": step, **account.row()}]
        with progress.steps(step, 600):
            for _ in range(8):
                clock.now += 2
                step += 1
                rows.append({"step": step, **account.row()})
        step -= 3
        clock.now += 4 + 5
    last = rows[-1]
    seconds = {k: last[f"time_{k}_s"] for k in NAMES if last[f"time_{k}_s"]}
    steps_s = 9 * 10 + 16
    assert seconds == {"steps": steps_s, "lost_steps": 54, "start": 50, "down": 36}
    assert sum(seconds.values()) == clock.now - 9 - first_s + 5
    assert last["starts"] == 10 and last["goodput"] == pytest.approx(steps_s / 246)


def test_rows_of_old_runs_and_damaged_ones_count_nothing(clock):
    old = [{"step": 10, "loss": 0.5, "data_wait_share": 0.1}]
    _, account = start(clock, rows=old, step=10, began_s=998)
    assert account.row()["starts"] == 1
    assert account.seconds() == dict.fromkeys(NAMES, 0.0) | {"start": 2.0}
    damaged = [{"step": 10, "goodput": "x", "unix_time_s": 2000, "time_steps_s": "1"}]
    _, account = start(clock, rows=damaged, step=10)  # and by a clock that goes ahead
    assert set(account.seconds().values()) == {0.0}


def test_a_row_is_due_after_ten_seconds(clock):
    _, account = start(clock)
    assert not account.is_due()
    clock.now += 10
    assert account.is_due()
    account.row()
    assert not account.is_due()
