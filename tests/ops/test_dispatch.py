"""Which form computes where, and how it is found out whether oneDNN can."""

import os
import stat
import sys

import jax
import jax.numpy as jnp
import pytest

from attunet_jax.errors import BadArguments
from attunet_jax.ops import dispatch
from attunet_jax.ops.cpu import onednn_probe

needs_onednn = pytest.mark.skipif(
    not dispatch.onednn_available("float32"), reason="no oneDNN in this jaxlib"
)


def test_the_compilers_convolution_is_chosen_but_on_one_cpu_device():
    for backend, devices in (("cpu", 2), ("tpu", 4), ("tpu", 1)):
        for dtype in ("float32", "bfloat16"):
            assert dispatch.choose_convolution(backend, devices, dtype) == "compiler"


def test_on_gpus_the_compiler_is_told_to_keep_the_channels_last():
    for backend, devices in (("gpu", 1), ("gpu", 8), ("cuda", 1)):
        for dtype in ("float32", "bfloat16"):
            chosen = dispatch.choose_convolution(backend, devices, dtype)
            assert chosen == "channels_last"
    assert dispatch.compiler_options("channels_last") == {
        "xla_gpu_force_conv_nhwc": True
    }
    assert dispatch.compiler_options("compiler") == {}


def test_on_one_cpu_device_onednn_is_chosen_where_it_is_available(monkeypatch):
    for available, chosen in ((True, "onednn"), (False, "matrix")):
        monkeypatch.setattr(onednn_probe, "available", lambda dtype, a=available: a)
        assert dispatch.choose_convolution("cpu", 1, "float32") == chosen


def test_an_unknown_convolution_is_named_with_those_there_are():
    x = jnp.zeros((1, 2, 2, 2, 1))
    with pytest.raises(
        BadArguments, match="'winograd' is none of: compiler, channels_last, matrix"
    ):
        dispatch.conv3x3x3(x, jnp.zeros((3, 3, 3, 1, 1)), convolution="winograd")


def program(folder, text):
    file = folder / "python"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(file)


@pytest.mark.skipif(sys.platform != "linux", reason="oneDNN is in Linux wheels only")
def test_a_crash_of_the_trial_means_not_available_and_is_remembered(
    tmp_path, monkeypatch
):
    ask = onednn_probe.available.__wrapped__
    monkeypatch.setattr(onednn_probe.platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    crash = program(tmp_path, 'echo x >> "$0.calls"; kill -SEGV $$')
    monkeypatch.setattr(onednn_probe.sys, "executable", crash)
    assert not ask("float32")
    assert not ask("float32")
    assert (tmp_path / "python.calls").read_text() == "x\n"


@pytest.mark.skipif(sys.platform != "linux", reason="oneDNN is in Linux wheels only")
def test_a_trial_that_does_not_end_is_not_remembered_as_wrong(tmp_path, monkeypatch):
    ask = onednn_probe.available.__wrapped__
    monkeypatch.setattr(onednn_probe.platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(onednn_probe, "TIMEOUT_S", 0.2)
    slow = program(tmp_path, "exec sleep 5")
    monkeypatch.setattr(onednn_probe.sys, "executable", slow)
    assert not ask("float32")
    monkeypatch.setattr(onednn_probe.sys, "executable", program(tmp_path, "exit 0"))
    assert ask("float32")


@pytest.mark.skipif(sys.platform != "linux", reason="oneDNN is in Linux wheels only")
def test_what_the_trial_found_right_is_available(tmp_path, monkeypatch):
    monkeypatch.setattr(onednn_probe.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(onednn_probe.sys, "executable", program(tmp_path, "exit 0"))
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/no/such/folder")
    assert onednn_probe.available.__wrapped__("float32")
    assert not onednn_probe.available.__wrapped__("float64")


@needs_onednn
def test_the_trial_compares_with_float64_and_looks_for_the_call(monkeypatch):
    from attunet_jax.ops.cpu import conv_onednn

    right = conv_onednn.conv3x3x3
    assert onednn_probe.probe("float32")
    monkeypatch.setattr(conv_onednn, "conv3x3x3", lambda x, k: right(x, k) * 1.001)
    assert not onednn_probe.probe("float32")
    monkeypatch.setattr(conv_onednn, "conv3x3x3", right)
    monkeypatch.setattr(conv_onednn, "CONVOLUTION", "__no_such_call")
    if not conv_onednn.HAND_WRITTEN:
        assert not onednn_probe.probe("float32")


def test_only_programs_with_onednn_are_kept_out_of_the_compilation_cache():
    name = "jax_persistent_cache_min_compile_time_secs"
    before = jax.config.values[name]
    with dispatch.compilation_cache("matrix"):
        assert jax.config.values[name] == before
    with pytest.raises(KeyError), dispatch.compilation_cache("onednn"):
        assert jax.config.values[name] == float("inf")
        raise KeyError
    assert jax.config.values[name] == before
    assert dispatch.compiler_options("matrix") == {}
    assert os.environ.get(dispatch.SWITCH) is None
