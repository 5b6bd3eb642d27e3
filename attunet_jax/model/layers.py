"""The layers of one scale: convolution, normalisation, activation, channels last.

Initial values are the published code's: kernels N(0, 2 / fan_in), biases
U(-1, 1) / sqrt(fan_in), BatchNorm scales N(1, 0.02). The bias of a convolution is left
to the BatchNorm after it, which would subtract it again: not a pass over the volume.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from attunet_jax.ops import conv
from attunet_jax.ops.norm import activated, normalised, statistics
from attunet_jax.ops.recompute import Joined, conv3x3x3_of, conv3x3x3_of_joined

kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def uniform_bias(fan_in: int):
    """Initialiser U(-1, 1) / sqrt(fan_in), PyTorch's for convolutions."""
    bound = 1 / math.sqrt(fan_in)

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Conv(nn.Module):
    """Convolution `[B, D, H, W, C] -> [B, D', H', W', features]`.

    `size` 1 is 1x1x1; 2 is 2x2x2 with stride 2.
    """

    features: int
    size: int
    dtype: Any
    use_bias: bool = True
    kernel_init: Any = kaiming_normal
    bias_init: Any = None

    def __call__(self, x: jax.Array) -> jax.Array:
        y, bias = self.without_bias(x)
        if bias is not None:
            # In float32, as its gradient then is: a sum over all voxels.
            y = (y + bias).astype(self.dtype)
        return y

    def without_bias(self, x: jax.Array) -> tuple[jax.Array, Any]:
        """The volume, and what is to be added to it: `[features]` or None."""
        kernel, bias = self.kernel_and_bias(x.shape[-1])
        convolve = conv.conv_1x1x1
        if self.size == 2:
            convolve = conv.conv_2x2x2_stride_2
        return convolve(x.astype(self.dtype), kernel.astype(self.dtype)), bias

    @nn.compact
    def kernel_and_bias(self, channels: int) -> tuple[jax.Array, Any]:
        """Float32 `[size, size, size, channels, features]`, `[features]` or None."""
        shape = (self.size,) * 3 + (channels, self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        if not self.use_bias:
            return kernel, None
        init = self.bias_init or uniform_bias(math.prod(shape[:-1]))
        return kernel, self.param("bias", init, (self.features,))


class Conv3x3x3(nn.Module):
    """3x3x3 convolution, zero padding, of what `make_input` makes of the arrays.

    With `make_input` the arrays are kept for the backward pass, not what it makes.
    """

    features: int
    dtype: Any
    formulation: str
    make_input: Callable[..., jax.Array] | None = None

    @nn.compact
    def without_bias(self, *arrays: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The volume, and what is to be added to it, float32 `[features]`."""
        made = arrays[0]
        if self.make_input is not None:
            made = jax.eval_shape(self.make_input, *arrays)
        shape = (3, 3, 3, made.shape[-1], self.features)
        kernel = self.param("kernel", kaiming_normal, shape).astype(self.dtype)
        bias = self.param("bias", uniform_bias(math.prod(shape[:-1])), shape[-1:])
        y: jax.Array
        if self.make_input is None:
            x = arrays[0].astype(self.dtype)
            y = conv.conv3x3x3(x, kernel, formulation=self.formulation)
        elif isinstance(self.make_input, Joined):
            y = conv3x3x3_of_joined(self.make_input, arrays, kernel, self.formulation)
        else:
            y = conv3x3x3_of(self.make_input, arrays, kernel, self.formulation)
        return y, bias


class BatchNorm(nn.Module):
    """`[B, D, H, W, C]` in, the same shape and type out.

    Flax's own keeps the biased variance as running statistic; PyTorch, and so the
    published weights, the unbiased one. Momentum 0.1 and epsilon 1e-5 as there.
    """

    def __call__(self, x: jax.Array, train: bool, shift: Any = 0.0) -> jax.Array:
        return normalised(x, *self.mean_gain_bias(x, train, shift)).astype(x.dtype)

    @nn.compact
    def mean_gain_bias(
        self, x: jax.Array, train: bool, shift: Any = 0.0
    ) -> tuple[jax.Array, ...]:
        """Float32 `[C]` each, for `normalised`; updates the running statistics.

        `shift [C]`, the bias of the convolution before, counts as if it were added to
        x. In training its mean holds it too, so it has no influence and no gradient.
        """
        channels = x.shape[-1]
        scale = self.param("scale", _scale_init, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        stored_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        stored_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if train:
            mean, var = statistics(x)
            if not self.is_initializing():
                count = x.size // channels
                unbiased = var * (count / max(count - 1, 1))
                stored_mean.value = 0.9 * stored_mean.value + 0.1 * (mean + shift)
                stored_var.value = 0.9 * stored_var.value + 0.1 * unbiased
        else:
            mean, var = stored_mean.value - shift, stored_var.value
        return mean, scale * jax.lax.rsqrt(var + 1e-5), bias


def _scale_init(key, shape, dtype=jnp.float32):
    return 1.0 + 0.02 * jax.random.normal(key, shape, dtype)


class ConvBlock(nn.Module):
    """Twice 3x3x3 convolution, BatchNorm, ReLU: one scale of the U-Net.

    Its input is one array, or what `make_input` makes of several.
    """

    features: int
    dtype: Any
    formulation: str
    make_input: Callable[..., jax.Array] | None = None

    @nn.compact
    def __call__(self, arrays: tuple[jax.Array, ...], train: bool) -> jax.Array:
        fields = self.features, self.dtype, self.formulation
        conv_1 = Conv3x3x3(*fields, self.make_input, name="conv_1")
        x, shift = conv_1.without_bias(*arrays)
        numbers = BatchNorm(name="norm_1").mean_gain_bias(x, train, shift)
        conv_2 = Conv3x3x3(*fields, activated, name="conv_2")
        x, shift = conv_2.without_bias(x, *numbers)
        return activated(x, *BatchNorm(name="norm_2").mean_gain_bias(x, train, shift))


class PointwiseBlock(nn.Module):
    """1x1x1 convolution, BatchNorm, ReLU."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x, shift = Conv(self.features, 1, self.dtype, name="conv").without_bias(x)
        return activated(x, *BatchNorm(name="norm").mean_gain_bias(x, train, shift))
