"""Additive grid attention (Figure 2): what of a skip connection passes.

Equations 1 and 2 of the paper, for every voxel i of the coarser grid:

    q = psi^T relu(W_x^T x_i + W_g^T g_i + b_g) + b_psi,     alpha_i = sigmoid(q)

`alpha` is resized trilinearly to the grid of x and multiplies it: x_hat = alpha x. In
the code theta is W_x^T x and phi is W_g^T g + b_g (docs/model.md has a table).
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from attunet_jax.model.layers import BatchNorm, Conv, PointwiseBlock, kaiming_normal
from attunet_jax.ops.dispatch import concatenate
from attunet_jax.ops.resize import upsample

# Before the sigmoid: sigmoid(3) = 0.953, so features pass and gradients are alive.
PASS_THROUGH_BIAS = 3.0


@dataclass(frozen=True)
class GateSettings:
    """What all gates of a network have in common; see `AttentionUNet3D`."""

    kernel: int = 2
    reduction: int = 1
    output_transform: bool = True
    coefficients: str = "scalar"
    initialisation: str = "pass_through"
    align_corners: bool = False
    dtype: DTypeLike = jnp.float32


class AttentionGate(nn.Module):
    """One sub-gate.

    `x [B, D, H, W, C]` and `g [B, D/2, H/2, W/2, G]` (or coarser) to `[B, D, H, W, C]`.
    The coefficients, `[B, D, H, W, 1]` (or C, one a channel), are sown as
    `intermediates/alpha`.
    """

    settings: GateSettings

    @nn.compact
    def __call__(self, x: jax.Array, g: jax.Array, train: bool) -> jax.Array:
        settings, dtype = self.settings, self.settings.dtype
        channels = x.shape[-1]
        inner = max(channels // settings.reduction, 1)

        # W_x has stride 2, so that x is compared with g on the coarser grid: a 2x2x2
        # convolution of disjoint blocks, or a 1x1x1 of every second voxel.
        if settings.kernel == 2:
            theta = Conv(inner, 2, dtype, use_bias=False, name="W_x")(x)
        else:
            every_second = x[:, ::2, ::2, ::2]
            theta = Conv(inner, 1, dtype, use_bias=False, name="W_x")(every_second)
        phi = Conv(inner, 1, dtype, name="W_g")(g)
        factor = theta.shape[1] // phi.shape[1]  # above 1 where g is coarser still
        phi = upsample(phi, factor, align_corners=settings.align_corners)

        passes = settings.initialisation == "pass_through"
        q = Conv(
            channels if settings.coefficients == "vector" else 1,
            1,
            dtype,
            kernel_init=nn.initializers.zeros if passes else kaiming_normal,
            bias_init=nn.initializers.constant(PASS_THROUGH_BIAS) if passes else None,
            name="psi",
        )(nn.relu(theta + phi))
        alpha = nn.sigmoid(q.astype(jnp.promote_types(dtype, jnp.float32)))
        alpha = alpha.astype(dtype)
        alpha = upsample(alpha, 2, align_corners=settings.align_corners)
        self.sow("intermediates", "alpha", alpha)
        gated = alpha * x

        if settings.output_transform:
            gated = Conv(channels, 1, dtype, defer_bias=True, name="W")(gated)
            gated = BatchNorm(name="norm")(gated, train)
        return gated


class MultiGate(nn.Module):
    """Sub-gates in parallel, their outputs combined by 1x1x1 convolution, norm, ReLU.

    "In each sub-AG, complementary information is extracted and fused to define the
    output of skip connection" (section 2). One gate without an output transform leaves
    nothing to fuse: the result is alpha x.
    """

    sub_gates: int
    settings: GateSettings

    @nn.compact
    def __call__(self, x: jax.Array, g: jax.Array, train: bool) -> jax.Array:
        gated = [
            AttentionGate(self.settings, name=f"sub_gate_{i}")(x, g, train)
            for i in range(1, self.sub_gates + 1)
        ]
        if self.sub_gates == 1 and not self.settings.output_transform:
            return gated[0]
        combine = PointwiseBlock(x.shape[-1], self.settings.dtype, name="combine")
        return combine(concatenate(gated, axis=-1), train)
