"""The layers of one scale: convolution, normalisation, activation, channels last.

Initial values are the published code's: kernels N(0, 2 / fan_in), biases
U(-1, 1) / sqrt(fan_in), BatchNorm scales N(1, 0.02).
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from attunet_jax.model import convolution

kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def uniform_bias(fan_in: int):
    """Initialiser U(-1, 1) / sqrt(fan_in), PyTorch's for convolutions."""
    bound = 1 / math.sqrt(fan_in)

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Conv(nn.Module):
    """Convolution `[B, D, H, W, C] -> [B, D', H', W', features]`.

    `size` 3 is 3x3x3 with zero padding; 1 is 1x1x1; 2 is 2x2x2 with stride 2.
    """

    features: int
    size: int
    dtype: Any
    formulation: str = "compiler"
    use_bias: bool = True
    kernel_init: Any = kaiming_normal
    bias_init: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size,) * 3 + (x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape).astype(self.dtype)
        x = x.astype(self.dtype)
        if self.size == 3:
            y = convolution.conv3x3x3(x, kernel, formulation=self.formulation)
        elif self.size == 2:
            y = convolution.conv_2x2x2_stride_2(x, kernel)
        else:
            y = convolution.conv_1x1x1(x, kernel)
        if self.use_bias:
            init = self.bias_init or uniform_bias(math.prod(shape[:-1]))
            y = y + self.param("bias", init, (self.features,)).astype(self.dtype)
        return y


class BatchNorm(nn.Module):
    """Normalises each channel over batch and space; statistics in float32.

    Flax's own keeps the biased variance as running statistic; PyTorch, and so the
    published weights, the unbiased one. Momentum 0.1 and epsilon 1e-5 as there.
    """

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        channels = x.shape[-1]
        scale = self.param("scale", _scale_init, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        stored_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        stored_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if train:
            axes = tuple(range(x.ndim - 1))
            wide = x.astype(jnp.float32)
            mean = wide.mean(axes)
            # Two passes: E[x^2] - E[x]^2 loses all digits where |mean| >> deviation.
            var = jnp.square(wide - mean).mean(axes)
            if not self.is_initializing():
                count = x.size // channels
                unbiased = var * (count / max(count - 1, 1))
                stored_mean.value = 0.9 * stored_mean.value + 0.1 * mean
                stored_var.value = 0.9 * stored_var.value + 0.1 * unbiased
        else:
            mean, var = stored_mean.value, stored_var.value
        gain = scale * jax.lax.rsqrt(var + 1e-5)
        shifted = (x.astype(jnp.float32) - mean) * gain + bias
        return shifted.astype(self.dtype)


def _scale_init(key, shape, dtype=jnp.float32):
    return 1.0 + 0.02 * jax.random.normal(key, shape, dtype)


class ConvBlock(nn.Module):
    """Twice 3x3x3 convolution, BatchNorm, ReLU: one scale of the U-Net."""

    features: int
    dtype: Any
    formulation: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i in (1, 2):
            x = Conv(self.features, 3, self.dtype, self.formulation, name=f"conv_{i}")(
                x
            )
            x = nn.relu(BatchNorm(self.dtype, name=f"norm_{i}")(x, train))
        return x


class PointwiseBlock(nn.Module):
    """1x1x1 convolution, BatchNorm, ReLU."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = Conv(self.features, 1, self.dtype, name="conv")(x)
        return nn.relu(BatchNorm(self.dtype, name="norm")(x, train))
