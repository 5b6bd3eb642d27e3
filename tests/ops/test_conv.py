"""The fast 3x3x3 convolution and the block convolutions against XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attunet_jax.errors import BadArguments
from attunet_jax.ops import conv
from attunet_jax.ops.conv import (
    choose_formulation,
    conv3x3x3,
    conv_1x1x1,
    conv_2x2x2_stride_2,
)
from attunet_jax.ops.cpu import conv_onednn

SHAPES = [  # batch, depth, height, width, channels, outputs
    (2, 4, 6, 6, 1, 16),
    (2, 4, 6, 6, 16, 16),
    (1, 4, 4, 4, 16, 32),
    (2, 3, 4, 4, 32, 32),
    (1, 2, 4, 4, 32, 64),
    (1, 2, 4, 4, 64, 64),
    (1, 2, 2, 2, 64, 128),
    (1, 1, 2, 2, 128, 256),
    (1, 2, 4, 4, 128, 64),
    (1, 2, 4, 4, 96, 32),
    (1, 4, 6, 6, 48, 16),
    (1, 5, 7, 9, 1, 8),
    (2, 3, 5, 7, 8, 16),
    (1, 1, 1, 1, 3, 5),
    (2, 2, 1, 3, 5, 3),
    (1, 1, 2, 2, 16, 16),
    (1, 3, 1, 1, 40, 20),
    (1, 2, 3, 21, 21, 42),
    (1, 3, 3, 42, 42, 21),
    (2, 2, 3, 33, 33, 67),
    (1, 2, 3, 67, 67, 33),
]


def _pair(formulation, x, kernel, cotangent):
    y, vjp = jax.vjp(lambda x, k: conv3x3x3(x, k, formulation=formulation), x, kernel)
    return y, *vjp(cotangent)


needs_onednn = pytest.mark.skipif(
    not conv_onednn.available("float32"), reason="no oneDNN in this jaxlib"
)
CPU_FORMS = ["matrix", pytest.param("onednn", marks=needs_onednn)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("form", CPU_FORMS)
def test_cpu_forms_equal_compiler_form_in_value_and_both_gradients(form, shape):
    batch, depth, height, width, channels, outputs = shape
    rng = np.random.default_rng(0)
    volume = (batch, depth, height, width)
    x = rng.normal(size=(*volume, channels)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 3, channels, outputs)).astype(np.float32)
    cotangent = rng.normal(size=(*volume, outputs)).astype(np.float32)
    ours = jax.jit(_pair, static_argnums=0)(form, x, kernel, cotangent)
    compilers = jax.jit(_pair, static_argnums=0)("compiler", x, kernel, cotangent)
    for got, expected in zip(ours, compilers, strict=True):
        assert got.shape == expected.shape and got.dtype == expected.dtype
        assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("most, taken", [(0, 1), (70, 2), (139, 3), (175, 3), (999, 6)])
def test_the_kernels_gradient_is_the_same_by_any_number_of_slices(
    monkeypatch, most, taken
):
    monkeypatch.setattr(conv, "MOST_ROWS", most)
    rng = np.random.default_rng(2)
    x, cotangent = rng.normal(size=(2, 2, 6, 5, 7, 3)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 3, 3, 3)).astype(np.float32)
    arrays = x, kernel, cotangent
    text = str(jax.make_jaxpr(lambda *a: _pair("matrix", *a))(*arrays))
    assert f"length={2 * 6 // taken}\n" in text
    *_, got = jax.jit(lambda *a: _pair("matrix", *a))(*arrays)
    *_, expected = jax.jit(lambda *a: _pair("compiler", *a))(*arrays)
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("shape", [(2, 4, 6, 6, 16, 16), (1, 2, 4, 4, 64, 64)], ids=str)
def test_in_bfloat16_all_forms_are_as_near_to_float64_as_its_rounding(shape):
    batch, depth, height, width, channels, outputs = shape
    rng = np.random.default_rng(1)
    volume = (batch, depth, height, width)
    x, kernel, cotangent = (
        jnp.asarray(rng.normal(size=size), jnp.bfloat16)
        for size in (
            (*volume, channels),
            (3, 3, 3, channels, outputs),
            (*volume, outputs),
        )
    )
    wide = [np.asarray(a).astype(np.float64) for a in (x, kernel, cotangent)]
    # All three are sums of x and kernel, or of either and the cotangent, over 27 taps.
    padded = np.pad(wide[0], ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
    value, gradient = 0, np.empty(kernel.shape)
    for i, j, k in np.ndindex(3, 3, 3):
        tap = padded[:, i : i + depth, j : j + height, k : k + width]
        value = value + tap @ wide[1][i, j, k]
        gradient[i, j, k] = np.einsum("bdhwc,bdhwo->co", tap, wide[2])
    forms = ["matrix", "compiler"]
    if conv_onednn.available("bfloat16"):
        forms.append("onednn")
    for formulation in forms:
        y, _, kernel_gradient = jax.jit(_pair, static_argnums=0)(
            formulation, x, kernel, cotangent
        )
        for got, expected in ((y, value), (kernel_gradient, gradient)):
            assert got.dtype == jnp.bfloat16
            error = np.abs(np.asarray(got).astype(np.float64) - expected).max()
            assert error <= 2**-8 * np.abs(expected).max()


def test_an_unknown_formulation_is_named_with_those_there_are():
    x = jnp.zeros((1, 2, 2, 2, 1))
    with pytest.raises(BadArguments, match="'winograd' is unknown.*compiler, matrix"):
        conv3x3x3(x, jnp.zeros((3, 3, 3, 1, 1)), formulation="winograd")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("backend, devices", [("cpu", 2), ("gpu", 1), ("tpu", 4)])
def test_the_compilers_form_is_chosen_but_on_one_cpu_device(backend, devices, dtype):
    assert choose_formulation(backend, devices, dtype) == "compiler"


@pytest.mark.parametrize("there, chosen", [(True, "onednn"), (False, "matrix")])
def test_onednn_is_chosen_where_it_is_and_the_matrix_form_elsewhere(
    monkeypatch, there, chosen
):
    monkeypatch.setattr(conv_onednn, "available", lambda dtype: there)
    assert choose_formulation("cpu", 1, "float32") == chosen


@needs_onednn
@pytest.mark.parametrize("call", ["_CONVOLUTION", "_MATMUL"])
def test_a_call_that_is_missing_counts_as_not_available(monkeypatch, call):
    monkeypatch.setattr(conv_onednn, call, "__no_such_call")
    assert not conv_onednn.available.__wrapped__("float32")


@needs_onednn
@pytest.mark.parametrize("version", ["0.12.0", "0.9.1", "0.110.1"])
def test_a_release_in_which_it_was_not_tried_is_not_asked(monkeypatch, version):
    monkeypatch.setattr(conv_onednn.metadata, "version", lambda name: version)
    assert not conv_onednn.available.__wrapped__("float32")


@needs_onednn
@pytest.mark.parametrize("call", ["conv3x3x3", "products_summed"])
def test_a_call_with_wrong_answers_counts_as_not_available(monkeypatch, call):
    right = getattr(conv_onednn, call)
    monkeypatch.setattr(conv_onednn, call, lambda a, b: right(a, b) * 1.001)
    assert not conv_onednn.available.__wrapped__("float32")


def test_a_1x1x1_convolution_multiplies_every_voxel_by_one_matrix():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 3, 4, 5, 3)).astype(np.float32)
    kernel = rng.normal(size=(1, 1, 1, 3, 2)).astype(np.float32)
    got = jax.jit(conv_1x1x1)(x, kernel)
    np.testing.assert_allclose(got, x @ kernel[0, 0, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 2, 6), (5, 3, 7)], ids=str)
def test_a_2x2x2_convolution_sums_each_block_and_leaves_the_odd_rest(size):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, *size, 3)).astype(np.float32)
    kernel = rng.normal(size=(2, 2, 2, 3, 4)).astype(np.float32)
    got = jax.jit(conv_2x2x2_stride_2)(x, kernel)
    assert got.shape == (2, *(n // 2 for n in size), 4)
    for b, d, h, w in np.ndindex(got.shape[:4]):
        block = x[b, 2 * d : 2 * d + 2, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2]
        expected = np.einsum("xyzc,xyzco->o", block, kernel)
        np.testing.assert_allclose(got[b, d, h, w], expected, rtol=0, atol=1e-5)
