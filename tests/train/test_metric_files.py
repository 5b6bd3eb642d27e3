"""Metrics on disk: what a resumed run finds and keeps."""

import json

import pytest

from attunet_jax.train.metrics import MetricWriter, duration


def steps_in(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_a_resumed_journal_drops_rows_beyond_the_checkpoint(tmp_path):
    writer = MetricWriter(tmp_path, step=0, steps=10, enabled=True)
    for step in (2, 4, 6):
        writer.record(step, {"loss": 0.5})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')  # a kill in the middle of a line
    resumed = MetricWriter(tmp_path, step=4, steps=10, enabled=True)
    assert steps_in(tmp_path) == [2, 4]
    resumed.record(6, {"loss": 0.25})
    resumed.close()
    assert steps_in(tmp_path) == [2, 4, 6]


def test_a_start_puts_its_account_in_place_of_the_last_one_at_once(
    tmp_path, read_events
):
    def begin(step, starts):
        account = {"goodput": 0.5, "starts": starts, "unix_time_s": 1e9}
        return MetricWriter(
            tmp_path, step=step, steps=10, enabled=True, account=account
        )

    writer = begin(0, 1.0)
    writer.record(4, {"loss": 0.5})
    writer.record(4, {"goodput": 0.75, "unix_time_s": 1e9})
    writer.record(6, {"loss": 0.25})
    writer.close()
    begin(4, 2.0).close()
    text = (tmp_path / "metrics.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert [(r["step"], r.get("starts"), r.get("loss")) for r in rows] == [
        (0, 1, None),
        (4, None, 0.5),
        (4, 2, None),
    ]
    events = read_events(tmp_path / "tensorboard")
    assert sorted(events) == [("goodput", 4, 0.75), ("loss", 4, 0.5)]


def test_a_line_says_step_loss_speed_waiting_and_time_left(tmp_path, capsys):
    writer = MetricWriter(tmp_path, step=0, steps=30, enabled=True)
    speed = {
        "seconds_per_step": 0.25,
        "steps_per_second": 4.0,
        "cases_per_second": 32.0,
        "data_wait_share": 1.0,
        "device_memory_share": 0.71,
    }
    writer.log(10, {"loss": 0.75}, speed, remaining_s=65)
    writer.close()
    assert capsys.readouterr().out == (
        "step 10/30  loss 0.7500  0.250 s/step  32 cases/s  waiting for data 100%  "
        "memory 71%  left 1:05\n"
    )
    row = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert row["step"] == 10 and row["loss"] == 0.75 and row["data_wait_share"] == 1.0
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_durations_read_as_clocks():
    assert [duration(s) for s in (0.4, 69, 3909)] == ["0:00", "1:09", "1:05:09"]


def write_until(workdir, *, begin, end):
    writer = MetricWriter(workdir, step=begin, steps=10, enabled=True)
    for step in range(begin + 1, end + 1):
        writer.record(step, {"loss": step + begin / 100})
    writer.close()


def test_after_kills_and_resumes_event_files_hold_each_step_once(tmp_path, read_events):
    write_until(tmp_path, begin=0, end=6)
    (first,) = (tmp_path / "tensorboard").iterdir()
    whole = first.read_bytes()
    first.write_bytes(whole[:-9])  # a kill in the middle of a record
    write_until(tmp_path, begin=4, end=7)
    write_until(tmp_path, begin=5, end=8)
    found = {}
    for tag, step, value in read_events(tmp_path / "tensorboard"):
        assert tag == "loss" and step not in found
        found[step] = value
    # Each by the run that wrote it last.
    expected = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5.04, 6: 6.05, 7: 7.05, 8: 8.05}
    assert found == pytest.approx(expected)
    assert steps_in(tmp_path) == list(range(1, 9))
    write_until(tmp_path, begin=0, end=1)  # killed before its first checkpoint
    assert read_events(tmp_path / "tensorboard") == [("loss", 1, 1.0)]
