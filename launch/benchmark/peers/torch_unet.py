"""The published networks as PyTorch modules.

Submodules have the names of the published state dict, so that
`attunet_jax.model.torch_weights` can fill them. Only PyTorch is imported: the
environment of a peer need not have JAX.
"""

from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional as F  # pyright: ignore[reportMissingImports]


def upsample(x: Any, factor: int) -> Any:
    return F.interpolate(x, scale_factor=factor, mode="trilinear", align_corners=False)


def conv_norm_relu(inputs: int, outputs: int, kernel: int, *, relu: bool = True) -> Any:
    """Returns a convolution that keeps the size, BatchNorm and, if asked, ReLU."""
    layers = [
        nn.Conv3d(inputs, outputs, kernel, padding=kernel // 2),
        nn.BatchNorm3d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if relu else []))


class Block(nn.Module):
    """Two 3x3x3 convolutions, each with BatchNorm and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = conv_norm_relu(inputs, outputs, 3)
        self.conv2 = conv_norm_relu(outputs, outputs, 3)

    def forward(self, x: Any) -> Any:
        return self.conv2(self.conv1(x))


class Signal(nn.Module):
    """The gating signal, from the bottleneck."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = conv_norm_relu(inputs, outputs, 1)

    def forward(self, x: Any) -> Any:
        return self.conv1(x)


class SubGate(nn.Module):
    """alpha(x, g) x and a transform; alpha is computed on a grid of half the size."""

    def __init__(self, channels: int, gating: int) -> None:
        super().__init__()
        self.theta = nn.Conv3d(channels, channels, 2, stride=2, bias=False)
        self.phi = nn.Conv3d(gating, channels, 1)
        self.psi = nn.Conv3d(channels, 1, 1)
        self.W = conv_norm_relu(channels, channels, 1, relu=False)

    def forward(self, x: Any, g: Any) -> Any:
        q = self.psi(F.relu(self.theta(x) + self.phi(g)))
        return self.W(upsample(torch.sigmoid(q), 2) * x)


class Gate(nn.Module):
    """Parallel sub-gates and their combination."""

    def __init__(self, channels: int, gating: int, sub_gates: int) -> None:
        super().__init__()
        for number in range(1, sub_gates + 1):
            self.add_module(f"gate_block_{number}", SubGate(channels, gating))
        self.sub_gates = sub_gates
        self.combine_gates = conv_norm_relu(sub_gates * channels, channels, 1)

    def forward(self, x: Any, g: Any) -> Any:
        gated = [
            getattr(self, f"gate_block_{number}")(x, g)
            for number in range(1, self.sub_gates + 1)
        ]
        return self.combine_gates(torch.cat(gated, 1))


class Up(nn.Module):
    """Upsamples, joins the skip connection and convolves."""

    def __init__(self, skip: int, coarser: int) -> None:
        super().__init__()
        self.conv = Block(skip + coarser, skip)

    def forward(self, skip: Any, x: Any) -> Any:
        return self.conv(torch.cat([skip, upsample(x, 2)], 1))


class Supervision(nn.Module):
    """Deep supervision: logits of a coarser scale, upsampled to the finest."""

    def __init__(self, inputs: int, classes: int, factor: int) -> None:
        super().__init__()
        self.dsv = nn.Sequential(nn.Conv3d(inputs, classes, 1))
        self.factor = factor

    def forward(self, x: Any) -> Any:
        return upsample(self.dsv(x), self.factor)


class Published(nn.Module):
    """[B, 1, X, Y, Z] to logits [B, classes, X, Y, Z]; the U-Net if sub_gates is 0."""

    def __init__(
        self, widths: tuple[int, ...], classes: int, sub_gates: int, gating: int
    ) -> None:
        super().__init__()
        self.scales = scales = len(widths)
        self.gated = sub_gates > 0
        add = self.add_module
        for scale in range(1, scales):
            add(f"conv{scale}", Block((1, *widths)[scale - 1], widths[scale - 1]))
        self.center = Block(widths[-2], widths[-1])
        if self.gated:
            self.gating = Signal(widths[-1], gating)
        for scale in range(1, scales):
            skip, coarser = widths[scale - 1], widths[scale]
            if self.gated and scale > 1:
                signal = gating if scale == scales - 1 else coarser
                add(f"attentionblock{scale}", Gate(skip, signal, sub_gates))
            add(f"up_concat{scale}", Up(skip, coarser))
            if scale == 1:
                self.dsv1 = nn.Conv3d(skip, classes, 1)
            else:
                add(f"dsv{scale}", Supervision(skip, classes, 2 ** (scale - 1)))
        self.final = nn.Conv3d(classes * (scales - 1), classes, 1)

    def forward(self, x: Any) -> Any:
        part = self.get_submodule
        skips = {}
        for scale in range(1, self.scales):
            skips[scale] = part(f"conv{scale}")(x)
            x = F.max_pool3d(skips[scale], 2)
        x = self.center(x)
        signal = self.gating(x) if self.gated else x
        logits = []
        for scale in range(self.scales - 1, 0, -1):
            skip = skips.pop(scale)
            if self.gated and scale > 1:
                skip = part(f"attentionblock{scale}")(skip, signal)
            x = signal = part(f"up_concat{scale}")(skip, x)
            logits.insert(0, part(f"dsv{scale}")(x))
        return self.final(torch.cat(logits, 1))


def monai_attention_unet(widths: tuple[int, ...], classes: int) -> Any:
    """Returns MONAI's network of the same widths; its parameter count differs."""
    from monai.networks.nets import (  # pyright: ignore[reportMissingImports]
        AttentionUnet,
    )

    return AttentionUnet(
        spatial_dims=3,
        in_channels=1,
        out_channels=classes,
        channels=tuple(widths),
        strides=(2,) * (len(widths) - 1),
    )


def soft_dice_loss(logits: Any, label: Any) -> Any:
    """Returns the loss of `attunet_jax.train.loss` with the configs' defaults."""
    p = torch.softmax(logits.float(), 1)
    t = F.one_hot(label, logits.shape[1]).movedim(-1, 1).float()
    space = (2, 3, 4)
    overlap, total = (p * t).sum(space), p.sum(space) + t.sum(space)
    return 1 - ((2 * overlap + 0.01) / (total + 0.01)).mean()


def parameter_count(network: Any) -> int:
    return sum(p.numel() for p in network.parameters())
