"""The layers of one scale: convolution, BatchNorm, ReLU, with their parameters.

Initial values are the published code's: kernels N(0, 2 / fan_in), biases
U(-1, 1) / sqrt(fan_in), BatchNorm scales N(1, 0.02).
"""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from attunet_jax.ops import dispatch
from attunet_jax.ops.conv import conv_1x1x1, conv_2x2x2_stride_2
from attunet_jax.ops.norm import normalise, normalise_relu, statistics
from attunet_jax.ops.recompute import Deferred, array_of

EPSILON, MOMENTUM = 1e-5, 0.1  # of BatchNorm, as in PyTorch

kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def uniform_bias(fan_in: int) -> nn.initializers.Initializer:
    """Returns the initialiser U(-1, 1) / sqrt(fan_in), PyTorch's for convolutions."""
    bound = 1 / math.sqrt(fan_in)

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def _scale_init(key, shape, dtype=jnp.float32):
    return 1.0 + 0.02 * jax.random.normal(key, shape, dtype)


class Biased(NamedTuple):
    """A convolution's result and its bias, kept apart.

    BatchNorm subtracts each channel's mean, in which a constant of the channel cancels.
    This holds for no norm over several channels.
    """

    volume: jax.Array
    bias: jax.Array  # float32 [C]


class Conv(nn.Module):
    """Convolution `[B, D, H, W, C] -> [B, D', H', W', features]`.

    `size` 3 is 3x3x3 with zero padding, 1 is 1x1x1, 2 is 2x2x2 with stride 2. With
    `defer_bias` the result is `Biased`, for a BatchNorm.
    """

    features: int
    size: int
    dtype: DTypeLike = jnp.float32
    use_bias: bool = True
    defer_bias: bool = False
    convolution: str = "auto"  # how a 3x3x3 convolution is computed: ops.dispatch
    kernel_init: Any = kaiming_normal
    bias_init: Any = None

    def __call__(self, x: jax.Array | Deferred) -> Any:
        kernel, bias = self.kernel_and_bias(x.shape[-1])
        y = self._without_bias(x, kernel)
        if bias is None:
            return y
        if self.defer_bias:
            return Biased(y, bias)
        # In float32, as its gradient then is: a sum over all voxels.
        return (y + bias).astype(self.dtype)

    def and_norm(self, x: jax.Array | Deferred, norm: "BatchNorm") -> jax.Array:
        """The convolution and `norm` by its running statistics, as one convolution.

        For GPUs: cuDNN adds the bias, and takes a ReLU, as it convolves, where the bias
        is in the convolution's own type (docs/benchmarks.md: what bfloat16 costs).
        """
        kernel, bias = norm.folded(*self.kernel_and_bias(x.shape[-1]))
        return self._without_bias(x, kernel) + bias.astype(self.dtype)

    def _without_bias(self, x: jax.Array | Deferred, kernel: jax.Array) -> jax.Array:
        kernel = kernel.astype(self.dtype)
        if self.size == 3:
            return dispatch.conv3x3x3(x, kernel, convolution=self.convolution)
        if self.size == 2:
            return conv_2x2x2_stride_2(array_of(x), kernel)
        return conv_1x1x1(array_of(x), kernel)

    @nn.compact
    def kernel_and_bias(self, channels: int) -> tuple[jax.Array, jax.Array | None]:
        """Float32 `[size, size, size, channels, features]`, `[features]` or None."""
        shape = (self.size,) * 3 + (channels, self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        if not self.use_bias:
            return kernel, None
        init = self.bias_init or uniform_bias(math.prod(shape[:-1]))
        return kernel, self.param("bias", init, (self.features,))


class BatchNorm(nn.Module):
    """Normalises each channel over batch and space; statistics in float32.

    Under a mesh that splits the batch or the depth the statistics are those of the
    whole batch: `jit` sees the global array, and XLA inserts the all-reduce. The
    running variance is the unbiased one, as in PyTorch and so in the published weights;
    Flax's own BatchNorm keeps the biased one and reads a volume more often.
    """

    def __call__(self, x: jax.Array | Biased, train: bool) -> jax.Array:
        volume, *vectors = self.normalise_arguments(x, train)
        return normalise(volume, *vectors).astype(volume.dtype)

    @nn.compact
    def normalise_arguments(
        self, x: jax.Array | Biased, train: bool
    ) -> tuple[jax.Array, ...]:
        """Arguments of `ops.norm.normalise`; updates the running statistics.

        Returns `(volume, mean, scale / sqrt(var + EPSILON), bias)`, the last three
        float32 `[C]`. The convolution's bias is part of the mean, so in training it has
        no influence and no gradient.
        """
        volume, shift = x if isinstance(x, Biased) else (x, 0.0)
        channels = volume.shape[-1]
        scale = self.param("scale", _scale_init, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        stored_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        stored_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if train:
            mean, var = statistics(volume)
            if not self.is_initializing():
                count = volume.size // channels
                unbiased = var * (count / max(count - 1, 1))
                kept = 1 - MOMENTUM
                stored_mean.value = kept * stored_mean.value + MOMENTUM * (mean + shift)
                stored_var.value = kept * stored_var.value + MOMENTUM * unbiased
        else:
            mean, var = stored_mean.value - shift, stored_var.value
        return volume, mean, scale * jax.lax.rsqrt(var + EPSILON), bias

    def folded(
        self, kernel: jax.Array, bias: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Kernel and bias of a convolution followed by this norm, as one convolution.

        By the running statistics the norm is a factor and a summand for each channel.
        """
        with_bias = kernel if bias is None else Biased(kernel, bias)
        _, mean, factor, shift = self.normalise_arguments(with_bias, False)
        return kernel * factor, shift - mean * factor


class BatchNormRelu(BatchNorm):
    """BatchNorm, then negative values to zero: deferred to where it is needed."""

    def __call__(self, x: jax.Array | Biased, train: bool) -> Deferred:
        return Deferred(normalise_relu, self.normalise_arguments(x, train))


class ConvBlock(nn.Module):
    """One scale of the U-Net: 3x3x3 convolution, BatchNorm, ReLU, twice."""

    features: int
    dtype: DTypeLike = jnp.float32
    convolution: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array | Deferred, train: bool) -> jax.Array:
        for i in (1, 2):
            conv = Conv(
                self.features,
                3,
                self.dtype,
                defer_bias=True,
                convolution=self.convolution,
                name=f"conv_{i}",
            )
            norm = BatchNormRelu(name=f"norm_{i}")
            if not train and self.convolution == dispatch.CHANNELS_LAST:
                x = jax.nn.relu(conv.and_norm(x, norm))  # cuDNN does it all at once
            else:
                x = norm(conv(x), train)
        return array_of(x)


class PointwiseBlock(nn.Module):
    """1x1x1 convolution, BatchNorm, ReLU."""

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = Conv(self.features, 1, self.dtype, defer_bias=True, name="conv")(x)
        return BatchNormRelu(name="norm")(y, train).array()
