"""The network of Figure 1: image `[B, D, H, W, 1]` to logits `[B, D, H, W, K]`."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from attunet_jax.model.gates import GateSettings, MultiGate
from attunet_jax.model.layers import Conv, ConvBlock, PointwiseBlock
from attunet_jax.ops.conv import conv_1x1x1
from attunet_jax.ops.resize import max_pool_2x2x2, upsample, upsample_concat


class AttentionUNet3D(nn.Module):
    """3D U-Net whose skip connections pass attention gates.

    Scale 1 is the finest. All skips but the first are gated ("low-level feature-maps
    are not used in the gating function"), the deepest by the gating signal of the
    bottleneck, the others by the next coarser decoder features. Every spatial size
    must be divisible by `2 ** (len(widths) - 1)`.

    Sown: `intermediates/gate_<scale>/sub_gate_<n>/alpha` (attention coefficients at
    the skip's grid) and `auxiliary/logits` (only with auxiliary deep supervision).
    The defaults are those of `configs/base.py`, which explains each field.
    """

    num_classes: int
    widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    sub_gates: int = 2
    gating_channels: int = 128
    gate_source: str = "decoder"
    gate_kernel: int = 2
    gate_reduction: int = 1
    gate_output_transform: bool = True
    attention_coefficients: str = "scalar"
    gate_initialisation: str = "pass_through"
    deep_supervision: str = "fused"
    align_corners: bool = False
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    convolution: str = "auto"

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> jax.Array:
        scales = len(self.widths)
        _check_divisible(image.shape, 2 ** (scales - 1))

        # Encoder: two convolutions at each scale, then half the size.
        x = image.astype(self.dtype)
        skips = {}
        for scale in range(1, scales):
            skips[scale] = self._block(scale, f"encoder_{scale}")(x, train)
            x = max_pool_2x2x2(skips[scale])
        x = self._block(scales, "bottleneck")(x, train)

        # Decoder: gate the skip, upsample the coarser features to its grid and
        # concatenate both, two convolutions.
        signal = self._gating_signal(x, train)
        decoded = {}
        for scale in reversed(range(1, scales)):
            skip = skips.pop(scale)
            if self.sub_gates and scale > 1:
                deepest = scale == scales - 1
                g = signal if deepest or self.gate_source == "bottleneck" else x
                settings = self._gate_settings
                gate = MultiGate(self.sub_gates, settings, name=f"gate_{scale}")
                skip = gate(skip, g, train)
            x = upsample_concat(skip, x, align_corners=self.align_corners)
            x = decoded[scale] = self._block(scale, f"decoder_{scale}")(x, train)

        return self._supervise(decoded)

    def _block(self, scale: int, name: str) -> nn.Module:
        block = ConvBlock
        if self.remat:
            block = nn.remat(ConvBlock, static_argnums=(2,))  # `train`; `self` is 0
        return block(self.widths[scale - 1], self.dtype, self.convolution, name=name)

    def _gating_signal(self, bottleneck: jax.Array, train: bool) -> jax.Array:
        """g of the deepest gate, or of all with `gate_source="bottleneck"`.

        No decoder block reads it: the deepest one reads the bottleneck's features.
        """
        if not (self.sub_gates and self.gating_channels):
            return bottleneck
        block = PointwiseBlock(self.gating_channels, self.dtype, name="gating_signal")
        return block(bottleneck, train)

    @property
    def _gate_settings(self) -> GateSettings:
        return GateSettings(
            kernel=self.gate_kernel,
            reduction=self.gate_reduction,
            output_transform=self.gate_output_transform,
            coefficients=self.attention_coefficients,
            initialisation=self.gate_initialisation,
            align_corners=self.align_corners,
            dtype=self.dtype,
        )

    def _supervise(self, decoded: dict[int, jax.Array]) -> jax.Array:
        """Deep supervision: decoder features of all scales to logits at the finest."""
        fields = self.num_classes, 1, self.dtype

        def upsampled(y: jax.Array, scale: int) -> jax.Array:
            return upsample(y, 2 ** (scale - 1), align_corners=self.align_corners)

        if self.deep_supervision == "fused":
            fusion = Fusion(*fields, name="fusion")
            logits = []
            for scale, part in enumerate(fusion.parts(len(decoded)), start=1):
                of_scale = ScaleLogits(*fields, name=f"supervision_{scale}")
                logits.append(upsampled(of_scale(decoded[scale], part), scale))
            return fusion(*logits)

        def logits_of(scale: int) -> jax.Array:
            y = Conv(*fields, name=f"supervision_{scale}")(decoded[scale])
            return _widened(upsampled(y, scale))

        if self.deep_supervision == "auxiliary":
            for scale in sorted(decoded)[1:]:
                self.sow("auxiliary", "logits", logits_of(scale))
        return logits_of(1)


class UNet3D(AttentionUNet3D):
    """The same network without gates: the paper's baseline."""

    sub_gates: int = 0


# The published network upsamples the logits of each scale, concatenates them and mixes
# them by a 1x1x1 convolution ("fusion"). Both convolutions are linear for each voxel
# and upsampling keeps constants, so the fusion kernel is split into one part a scale,
# multiplied into that scale's kernel (`ScaleLogits`), and the upsampled results are
# added (`Fusion`): equal up to rounding.


class ScaleLogits(Conv):
    """1x1x1 convolution of one scale's features, then its part of the fusion kernel.

    x [B, D, H, W, C], part [1, 1, 1, features, O] -> [B, D, H, W, O] in float32.
    """

    def __call__(self, x: jax.Array, part: jax.Array) -> jax.Array:
        kernel, bias = self.kernel_and_bias(x.shape[-1])
        assert bias is not None
        y = conv_1x1x1(x, _exact_product(kernel, part).astype(x.dtype))
        return _widened(y) + _exact_product(bias, part[0, 0, 0])


class Fusion(Conv):
    """The rest of the fusion, after each scale's part of the kernel: sum and bias."""

    def parts(self, count: int) -> list[jax.Array]:
        """The kernel, [1, 1, 1, features, features] in float32 for each scale."""
        kernel, _ = self.kernel_and_bias(count * self.features)
        return jnp.split(kernel, count, axis=3)

    def __call__(self, *logits: jax.Array) -> jax.Array:
        _, bias = self.kernel_and_bias(len(logits) * self.features)
        assert bias is not None
        return functools.reduce(jnp.add, logits) + bias


# Products of kernels, a few numbers each: not rounded as TPUs round factors.
_exact_product = functools.partial(jnp.matmul, precision="highest")


def _widened(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _check_divisible(shape: tuple[int, ...], divisor: int) -> None:
    if len(shape) != 5 or any(size % divisor for size in shape[1:4]):
        raise ValueError(
            f"input must be [B, D, H, W, C] with D, H, W divisible by {divisor}, "
            f"not {shape}"
        )
