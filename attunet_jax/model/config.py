"""The fields of a config's `model` group in, the network they describe out."""

from collections.abc import Mapping
from typing import Any

from attunet_jax.errors import BadArguments
from attunet_jax.model.unet import UNet3D
from attunet_jax.ops.conv import FORMULATIONS, ONEDNN, choose_formulation
from attunet_jax.ops.cpu import conv_onednn

CHOICES = {
    "gate_source": ("decoder", "bottleneck"),
    "gate_kernel": (1, 2),
    "attention_coefficients": ("scalar", "vector"),
    "gate_initialisation": ("pass_through", "kaiming"),
    "deep_supervision": ("fused", "auxiliary", "none"),
    "compute_dtype": ("float32", "bfloat16"),
    "convolution": ("auto", *FORMULATIONS),
}


def build_network(
    fields: Mapping[str, Any], *, class_count: int, backend: str, device_count: int
) -> UNet3D:
    """A `UNet3D`; `convolution="auto"` is settled by backend and devices.

    Raises `BadArguments` naming the field and the values it may have.
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
    settled = dict(fields, widths=widths)
    if settled["convolution"] == "auto":
        settled["convolution"] = choose_formulation(
            backend, device_count, fields["compute_dtype"]
        )
    elif settled["convolution"] == ONEDNN and not (
        backend == "cpu" and conv_onednn.available(fields["compute_dtype"])
    ):
        raise BadArguments(
            "config.model.convolution='onednn' is not to be had here (this processor, "
            "jaxlib or compute_dtype); use 'auto'"
        )
    return UNet3D(class_count=class_count, **settled)


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
