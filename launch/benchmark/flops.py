"""Counts a network's FLOP and bytes in closed form, from the fields of its config.

FLOP are those of convolutions, a multiplication and an addition each, zero padding
counted as work; the rest of the network is below 2 % of them. They count the network
as it is written down, also where an implementation needs fewer.

Bytes are the least that memory must carry if no tensor fits into a cache: each
convolution, pooling and upsampling writes its result once and reads each operand once.
Bias, normalisation, activation, concatenation and products with alpha are assumed to
be fused. Backward, a convolution reads operands and cotangent for the kernel's
gradient, and the cotangent again for the operands' gradients, which it writes; a
BatchNorm reads its input and cotangent once more for their sums. Parameters are
float32. Rematerialisation is not counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

FLOAT_BYTES = 4
ITEM_BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Operation:
    """One operation of the network on the whole batch."""

    name: str
    parameters: int = 0
    forward_flop: int = 0
    backward_flop: int = 0
    forward_bytes: int = 0
    backward_bytes: int = 0
    kernel: int = 0  # edge of a convolution's kernel: 1, 2 or 3
    grid: tuple[int, ...] = ()  # [D, H, W] of a convolution's output


@dataclass(frozen=True)
class Work:
    """FLOP and bytes of one call."""

    flop: int
    bytes: int


class _Tally:
    def __init__(self, batch: int, item: int) -> None:
        self.batch, self.item = batch, item
        self.operations: list[Operation] = []

    def conv(
        self,
        name: str,
        grid: tuple[int, ...],
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        bias: bool = True,
        norm: bool = False,
        also_read: int = 0,
        differentiable: bool = True,
    ) -> None:
        """Adds a convolution; `grid` is that of its output.

        `also_read` is the number of channels of further operands.
        """
        voxels = self.batch * prod(grid)
        stride = 2 if kernel == 2 else 1
        weights = kernel**3 * inputs * outputs
        parameters = weights + outputs * bias
        flop = 2 * voxels * weights
        read = (voxels * stride**3 * inputs + voxels * also_read) * self.item
        written = voxels * outputs * self.item
        self.operations.append(
            Operation(
                name,
                parameters=parameters,
                forward_flop=flop,
                backward_flop=flop * (1 + differentiable),
                forward_bytes=read + written + parameters * FLOAT_BYTES,
                backward_bytes=(read + written)
                + (written + read) * differentiable
                + 2 * parameters * FLOAT_BYTES,
                kernel=kernel,
                grid=tuple(grid),
            )
        )
        if norm:
            self.operations.append(
                Operation(
                    f"{name} norm",
                    parameters=2 * outputs,
                    backward_bytes=2 * written,
                )
            )

    def resize(self, name: str, channels: int, fine: tuple, coarse: tuple) -> None:
        """Adds a pooling or an upsampling: reads one grid, writes the other."""
        moved = self.batch * channels * (prod(fine) + prod(coarse)) * self.item
        self.operations.append(
            Operation(name, forward_bytes=moved, backward_bytes=moved)
        )


def network_operations(
    model: Mapping[str, Any], class_count: int, batch: int, shape: tuple[int, int, int]
) -> list[Operation]:
    """Returns every operation of the network that a config's `model` group describes.

    `shape` is that of a case, [D, H, W].
    """
    widths = tuple(model["widths"])
    scales = len(widths)
    tally = _Tally(batch, ITEM_BYTES[model["compute_dtype"]])
    grids = {s: tuple(n >> (s - 1) for n in shape) for s in range(1, scales + 1)}

    def block(name: str, scale: int, inputs: int, image: bool = False) -> None:
        width = widths[scale - 1]
        for number, channels in ((1, inputs), (2, width)):
            tally.conv(
                f"{name} conv_{number}",
                grids[scale],
                channels,
                width,
                3,
                norm=True,
                differentiable=not (image and number == 1),
            )

    for scale in range(1, scales + 1):
        inputs = 1 if scale == 1 else widths[scale - 2]
        name = f"encoder_{scale}" if scale < scales else "bottleneck"
        block(name, scale, inputs, image=scale == 1)
        if scale < scales:
            tally.resize(
                f"pool_{scale}", widths[scale - 1], grids[scale], grids[scale + 1]
            )
    signal = widths[-1]
    if model["sub_gates"] and model["gating_channels"]:
        signal = model["gating_channels"]
        tally.conv("gating_signal", grids[scales], widths[-1], signal, 1, norm=True)
    for scale in range(scales - 1, 0, -1):
        deepest = scale == scales - 1
        if model["sub_gates"] and scale > 1:
            from_bottleneck = deepest or model["gate_source"] == "bottleneck"
            gating = (signal, scales) if from_bottleneck else (widths[scale], scale + 1)
            _gate(tally, model, scale, widths[scale - 1], gating, grids)
        tally.resize(f"up_{scale}", widths[scale], grids[scale], grids[scale + 1])
        block(f"decoder_{scale}", scale, widths[scale - 1] + widths[scale])
    supervised = 1 if model["deep_supervision"] == "none" else scales - 1
    for scale in range(1, supervised + 1):
        name = f"supervision_{scale}"
        tally.conv(name, grids[scale], widths[scale - 1], class_count, 1)
        if scale > 1:
            tally.resize(f"{name} up", class_count, grids[1], grids[scale])
    if model["deep_supervision"] == "fused":
        tally.conv("fusion", grids[1], class_count * supervised, class_count, 1)
    return tally.operations


def _gate(
    tally: _Tally,
    model: Mapping[str, Any],
    scale: int,
    channels: int,
    gating: tuple[int, int],
    grids: Mapping[int, tuple[int, ...]],
) -> None:
    signal_channels, signal_scale = gating
    fine, coarse = grids[scale], grids[scale + 1]
    inner = max(channels // model["gate_reduction"], 1)
    vector = model["attention_coefficients"] == "vector"
    alphas = channels if vector else 1
    for number in range(1, model["sub_gates"] + 1):
        name = f"gate_{scale} sub_gate_{number}"
        tally.conv(
            f"{name} W_x", coarse, channels, inner, model["gate_kernel"], bias=False
        )
        tally.conv(f"{name} W_g", grids[signal_scale], signal_channels, inner, 1)
        if signal_scale != scale + 1:
            tally.resize(f"{name} up W_g", inner, coarse, grids[signal_scale])
        tally.conv(f"{name} psi", coarse, inner, alphas, 1, also_read=inner)
        tally.resize(f"{name} up alpha", alphas, fine, coarse)
        if model["gate_output_transform"]:
            tally.conv(
                f"{name} W", fine, channels, channels, 1, norm=True, also_read=alphas
            )
    if model["sub_gates"] > 1 or model["gate_output_transform"]:
        name = f"gate_{scale} combine"
        tally.conv(name, fine, model["sub_gates"] * channels, channels, 1, norm=True)


def forward_work(operations: list[Operation]) -> Work:
    """Returns the work of one forward pass for prediction."""
    return Work(
        sum(o.forward_flop for o in operations),
        sum(o.forward_bytes for o in operations),
    )


def train_work(
    operations: list[Operation], class_count: int, batch: int, shape: tuple
) -> Work:
    """Returns the work of a train step: augmentation, forward, loss, backward, Adam."""
    voxels = batch * prod(shape)
    parameters = sum(o.parameters for o in operations)
    augmentation = voxels * (
        2 + 1 + FLOAT_BYTES + FLOAT_BYTES
    )  # int16, uint8 -> float32, int32
    logits_and_labels = voxels * (class_count * FLOAT_BYTES + FLOAT_BYTES)
    loss = 2 * logits_and_labels + voxels * class_count * FLOAT_BYTES
    adam = 7 * parameters * FLOAT_BYTES  # reads p, g, m, v; writes p, m, v
    return Work(
        sum(o.forward_flop + o.backward_flop for o in operations),
        sum(o.forward_bytes + o.backward_bytes for o in operations)
        + (augmentation + loss + adam),
    )
