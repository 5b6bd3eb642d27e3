"""What is said of a machine on which JAX cannot compute as it is asked to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch import devices

ROOT = Path(__file__).resolve().parents[2]


def python(*words: object, **environment: str) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    "environment, said",
    [
        ({"JAX_PLATFORMS": "rocm"}, "JAX_PLATFORMS=rocm"),
        ({"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1"}, "JAX_ENABLE_X64 is on"),
    ],
)
def test_a_platform_that_is_not_there_and_64_bits_are_one_line(
    tmp_path, prepared, environment, said
):
    words = (f"--data={prepared}", f"--workdir={tmp_path / 'run'}")
    done = python("-m", "launch.train", *words, **environment)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {said}") and "unset it" in line
    assert [*tmp_path.iterdir()] == []


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="JAX may use this GPU")
def test_a_gpu_that_this_jax_cannot_use_is_said_once(tmp_path):
    command = tmp_path / "nvidia-smi"
    command.write_text('#!/bin/sh\necho "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)"\n')
    command.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    check = "from launch.devices import check_devices; check_devices()"
    done = python("-c", check, **path)
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("note: ")]
    assert "GPU (NVIDIA H100 80GB HBM3) that this JAX cannot use" in line
    assert "make install ACCELERATOR=cuda13" in line and done.returncode == 0
    # Who asks for the CPU knows.
    assert "note:" not in python("-c", check, **path, JAX_PLATFORMS="cpu").stderr


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="JAX may use this GPU")
def test_cuda_is_asked_for_where_no_gpu_can_be_seen():
    check = "from launch import devices, cli; cli.exit_status(devices.check_devices)"
    (line,) = python("-c", check, JAX_PLATFORMS="cuda").stderr.splitlines()
    assert line.startswith("error: JAX_PLATFORMS=cuda") and "nvidia-smi" in line


def test_a_device_without_memory_left_is_one_line_and_other_errors_stay():
    import jax.numpy as jnp

    from attunet_jax.errors import BadArguments
    from launch.devices import memory_is_enough

    with pytest.raises(BadArguments) as error, memory_is_enough():
        jnp.zeros(1 << 44, jnp.float32).block_until_ready()  # 64 TiB
    assert "70368744177664" in str(error.value)
    assert "--config.data.crop_shape" in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(RuntimeError, match="mine"), memory_is_enough():
        raise RuntimeError("mine")


def test_a_hidden_gpu_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices.unused_gpu() is None
