"""Attention coefficients of a trained network for a scan: what each gate lets through.

A gate of scale s multiplies the skip connection of that scale, whose voxels are blocks
of 2^(s-1) image voxels a side (max pooling): coefficient i of an axis lies in the
middle of block i, whichever way the network resizes (`align_corners` places them on the
skip's grid, inside the network). They are computed as the predictor computes
probabilities: same normalisation and spacing, the scan whole or in the same windows,
blended with the same weights.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from attunet_jax.errors import BadArguments
from attunet_jax.model import AttentionUNet3D
from attunet_jax.ops import dispatch
from attunet_jax.ops.resize import upsample
from attunet_jax.volume import Grid, onto_grid

if TYPE_CHECKING:
    from attunet_jax.predict.predictor import Predictor

# What is taken of each sub-gate; the first alone unless features are asked for.
_KINDS = ("coefficients", "skip", "gated")


@dataclass(frozen=True)
class AttentionMap:
    """The coefficients of one sub-gate for one scan.

    `gate` is the scale of the skip connection that it gates, 2 or more (1 is the finest
    and has no gate); `sub_gate` counts from 1. `coefficients [D, H, W]` float32 are
    from 0 to 1; with a coefficient for each channel, the mean over the channels. They
    have the skip's resolution where the scan went through the network whole, and that
    of the network's input where windows or flips were averaged, since windows do not
    lie on one coarser grid. `affine` (4, 4) takes their index to world mm, RAS+.

    `skip` and `gated`, on the same grid, are the skip's features before and after they
    are multiplied by the coefficients, as the mean over channels; None unless asked.
    """

    gate: int
    sub_gate: int
    coefficients: np.ndarray
    affine: np.ndarray
    grid: Grid  # of the scan
    skip: np.ndarray | None = None
    gated: np.ndarray | None = None

    def on_scan(self) -> np.ndarray:
        """Resamples the coefficients linearly to the canonical view of the scan's grid.

        `[D, H, W]` float32; beyond the outermost coefficients the edge is repeated.
        """
        return onto_grid(self.coefficients, self.affine, self.grid, order="linear")


def sub_gates_of(network: AttentionUNet3D) -> list[tuple[int, int]]:
    """Returns (gate, sub-gate) of each, fine to coarse; none for a U-Net."""
    return [
        (gate, sub_gate)
        for gate in range(2, len(network.widths))
        for sub_gate in range(1, network.sub_gates + 1)
    ]


def attention_maps(
    predictor: "Predictor",
    image_hu: np.ndarray,
    affine: np.ndarray,
    grid: Grid,
    *,
    features: bool = False,
) -> list[AttentionMap]:
    """Computes the map of every sub-gate for an image of the network's spacing.

    Args:
      image_hu: [D, H, W] as for `Predictor.probabilities`.
      affine: takes an index of it to world mm, RAS+.
      grid: the scan's own, for `AttentionMap.on_scan`.
      features: also `skip` and `gated`.

    Raises:
      BadArguments: the network has no gates.
    """
    places = sub_gates_of(predictor.network)
    if not places:
        raise BadArguments(
            f"the network ({predictor.run['config'].get('name', 'of this run')}) has "
            "no attention gates; use a run of configs/attention_unet.py"
        )
    image = predictor.normalised(image_hu)
    kinds = _KINDS if features else _KINDS[:1]
    maps: list[dict[str, Any]] = []
    if predictor.averages(image):

        def blended(part: np.ndarray) -> np.ndarray:
            return np.asarray(predictor.gate_maps(part, features, at_image=True))

        values = iter(predictor.average(image, blended))
        for _ in places:
            maps.append({kind: next(values) for kind in kinds} | {"affine": affine})
    else:
        padded, cut = predictor.padded(image)
        found = iter(predictor.gate_maps(padded, features, at_image=False))
        for gate, _ in places:
            factor = 2 ** (gate - 1)
            needed, first = _around(cut, factor)
            here = {kind: np.asarray(next(found))[needed] for kind in kinds}
            index_map = np.diag([factor, factor, factor, 1.0])
            index_map[:3, 3] = first
            maps.append(here | {"affine": affine @ index_map})
    for one in maps:
        # Weighted means of numbers up to 1 are rounded to a little more.
        one["coefficients"] = np.clip(one["coefficients"], 0, 1)
    return [
        AttentionMap(gate, sub_gate, grid=grid, **one)
        for (gate, sub_gate), one in zip(places, maps, strict=True)
    ]


@functools.lru_cache(maxsize=4)
def compile_gate_maps(network: AttentionUNet3D) -> Callable[..., Any]:
    """Compiles (variables, image [D, H, W], features, at_image) -> a map for each kind
    of each sub-gate, in the order of `sub_gates_of`, float32.

    At the image: stacked `[maps, D, H, W]`, resized trilinearly from the middles of the
    blocks; else a list of arrays of each skip's own shape. Compiled once for equal
    networks: the checkpoints of a run share it.
    """
    places = sub_gates_of(network)
    skips = {f"encoder_{gate}" for gate, _ in places}

    def maps(
        variables: Mapping[str, Any], image: jax.Array, features: bool, at_image: bool
    ) -> jax.Array | list[jax.Array]:
        _, sown = network.apply(
            variables,
            image[None, ..., None],
            train=False,
            mutable=["intermediates"],
            capture_intermediates=lambda module, _: features and module.name in skips,
        )
        sown: Any = sown["intermediates"]
        found = []
        for gate, sub_gate in places:
            (alpha,) = sown[f"gate_{gate}"][f"sub_gate_{sub_gate}"]["alpha"]
            of_gate = [alpha]
            if features:
                (skip,) = sown[f"encoder_{gate}"]["__call__"]
                of_gate += [skip, alpha * skip]
            for array in of_gate:
                mean = array.astype(jnp.float32).mean(-1, keepdims=True)
                if at_image:
                    mean = upsample(mean, 2 ** (gate - 1), align_corners=False)
                found.append(mean[0, ..., 0])
        return jnp.stack(found) if at_image else found

    return jax.jit(
        maps,
        static_argnums=(2, 3),
        compiler_options=dispatch.compiler_options(network.convolution) or None,
    )


def _around(
    cut: tuple[slice, ...], factor: int
) -> tuple[tuple[slice, ...], list[float]]:
    """The coarse voxels that interpolation inside the image needs.

    `cut` is where the image lies in the padded one. Returns their slices, and the index
    in the image at which the first one has its middle.
    """
    needed, first = [], []
    for place in cut:
        middle = (factor - 1) / 2
        start = max(int((place.start - middle) // factor), 0)
        stop = int(-((middle - place.stop + 1) // factor)) + 1
        needed.append(slice(start, stop))
        first.append(start * factor + middle - place.start)
    return tuple(needed), first
