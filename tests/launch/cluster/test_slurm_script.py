"""What launch/cluster/slurm.sh asks of srun, with and without a container."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PYXIS = "      --container-image=[USER@][REGISTRY#]IMAGE[:TAG]|PATH"


@pytest.fixture
def submitted(tmp_path):
    """Runs the script as SLURM does; srun here writes down its words.

    Returns (what ended, srun's words, scontrol's words).
    """

    def run(*words: str, pyxis: bool, leaves: int = 0, **variables: str):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        flags = PYXIS if pyxis else "      --ntasks=N"
        programs = {
            "srun": f'[ "$1" = --help ] && {{ echo "{flags}"; exit; }}\n'
            f'printf "%s\\n" "$@" > {tmp_path}/srun\nexit {leaves}\n',
            "scontrol": f'printf "%s\\n" "$@" > {tmp_path}/scontrol\n',
        }
        for name, text in programs.items():
            (folder / name).write_text(f"#!/bin/bash\n{text}")
            (folder / name).chmod(0o755)
            (tmp_path / name).unlink(missing_ok=True)
        environment = {k: v for k, v in os.environ.items() if k != "PYTHON"} | {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_JOB_ID": "7",
        }
        done = subprocess.run(
            [ROOT / "launch" / "cluster" / "slurm.sh", *words],
            env=environment | variables,
            capture_output=True,
            text=True,
        )
        asked = [tmp_path / name for name in programs]
        return done, *(p.read_text().splitlines() if p.exists() else [] for p in asked)

    return run


def test_a_container_has_this_folder_the_mounts_and_the_images_python(
    submitted, tmp_path
):
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to("/bin/true")
    words = ("--data=/scratch/my scans", "--workdir=RUN")
    image = "ghcr.io#nvidia/jax:jax"
    for mounts, expected in (("", ""), ("/scratch:/scratch", ",/scratch:/scratch")):
        done, asked, _ = submitted(*words, pyxis=True, CONTAINER=image, MOUNTS=mounts)
        assert done.returncode == 0, done.stderr
        assert asked[asked.index("python3") :] == [
            *("python3", "-m", "launch.train"),
            *words,
        ]
        assert {
            f"--container-image={image}",
            f"--container-mounts={tmp_path}:{tmp_path}{expected}",
            f"--container-workdir={tmp_path}",
        } <= set(asked)
    _, asked, _ = submitted(*words, pyxis=True)
    assert ".venv/bin/python" in asked
    assert not any(word.startswith("--container") for word in asked)


def test_a_container_without_pyxis_is_one_line_and_status_2(submitted):
    done, asked, _ = submitted("--data=D", pyxis=False, CONTAINER="image")
    assert (done.returncode, asked) == (2, [])
    assert done.stderr.startswith("error: CONTAINER=image needs Pyxis")
    assert done.stderr.count("\n") == 1


def test_75_is_queued_again_and_a_death_or_a_hang_a_limited_number_of_times(submitted):
    again = ["requeue", "7"]
    for leaves, starts, requeued in (
        *((75, "0", again), (75, "99", again), (3, "0", []), (0, "0", [])),
        *((134, "0", again), (137, "19", again), (134, "20", [])),
    ):
        done, _, asked = submitted(
            "--data=D", pyxis=True, leaves=leaves, SLURM_RESTART_COUNT=starts
        )
        assert (done.returncode, asked) == (leaves, requeued)


def test_the_script_started_without_sbatch_is_one_line_and_status_2():
    outside = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    done = subprocess.run(
        [ROOT / "launch/cluster/slurm.sh", "--data=DATA"],
        env=outside,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "sbatch" in done.stderr
