"""Runs the programs on this device: trains, stops with SIGTERM and resumes.

    python -m launch.gpu_check.endtoend OUT.json DATA WORK

DATA is a prepared folder, WORK one for the runs. Trains the paper's network in
bfloat16 for some steps and reports its speed and the share of time that waits for data.
Then trains a tiny one twice, one of them stopped by SIGTERM and resumed, and compares
their losses bit for bit. Ends with status 1 if a run failed.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from launch.gpu_check.parts import DRY, Report

STEPS, STOP_AFTER = (30, 10) if DRY else (200, 20)
TINY = (
    "--config.model.widths=(4,6,8)",
    "--config.model.gating_channels=8",
    "--config.data.crop_shape=(32,32,32)",
    "--config.data.read_shape=(32,40,40)",
    f"--config.train.steps={STEPS}",
    "--config.train.log_every_steps=1",
    f"--config.train.evaluate_every_steps={STEPS}",
    "--config.train.checkpoint_every_steps=1000",
)
PAPER = (
    "--config.model.compute_dtype=bfloat16",
    "--config.train.steps=120",
    "--config.train.log_every_steps=20",
    "--config.train.evaluate_every_steps=120",
    "--config.train.checkpoint_every_steps=1000",
    "--config.data.threads=16",
)
REPORTED = (
    "step",
    "loss",
    "seconds_per_step",
    "cases_per_second",
    "data_wait_share",
    "device_memory_peak_bytes",
)


def metrics_of(workdir: Path) -> list[dict[str, Any]]:
    """Returns the metrics that a run has written so far."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(x) for x in path.read_text().splitlines() if x.endswith("}")]


def train(
    data: Path, workdir: Path, *words: str, stop_after: int = 0
) -> tuple[int, list[str], float]:
    """Returns (status, lines, seconds) of launch.train.

    SIGTERM stops it after step `stop_after`, if that is not 0.
    """
    command = [sys.executable, "-m", "launch.train"]
    command += ["--config=configs/attention_unet.py", f"--data={data}"]
    command += [f"--workdir={workdir}", *words]
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while stop_after and process.poll() is None:
        if any(row["step"] >= stop_after for row in metrics_of(workdir)):
            process.send_signal(signal.SIGTERM)
            break
        time.sleep(0.02)
    output, _ = process.communicate()
    with (workdir.parent / f"{workdir.name}.log").open("a") as log:
        log.write(output)
    return process.returncode, output.splitlines(), time.perf_counter() - start


def main(out: str, data_folder: str, work_folder: str) -> int:
    report = Report(out)
    data, work = Path(data_folder), Path(work_folder)
    work.mkdir(parents=True, exist_ok=True)

    # The paper's network on crops of the paper's size, as a user would train it.
    status, lines, seconds = train(data, work / "paper", *(TINY if DRY else PAPER))
    report.add(
        paper_status=status,
        paper_whole_run_s=seconds,
        paper_last_lines=lines[-6:],
        paper_metrics=[
            {name: round(row[name], 5) for name in REPORTED if name in row}
            for row in metrics_of(work / "paper")
            if "seconds_per_step" in row
        ],
    )

    straight = train(data, work / "straight", *TINY)
    stopped = train(data, work / "stopped", *TINY, stop_after=STOP_AFTER)
    again = train(data, work / "stopped", *TINY)
    runs = (straight, stopped, again)
    one, two = (
        {row["step"]: row["loss"] for row in metrics_of(work / name) if "loss" in row}
        for name in ("straight", "stopped")
    )
    differing = [step for step in one if one[step] != two.get(step)]
    report.add(
        resume_statuses=[status for status, *_ in runs],  # 0, 75, 0
        resume_seconds=[round(seconds, 1) for *_, seconds in runs],
        resume_messages=[lines[-1][:200] for _, lines, _ in runs if lines],
        resume_first_differing_step=min(differing, default=None),
        resume_largest_difference=max(
            (abs(one[step] - two[step]) for step in one if step in two), default=None
        ),
        resume_bit_for_bit=bool(one) and not differing,
    )
    ok = status == straight[0] == again[0] == 0
    report.add(verdict="ran" if ok else "FAILED: see the logs")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
