"""Every form for one CPU device equals its plain form, in value and all gradients."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attunet_jax.ops import conv, dispatch
from attunet_jax.ops.cpu import bf16_bits
from attunet_jax.ops.cpu.sequencing import sequence_after
from attunet_jax.ops.norm import normalise_relu
from attunet_jax.ops.recompute import Deferred
from attunet_jax.ops.resize import upsample_concat

# float32: sums of some hundred terms in another order. bfloat16: each result rounded
# once and factors rounded once before, by 2**-8 at most each, of the sum of all terms'
# sizes; float32's bound on top.
ROUNDING = {"float32": 2e-5, "bfloat16": 2 * 2**-8 + 2e-5}

Arrays = list[np.ndarray]


def of_an_array(arrays: Any) -> Any:
    return arrays[0]


def of_an_activation(arrays: Any) -> Any:
    return Deferred(normalise_relu, tuple(arrays))


def of_a_join(arrays: Any) -> Any:
    return upsample_concat(*arrays, align_corners=False)


def of_a_join_with_aligned_corners(arrays: Any) -> Any:
    return upsample_concat(*arrays, align_corners=True)


def convolve(input_of: Callable, arrays: Any, form: str) -> jax.Array:
    *given, kernel = arrays
    return dispatch.conv3x3x3(input_of(given), kernel, convolution=form)


def draw(input_of: Callable, seed: int) -> Arrays:
    """Arrays of random odd and even sizes and numbers of channels; also one voxel.

    Channels lead into every formulation of the matrix form; a large plane into several
    steps of its scans.
    """
    rng = np.random.default_rng(seed)
    batch, *space = rng.integers(1, (3, 6, 7, 8))
    channels, outputs = rng.choice([1, 3, 16, 21, 40, 67], 2)
    if seed == 0:
        batch, space, channels, outputs = 1, [1, 1, 1], 1, 1
    if seed == 1:
        batch, space, channels, outputs = 1, [2, 80, 78], 2, 3
    if input_of is of_an_array:
        shapes = [(batch, *space, channels)]
    elif input_of is of_an_activation:
        shapes = [(batch, *space, channels), *[(channels,)] * 3]
    else:
        skip = int(rng.integers(1, 4))
        shapes = [
            (batch, *(2 * n for n in space), skip),
            (batch, *space, channels),
        ]
        channels += skip
    shapes.append((3, 3, 3, channels, outputs))
    return [rng.normal(size=shape) for shape in shapes]


def value_and_gradients(input_of: Callable, arrays: Any, form: str, seed: int) -> Any:
    def both(arrays: Any) -> Any:
        y, back = jax.vjp(lambda *a: convolve(input_of, a, form), *arrays)
        weights = np.random.default_rng(seed + 100).normal(size=y.shape)
        return y, *back(jnp.asarray(weights, y.dtype))

    return [np.asarray(a) for a in jax.jit(both)(arrays)]


CPU_FORMS = [dispatch.MATRIX]
CPU_FORMS += [dispatch.ONEDNN] if dispatch.onednn_available("float32") else []


@pytest.mark.parametrize(
    "input_of, seeds",
    [
        (of_an_array, (0, 1, 2, 3)),
        (of_an_activation, (0, 2, 3)),
        (of_a_join, (0, 2, 3)),  # 1 takes half a minute, and is of_an_array's
        (of_a_join_with_aligned_corners, (2,)),
    ],
)
def test_every_form_equals_the_plain_form_in_value_and_gradients(input_of, seeds):
    for seed in seeds:
        drawn = draw(input_of, seed)
        for dtype in ("float32", "bfloat16") if seed != 3 else ("float32",):
            narrow = [jnp.asarray(a, dtype) for a in drawn]
            if input_of is of_an_activation:
                narrow[1:4] = [a.astype(jnp.float32) for a in narrow[1:4]]
            with jax.enable_x64(True):
                wide = [np.asarray(a, np.float64) for a in narrow]
                plain = value_and_gradients(input_of, wide, dispatch.COMPILER, seed)
                # A sum may cancel; what its terms were rounded by does not.
                sizes = [np.abs(a) for a in wide]
                largest = value_and_gradients(input_of, sizes, dispatch.COMPILER, seed)
            for form in CPU_FORMS:
                if form == dispatch.ONEDNN and not dispatch.onednn_available(dtype):
                    continue
                got = value_and_gradients(input_of, narrow, form, seed)
                for i, (a, b) in enumerate(zip(got, plain, strict=True)):
                    assert a.shape == b.shape
                    assert a.dtype == (narrow[i - 1].dtype if i else dtype)
                    size = max(np.abs(b).max(), np.abs(largest[i]).max())
                    error = np.abs(np.asarray(a, np.float64) - b).max()
                    assert error <= ROUNDING[dtype] * size, (seed, dtype, form, i)


def test_concatenating_by_bits_is_jax_numpys_with_its_gradients():
    rng = np.random.default_rng(0)
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        arrays = [jnp.asarray(rng.normal(size=(2, 3, 4, n)), dtype) for n in (1, 2, 5)]
        weights = jnp.asarray(rng.normal(size=(2, 3, 4, 8)), dtype)
        joined, back = jax.vjp(lambda *a: dispatch.concatenate(a, -1), *arrays)
        np.testing.assert_array_equal(joined, np.concatenate(arrays, -1))
        for got, expected in zip(
            back(weights), np.split(np.asarray(weights), [1, 3], -1), strict=True
        ):
            assert got.dtype == dtype
            np.testing.assert_array_equal(got, expected)


def test_two_byte_floats_are_integers_for_cpus_only():
    arrays = [jnp.ones((2, 3), jnp.bfloat16)] * 2
    join = jax.jit(lambda *a: dispatch.concatenate(a, axis=-1))
    on_cpu = join.trace(*arrays).lower(lowering_platforms=("cpu",)).as_text()
    elsewhere = join.trace(*arrays).lower(lowering_platforms=("tpu",)).as_text()
    assert "ui16" in on_cpu and "ui16" not in elsewhere


def test_bits_and_back_are_the_same_array_with_its_nans():
    for dtype in (jnp.float32, jnp.bfloat16):
        x = jnp.asarray([0.0, -0.0, 1.5, jnp.inf, jnp.nan], dtype)
        back = bf16_bits.from_bits(bf16_bits.as_bits(x), x.dtype)
        assert np.asarray(back).tobytes() == np.asarray(x).tobytes()


def test_sequenced_arrays_are_the_same_to_the_last_bit():
    special = jnp.array([-0.0, 0.0, 1e-42, jnp.inf, 3.3], jnp.float32)
    waited = jax.jit(sequence_after)({"a": special}, jnp.ones((2, 2)))["a"]
    assert np.asarray(waited).tobytes() == np.asarray(special).tobytes()
    spoilt = sequence_after((special,), jnp.full((2,), jnp.nan))[0]
    assert np.isnan(spoilt).all()


def temporary_bytes(function: Callable, arrays: Any) -> int:
    def total(*arrays: Any) -> jax.Array:
        return jnp.square(function(arrays)).sum()

    gradient = jax.jit(jax.grad(total, argnums=tuple(range(len(arrays)))))
    memory: Any = gradient.lower(*arrays).compile().memory_analysis()
    return memory.temp_size_in_bytes


def test_the_activation_between_two_convolutions_is_not_kept():
    rng = np.random.default_rng(0)
    channels = 8
    x = jnp.asarray(rng.normal(size=(1, 16, 24, 24, channels)), jnp.float32)
    sizes = [(3, 3, 3, channels, channels), *[(channels,)] * 3]
    layers = [
        [jnp.asarray(rng.normal(0, 0.2, size), jnp.float32) for size in sizes]
        for _ in range(4)
    ]

    def stack(arrays: Any, deferred: bool) -> Any:
        x, layers = arrays
        for kernel, *constants in layers:
            y = Deferred(normalise_relu, (x, *constants))
            given = y if deferred else y.array()
            x = dispatch.conv3x3x3(given, kernel, convolution=dispatch.MATRIX)
        return x

    kept = temporary_bytes(lambda a: stack(a, False), (x, layers))
    made_again = temporary_bytes(lambda a: stack(a, True), (x, layers))
    assert kept - made_again > (len(layers) - 2) * x.nbytes


def test_a_join_that_goes_apart_is_never_in_memory(monkeypatch):
    rng = np.random.default_rng(0)
    shapes = [(1, 24, 40, 40, 2), (1, 12, 20, 20, 16), (3, 3, 3, 18, 3)]
    arrays = tuple(jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes)

    apart = temporary_bytes(lambda a: convolve(of_a_join, a, "matrix"), arrays)
    monkeypatch.setenv(dispatch.SWITCH, "conv_upsampled,recompute")
    joined = temporary_bytes(lambda a: convolve(of_a_join, a, "matrix"), arrays)
    assert joined - apart > 18 * 24 * 40 * 40 * 4


def test_a_form_that_is_switched_off_leaves_the_plain_one(monkeypatch):
    arrays = [jnp.ones((2, 3), jnp.bfloat16)] * 2
    monkeypatch.setenv(dispatch.SWITCH, "bf16_bits")
    join = jax.jit(lambda *a: dispatch.concatenate(a, axis=-1))
    assert "ui16" not in join.lower(*arrays).as_text()


def test_the_plain_form_is_jaxs_own_convolution_of_the_joined_arrays():
    rng = np.random.default_rng(3)
    skip, coarser = rng.normal(size=(1, 4, 6, 8, 2)), rng.normal(size=(1, 2, 3, 4, 3))
    kernel = rng.normal(size=(3, 3, 3, 5, 2))
    with jax.enable_x64(True):
        finer = jax.image.resize(jnp.asarray(coarser), (1, 4, 6, 8, 3), "linear")
        joined = jnp.concatenate([jnp.asarray(skip), finer], -1)
        expected = conv.conv3x3x3(joined, jnp.asarray(kernel))
        arrays = [jnp.asarray(a) for a in (skip, coarser, kernel)]
        got = convolve(of_a_join, arrays, dispatch.COMPILER)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
