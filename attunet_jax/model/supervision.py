"""Deep supervision: decoder features of every scale in, one map of logits out.

The published network upsamples each scale's logits, joins them and convolves them
1x1x1 ("fusion"). Both convolutions are linear for each voxel and upsampling keeps
constants, so here a scale's logits are fused on its own grid, within the product that
makes them, and nothing is joined. A train step in bfloat16 takes 0.94 of the time
(docs/benchmarks.md).
"""

import functools

import jax
import jax.numpy as jnp

from attunet_jax.model.blocks import Conv
from attunet_jax.model.convolution import conv_1x1x1

# Products of kernels, a few numbers each: not rounded as TPUs round factors.
_exactly = functools.partial(jnp.matmul, precision="highest")


class ScaleLogits(Conv):
    """1x1x1 convolution of one scale's features, and after it its share of the fusion.

    x [B, D, H, W, C], share [1, 1, 1, features, O] -> [B, D, H, W, O] in float32.
    """

    def __call__(self, x: jax.Array, share: jax.Array) -> jax.Array:
        kernel, bias = self.kernel_and_bias(x.shape[-1])
        y = conv_1x1x1(x, _exactly(kernel, share).astype(x.dtype))
        return y + _exactly(bias, share[0, 0, 0])


class Fusion(Conv):
    """What is left of the fusion once every scale has had its share: sum and bias."""

    def shares(self, count: int) -> list[jax.Array]:
        """The kernel, [1, 1, 1, features, features] in float32 for each scale."""
        kernel, _ = self.kernel_and_bias(count * self.features)
        return jnp.split(kernel, count, axis=3)

    def __call__(self, *each: jax.Array) -> jax.Array:
        _, bias = self.kernel_and_bias(len(each) * self.features)
        return functools.reduce(jnp.add, each) + bias
