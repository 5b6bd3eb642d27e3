"""A convolution that makes its input twice: the same gradients in less memory."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attunet_jax.ops.conv import conv3x3x3
from attunet_jax.ops.cpu.sequencing import not_before
from attunet_jax.ops.norm import activated
from attunet_jax.ops.recompute import conv3x3x3_of

LAYERS = 4
FORMS = ("compiler", "matrix")


def kept(make_input, arrays, kernel, formulation):
    """The same by JAX's own rules: keeps what `make_input` made."""
    return conv3x3x3(make_input(*arrays), kernel, formulation=formulation)


def total(convolution, formulation):
    """Sum of squares of a few layers, each the activation of the one before."""

    def value(x, parameters):
        for kernel, mean, gain, shift in parameters:
            arrays = (x, mean, gain, shift)
            x = convolution(activated, arrays, kernel, formulation)
        return jnp.square(x).sum()

    return jax.jit(jax.value_and_grad(value, argnums=(0, 1)))


def draw(shape):
    rng = np.random.default_rng(0)
    channels = shape[-1]
    sizes = [(3, 3, 3, channels, channels), *[(channels,)] * 3]
    layers = [[rng.normal(0, 0.2, s) for s in sizes] for _ in range(LAYERS)]
    drawn: Any = (rng.normal(size=shape), layers)
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), drawn)


@pytest.mark.parametrize("formulation", FORMS)
def test_gradients_are_those_of_the_same_layers_with_inputs_kept(formulation):
    inputs = draw((2, 3, 5, 4, 3))
    got = total(conv3x3x3_of, formulation)(*inputs)
    expected = total(kept, formulation)(*inputs)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("formulation", FORMS)
def test_the_compiled_gradient_needs_less_memory(formulation):
    """Of each layer the convolution's result is left to be kept, its input is not."""
    inputs = draw((1, 16, 24, 24, 8))

    def bytes_of(convolution) -> int:
        compiled = total(convolution, formulation).lower(*inputs).compile()
        memory: Any = compiled.memory_analysis()
        return memory.temp_size_in_bytes

    volume = inputs[0].nbytes
    assert bytes_of(kept) - bytes_of(conv3x3x3_of) > (LAYERS - 2) * volume


def test_arrays_that_wait_are_the_same_to_the_last_bit():
    special = jnp.array([-0.0, 0.0, 1e-42, jnp.inf, 3.3], jnp.float32)
    waited = jax.jit(not_before)({"a": special}, jnp.ones((2, 2)))["a"]
    assert np.asarray(waited).tobytes() == np.asarray(special).tobytes()
    spoilt = not_before((special,), jnp.full((2,), jnp.nan))[0]
    assert np.isnan(spoilt).all()
