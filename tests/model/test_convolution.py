"""The fast 3x3x3 convolution and the block convolutions against XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attunet_jax.errors import BadArguments
from attunet_jax.model.convolution import (
    choose_formulation,
    conv3x3x3,
    conv_1x1x1,
    conv_2x2x2_stride_2,
)

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


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matrix_form_equals_compiler_form_in_value_and_both_gradients(shape):
    batch, depth, height, width, channels, outputs = shape
    rng = np.random.default_rng(0)
    volume = (batch, depth, height, width)
    x = rng.normal(size=(*volume, channels)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 3, channels, outputs)).astype(np.float32)
    cotangent = rng.normal(size=(*volume, outputs)).astype(np.float32)
    ours = jax.jit(_pair, static_argnums=0)("matrix", x, kernel, cotangent)
    compilers = jax.jit(_pair, static_argnums=0)("compiler", x, kernel, cotangent)
    for got, expected in zip(ours, compilers, strict=True):
        assert got.shape == expected.shape and got.dtype == expected.dtype
        assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()
