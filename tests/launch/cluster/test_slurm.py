"""`launch/cluster/slurm.sh` on a real SLURM of two nodes: stopped and resumed."""

import re
import sys
from pathlib import Path

import pytest
from slurm_cluster import Slurm, find_programs

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def slurm(tmp_path):
    programs = find_programs()
    if programs is None:
        pytest.skip("no SLURM here: slurm_cluster.py says how to have one")
    (tmp_path / "slurm").mkdir()
    cluster = Slurm(tmp_path / "slurm", programs)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.mark.cluster
def test_a_stopped_job_saves_leaves_with_75_is_requeued_and_goes_on(
    slurm, prepared, tiny_flags, tmp_path
):
    workdir, log = tmp_path / "run", tmp_path / "job.log"
    slurm.environment |= {
        "PYTHON": sys.executable,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "PYTHONUNBUFFERED": "1",
    }
    job = slurm.ask(
        "sbatch",
        "--parsable",
        "--nodes=2",
        f"--chdir={ROOT}",
        f"--output={log}",
        str(ROOT / "launch" / "cluster" / "slurm.sh"),
        f"--data={prepared}",
        f"--workdir={workdir}",
        *tiny_flags,
        "--config.train.steps=300",
        "--config.train.log_every_steps=5",
        "--config.train.evaluate_every_steps=1000",
        "--config.train.checkpoint_every_steps=1000",
    )
    assert job.isdecimal(), job

    def printed() -> str:
        return log.read_text(errors="replace") if log.exists() else ""

    def checkpoints() -> set[int]:
        names = (p.name for p in (workdir / "checkpoints").glob("*"))
        return {int(name) for name in names if name.isdecimal()}

    slurm.wait(lambda: re.search(r"step +\d+", printed()), 300)
    assert slurm.job(job)["JobState"] == "RUNNING", printed()
    assert checkpoints() == set()
    slurm.ask("scancel", "--signal=TERM", job)
    slurm.wait(lambda: slurm.job(job).get("JobState") == "PENDING", 120)
    assert "stopped with everything saved: queued again (start 2)" in printed()
    (saved,) = checkpoints()
    assert 0 < saved < 300
    fields = slurm.job(job)
    assert (fields["Requeue"], fields["Restarts"]) == ("1", "1")

    # SLURM lets a requeued job wait for two minutes.
    slurm.ask("scontrol", "update", f"JobId={job}", "StartTime=now")
    slurm.wait(lambda: slurm.job(job).get("JobState") == "COMPLETED", 300)
    assert max(checkpoints()) == 300
    logs = [(workdir / "logs" / f"process_{i}.log").read_text() for i in (0, 1)]
    for number, text in enumerate(logs):
        begins = re.findall(
            rf"as process {number} of 2 at step (\d+), 1 devices, shard {number} of 2",
            text,
        )
        assert begins == ["0", str(saved)]
