"""Builds the network that the `model` group of a config describes."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from attunet_jax.config_fields import as_typed, check_fields
from attunet_jax.errors import BadArguments
from attunet_jax.model.unet import AttentionUNet3D, UNet3D
from attunet_jax.ops import dispatch


def build_network(
    fields: Mapping[str, Any], *, num_classes: int, backend: str, device_count: int
) -> AttentionUNet3D:
    """Returns the network; `convolution="auto"` is settled by backend and devices.

    `fields` is the config's `model` group. Raises `BadArguments` naming the field and
    the values it may have.
    """
    check_fields(fields, "model")
    widths = tuple(fields["widths"])
    switches = dict(fields, widths=widths)
    dtype = switches.pop("compute_dtype")
    convolution = switches["convolution"]
    if convolution == dispatch.AUTO:
        convolution = dispatch.choose_convolution(backend, device_count, dtype)
    elif convolution == dispatch.ONEDNN and not (
        backend == "cpu" and dispatch.onednn_available(dtype)
    ):
        raise BadArguments(
            "--config.model.convolution=onednn: is not available here (this processor, "
            "jaxlib or compute_dtype): use auto"
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
            f"{field}={as_typed(tuple(shape))}: each size must be divisible by "
            f"{divisor}, for {len(widths)} scales"
        )
