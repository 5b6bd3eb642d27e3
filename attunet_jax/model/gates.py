"""Additive grid attention: a skip connection and its gating signal in, gated skip out.

Equations 1 and 2 of the paper, for every voxel i of the coarser grid:

    q = psi^T relu(W_x^T x_i + W_g^T g_i + b_g) + b_psi,     alpha_i = sigmoid(q)

`alpha` is resized trilinearly to the grid of x and multiplies it: x_hat = alpha x.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from attunet_jax.model.layers import BatchNorm, Conv, PointwiseBlock, kaiming_normal
from attunet_jax.ops.cpu.bf16_bits import concatenate
from attunet_jax.ops.resize import upsample

# sigmoid(3) = 0.953: features pass, and the gate's gradient is still alive.
PASS_THROUGH_BIAS = 3.0


class AttentionGate(nn.Module):
    """One sub-gate.

    `x [B, D, H, W, C]` and `g [B, D/2, H/2, W/2, G]` (or coarser) to `[B, D, H, W, C]`.
    The coefficients, `[B, D, H, W, 1]` (or C with `vector`), are sown as
    `intermediates/alpha`.
    """

    dtype: Any
    kernel: int
    reduction: int
    output_transform: bool
    vector: bool
    pass_through: bool
    align_corners: bool

    @nn.compact
    def __call__(self, x: jax.Array, g: jax.Array, train: bool) -> jax.Array:
        channels = x.shape[-1]
        inner = max(channels // self.reduction, 1)
        if self.kernel == 2:
            theta = Conv(inner, 2, self.dtype, use_bias=False, name="W_x")(x)
        else:
            theta = Conv(inner, 1, self.dtype, use_bias=False, name="W_x")(
                x[:, ::2, ::2, ::2]
            )
        phi = Conv(inner, 1, self.dtype, name="W_g")(g)
        phi = upsample(
            phi, theta.shape[1] // phi.shape[1], align_corners=self.align_corners
        )
        zeros, bias = (
            nn.initializers.zeros,
            nn.initializers.constant(PASS_THROUGH_BIAS),
        )
        q = Conv(
            channels if self.vector else 1,
            1,
            self.dtype,
            kernel_init=zeros if self.pass_through else kaiming_normal,
            bias_init=bias if self.pass_through else None,
            name="psi",
        )(nn.relu(theta + phi))
        alpha = nn.sigmoid(q.astype(jnp.float32)).astype(self.dtype)
        alpha = upsample(alpha, 2, align_corners=self.align_corners)
        self.sow("intermediates", "alpha", alpha)
        gated = alpha * x
        if self.output_transform:
            gated, shift = Conv(channels, 1, self.dtype, name="W").without_bias(gated)
            gated = BatchNorm(name="norm")(gated, train, shift)
        return gated


class MultiGate(nn.Module):
    """Sub-gates in parallel, their outputs combined by 1x1x1 convolution, norm, ReLU.

    "In each sub-AG, complementary information is extracted and fused to define the
    output of skip connection" (section 2). One gate without an output transform leaves
    nothing to fuse: the result is alpha x, as in equation 1.
    """

    sub_gates: int
    gate: dict[str, Any]

    @nn.compact
    def __call__(self, x: jax.Array, g: jax.Array, train: bool) -> jax.Array:
        gated = [
            AttentionGate(**self.gate, name=f"sub_gate_{i}")(x, g, train)
            for i in range(1, self.sub_gates + 1)
        ]
        if self.sub_gates == 1 and not self.gate["output_transform"]:
            return gated[0]
        return PointwiseBlock(x.shape[-1], self.gate["dtype"], name="combine")(
            concatenate(gated, axis=-1), train
        )
