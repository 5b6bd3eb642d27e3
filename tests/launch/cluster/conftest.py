"""Starts runs of a tiny network in several processes."""

import os
import sys

import pytest
from several import STEPS, Job


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "PYTHONUNBUFFERED": "1",
        "PYTHON": sys.executable,
        # Steps are few and small: the compiler's time is most of a run.
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }


@pytest.fixture(scope="module")
def train(environment, quick_program, prepared, tiny_flags, tmp_path_factory):
    """Starts a run: how many processes, devices of each, its folder, more words."""
    outputs = tmp_path_factory.mktemp("outputs")

    def start(
        processes,
        devices,
        workdir,
        *more,
        own=(),
        profile=None,
        depth=8,
        program=(),
        quick=False,
    ):
        words = [
            str(processes),
            f"--cpu_devices={devices}",
            *own,
            "--",
            *program,
            "--config=configs/attention_unet.py",
            f"--data={prepared}",
            f"--workdir={workdir}",
            *(flag for flag in tiny_flags if "_shape=" not in flag),
            "--config.model.sub_gates=1",
            f"--config.data.crop_shape=({depth},8,8)",
            f"--config.data.read_shape=({depth},12,12)",
            f"--config.train.steps={STEPS}",
            "--config.train.log_every_steps=1",
            "--config.train.checkpoint_every_steps=2",
            f"--config.train.evaluate_every_steps={STEPS}",
            "--config.data.batch_size=4",
            "--config.train.log_cases=True",
            *map(str, more),
            *([f"--profile_steps={profile}"] if profile else []),
        ]
        output = outputs / f"{len(list(outputs.iterdir()))}.txt"
        flags = {"XLA_FLAGS": quick_program["XLA_FLAGS"]} if quick else {}
        return Job(output, words, environment | flags)

    return start
