"""The measurement of preparation: real runs of three tiny scans, and the table."""

import json
import sys
import time

import pytest

from launch.benchmark.preparation import to_markdown
from launch.benchmark.process_memory import measure_process


def test_the_program_measures_ours_and_writes_what_it_prints(
    run_program, finish, tmp_path
):
    scans = tmp_path / "scans"
    words = ("--size=tiny", "--rounds=1", "--workers=1", f"--scans={scans}")
    status, printed, errors = finish(
        run_program(
            "launch.benchmark",
            "preparation",
            *words,
            f"--output={tmp_path / 'all.json'}",
        )
    )
    assert status == 0, errors
    assert len(list((scans / "images").iterdir())) == 3
    document = json.loads((tmp_path / "all.json").read_text())
    assert document["format"] == "attunet_jax.benchmark_preparation"
    (run,) = document["runs"]["attunet_jax"]
    assert 0 < run["cpu_seconds"] and 0 < run["seconds"]
    # Python with NumPy and nibabel is in it.
    assert 50e6 < run["largest_process_bytes"] < 500e6
    assert printed.strip() == to_markdown(document).strip()


def test_the_table_has_rates_and_ratios_to_ours_round_by_round():
    def run(seconds: float, cpu_seconds: float) -> dict:
        return {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "largest_process_bytes": 200e6,
            "all_processes_bytes": 350e6,
            "versions": {},
        }

    text = to_markdown(
        {
            "date": "2026-11-24",
            "cores": 2,
            "scans": 6,
            "shape": [100, 100, 10_000],  # 200 MB as int16
            "workers": 2,
            "runs": {
                "attunet_jax": [run(2, 3), run(4, 3), run(12, 3)],
                "monai": [run(20, 6), run(36, 6), run(120, 6)],
            },
        }
    )
    ours, theirs = text.splitlines()[-2:]
    assert ours == "| attunet_jax | 90.0 | 1.0 | 0.50 | 1.0 | 200 MB | 1.0 | 350 MB |"
    assert theirs == "| monai | 10.0 | 10.0 | 1.00 | 2.0 | 200 MB | 1.0 | 350 MB |"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_and_time_of_a_command_and_its_children_are_measured(tmp_path):
    """Two processes that hold 200 MB each for a second and a half."""
    hold = "import time; b = bytearray(b'x') * 200_000_000; time.sleep(1.5)"
    both = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', "
        f'"{hold}"]); {hold}; child.wait()'
    )
    began = time.monotonic()
    seen = measure_process([sys.executable, "-c", both], tmp_path / "log")
    assert seen.status == 0 and seen.err == ""
    assert 1.5 <= seen.seconds <= time.monotonic() - began
    assert 200e6 < seen.largest_process_bytes < 260e6
    assert 400e6 < seen.all_processes_bytes < 520e6
