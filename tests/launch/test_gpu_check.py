"""The check of a first GPU, gone through in tiny sizes on a CPU."""

import json
import math
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "launch" / "gpu_check" / "check.sh"


def check(folder: Path, *steps: str, **environment: str) -> tuple[int, str]:
    """(status, what it printed) of the dry run of these steps, or of all."""
    clean = {k: v for k, v in os.environ.items() if k != "PEER_PYTHON"}
    done = subprocess.run(
        ["bash", SCRIPT, *steps],
        cwd=ROOT,
        env=clean
        | {
            "DRY": "1",
            "PYTHON": sys.executable,
            "WORK": str(folder / "work"),
            "OUT": str(folder / "out"),
        }
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def every_step() -> list[str]:
    (listed,) = re.findall(r'(?m)^steps="([^"]+)"', SCRIPT.read_text())
    return [step.partition(":")[0] for step in listed.split()]


@pytest.mark.cluster
def test_a_dry_run_times_a_step_and_packs_its_results(quick_program, tmp_path):
    quick = {"XLA_FLAGS": quick_program["XLA_FLAGS"]}
    status, printed = check(tmp_path, "about", "att_bf16", **quick)
    assert status == 0, printed
    results, out = tmp_path / "work" / "results", tmp_path / "out"
    step = json.loads((results / "att_bf16.json").read_text())
    assert math.isfinite(step["first_loss"]) and math.isfinite(step["last_loss"])
    for name in ("train", "forward"):
        assert step[name]["median_ms"] > 0 and step[name]["queued_ms"] > 0
    assert step["profile"]["kernels_a_call"] > 0
    assert "convolution" in (results / "att_bf16_kernels.txt").read_text()
    report = (out / "report.txt").read_text()
    assert re.findall(r"(?m)^== (\w+): status (\d+)", report) == [
        ("about", "0"),
        ("att_bf16", "0"),
    ]
    assert "the project's programs can be imported" in report
    summary = (out / "summary.txt").read_text()
    assert summary in printed
    assert re.search(r"(?m)^att_bf16 +\d", summary)
    with tarfile.open(out / "results.tar.gz") as packed:
        assert "results/att_bf16.json" in packed.getnames()


def test_every_step_of_the_list_has_a_branch():
    branches = re.findall(r"(?m)^    (\w+)\) ", SCRIPT.read_text())
    assert len(every_step()) >= 20
    assert sorted(branches) == sorted(every_step())


def test_a_step_that_does_not_exist_is_named_before_anything_starts(tmp_path):
    assert check(tmp_path, "about", "smok") == (2, "no step smok\n")


@pytest.mark.cluster
def test_a_dry_run_goes_through_every_step(quick_program, tmp_path):
    """Judging a device alone compiles the network in three types and precisions."""
    quick = {"XLA_FLAGS": quick_program["XLA_FLAGS"]}
    status, printed = check(tmp_path, BUDGET_S="7200", WORKERS="2", **quick)
    assert status == 0, printed
    report = (tmp_path / "out" / "report.txt").read_text()
    told = dict(re.findall(r"(?m)^== (\w+): status (\d+)", report))
    assert told == dict.fromkeys(every_step(), "0")
    assert "smoke: right" in (tmp_path / "out" / "summary.txt").read_text()
    results = tmp_path / "work" / "results"
    smoke = json.loads((results / "smoke.json").read_text())
    assert (smoke["verdict"], smoke["wrong"]) == ("right", [])
    assert smoke["bfloat16 default: same bits when repeated"] is True
    # Not compared with itself.
    assert smoke["bfloat16 default: logits, relative"] > 0
    ended = json.loads((results / "endtoend.json").read_text())
    assert ended["verdict"] == "ran"
    assert ended["resume_statuses"] == [0, 75, 0]
    assert ended["resume_bit_for_bit"] is True
