"""The whole network: an image `[B, D, H, W, 1]` in, logits `[B, D, H, W, K]` out.

Deep supervision: decoder features of every scale in, one map of logits out.

The published network upsamples each scale's logits, joins them and convolves them
1x1x1 ("fusion"). Both convolutions are linear for each voxel and upsampling keeps
constants, so here a scale's logits are fused on its own grid, within the product that
makes them, and nothing is joined. A train step in bfloat16 takes 0.94 of the time
(docs/benchmarks.md).
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from attunet_jax.model.gates import MultiGate
from attunet_jax.model.layers import Conv, ConvBlock, PointwiseBlock
from attunet_jax.ops.conv import conv_1x1x1
from attunet_jax.ops.recompute import Joined
from attunet_jax.ops.resize import max_pool_2x2x2, upsample


class UNet3D(nn.Module):
    """3D U-Net of Figure 1; with `sub_gates` above 0 the Attention U-Net.

    Scale 1 is the finest. All skips but the first are gated ("low-level feature-maps
    are not used in the gating function"), the deepest by the gating signal of the
    bottleneck, the others by the next coarser decoder features. Every spatial size
    must be divisible by `2 ** (len(widths) - 1)`.

    Sown: `intermediates/gate_<scale>/sub_gate_<n>/alpha` (attention coefficients at
    the skip's grid) and `auxiliary/logits` (only with auxiliary deep supervision).
    The fields are documented in `configs/base.py`.
    """

    class_count: int
    widths: tuple[int, ...]
    sub_gates: int
    gating_channels: int
    gate_source: str
    gate_kernel: int
    gate_reduction: int
    gate_output_transform: bool
    attention_coefficients: str
    gate_initialisation: str
    deep_supervision: str
    align_corners: bool
    compute_dtype: str
    rematerialise: bool
    convolution: str  # one of `convolution.FORMULATIONS`

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> jax.Array:
        scales = len(self.widths)
        _check_divisible(image.shape, 2 ** (scales - 1))
        dtype = jnp.dtype(self.compute_dtype)
        block_class = ConvBlock
        if self.rematerialise:
            block_class = nn.remat(ConvBlock, static_argnums=(2,))

        def block(scale: int, name: str, *arrays: jax.Array) -> jax.Array:
            return block_class(
                self.widths[scale - 1],
                dtype,
                self.convolution,
                Joined(self.align_corners) if len(arrays) > 1 else None,
                name=name,
            )(arrays, train)

        x = image.astype(dtype)
        skips = {}
        for scale in range(1, scales):
            skips[scale] = block(scale, f"encoder_{scale}", x)
            x = max_pool_2x2x2(skips[scale])
        x = block(scales, "bottleneck", x)

        signal = x
        if self.sub_gates and self.gating_channels:
            signal = PointwiseBlock(self.gating_channels, dtype, name="gating_signal")(
                x, train
            )
        decoded = {}
        for scale in range(scales - 1, 0, -1):
            skip = skips.pop(scale)
            if self.sub_gates and scale > 1:
                # The decoder goes on from x itself: the signal only gates.
                coarser = scale == scales - 1 or self.gate_source == "bottleneck"
                skip = MultiGate(
                    self.sub_gates, self._gate_fields(dtype), name=f"gate_{scale}"
                )(skip, signal if coarser else x, train)
            x = decoded[scale] = block(scale, f"decoder_{scale}", skip, x)
        return self._supervise(decoded, dtype)

    def _gate_fields(self, dtype: Any) -> dict[str, Any]:
        return dict(
            dtype=dtype,
            kernel=self.gate_kernel,
            reduction=self.gate_reduction,
            output_transform=self.gate_output_transform,
            vector=self.attention_coefficients == "vector",
            pass_through=self.gate_initialisation == "pass_through",
            align_corners=self.align_corners,
        )

    def _supervise(self, decoded: dict[int, jax.Array], dtype: Any) -> jax.Array:
        """Decoder features of all scales to logits at the finest, in float32."""
        fields = self.class_count, 1, dtype

        def upsampled(y: jax.Array, scale: int) -> jax.Array:
            return upsample(y, 2 ** (scale - 1), align_corners=self.align_corners)

        if self.deep_supervision == "fused":
            fusion = Fusion(*fields, name="fusion")
            each = []
            for scale, share in enumerate(fusion.shares(len(decoded)), start=1):
                of_scale = ScaleLogits(*fields, name=f"supervision_{scale}")
                each.append(upsampled(of_scale(decoded[scale], share), scale))
            return fusion(*each)

        def logits(scale: int) -> jax.Array:
            y = Conv(*fields, name=f"supervision_{scale}")(decoded[scale])
            return upsampled(y, scale).astype(jnp.float32)

        if self.deep_supervision == "auxiliary":
            for scale in sorted(decoded)[1:]:
                self.sow("auxiliary", "logits", logits(scale))
        return logits(1)


def _check_divisible(shape: tuple[int, ...], divisor: int) -> None:
    if len(shape) != 5 or any(size % divisor for size in shape[1:4]):
        raise ValueError(
            f"input must be [B, D, H, W, C] with D, H, W divisible by {divisor}, "
            f"not {shape}"
        )


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
