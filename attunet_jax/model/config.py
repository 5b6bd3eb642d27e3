"""Builds the network that the `model` group of a config describes."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from attunet_jax.errors import BadArguments
from attunet_jax.model.unet import AttentionUNet3D, UNet3D
from attunet_jax.ops import dispatch

# Allowed values of the fields that have only a few.
CHOICES = {
    "gate_source": ("decoder", "bottleneck"),
    "gate_kernel": (1, 2),
    "attention_coefficients": ("scalar", "vector"),
    "gate_initialisation": ("pass_through", "kaiming"),
    "deep_supervision": ("fused", "auxiliary", "none"),
    "compute_dtype": ("float32", "bfloat16"),
    "convolution": (dispatch.AUTO, *dispatch.CONVOLUTIONS),
}


def build_network(
    fields: Mapping[str, Any], *, num_classes: int, backend: str, device_count: int
) -> AttentionUNet3D:
    """Returns the network; `convolution="auto"` is settled by backend and devices.

    `fields` is the config's `model` group. Raises `BadArguments` naming the field and
    the values it may have.
    """
    for field, choices in CHOICES.items():
        if fields[field] not in choices:
            allowed = ", ".join(map(str, choices))
            raise BadArguments(
                f"config.model.{field}={fields[field]!r} is none of: {allowed}"
            )
    widths = tuple(fields["widths"])
    if len(widths) < 2 or min(widths) < 1 or fields["sub_gates"] < 0:
        raise BadArguments(
            f"config.model.widths={widths} needs two or more positive numbers, and "
            f"config.model.sub_gates={fields['sub_gates']} 0 or more"
        )
    for field, least in (("gating_channels", 0), ("gate_reduction", 1)):
        if fields[field] < least:
            raise BadArguments(
                f"config.model.{field}={fields[field]} must be {least} or more"
            )
    switches = dict(fields, widths=widths)
    dtype = switches.pop("compute_dtype")
    convolution = switches["convolution"]
    if convolution == dispatch.AUTO:
        convolution = dispatch.choose_convolution(backend, device_count, dtype)
    elif convolution == dispatch.ONEDNN and not (
        backend == "cpu" and dispatch.onednn_available(dtype)
    ):
        raise BadArguments(
            "config.model.convolution='onednn' is not available here (this processor, "
            "jaxlib or compute_dtype); use 'auto'"
        )
    switches["convolution"] = convolution
    network = AttentionUNet3D if switches["sub_gates"] else UNet3D
    return network(num_classes=num_classes, dtype=jnp.dtype(dtype), **switches)


def check_divisible(
    field: str, shape: tuple[int, ...], widths: tuple[int, ...]
) -> None:
    """Raises `BadArguments` unless every size fits the network's halvings."""
    divisor = 2 ** (len(widths) - 1)
    if any(size % divisor or size < divisor for size in shape):
        raise BadArguments(
            f"{field}={tuple(shape)}: each size must be divisible by {divisor}, for "
            f"{len(widths)} scales"
        )
