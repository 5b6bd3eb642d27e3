"""A volume at another spacing, or smoothed: `Volume` in, `Volume` out."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from attunet_jax.errors import BadData
from attunet_jax.volume.interpolate import Order, interpolate
from attunet_jax.volume.volume import MOST_VOXELS, Volume


def resample(
    volume: Volume, spacing_mm: Sequence[float] | np.ndarray, *, order: Order
) -> Volume:
    """`volume` at exactly `spacing_mm` (D, H, W), its centre kept in the world.

    The new shape is max(1, round(shape * spacing / new spacing)); what the new grid
    reaches beyond the old one repeats the edge. "linear" for images (int16 stays
    int16, rounded), "nearest" for labels. Raises `BadData` if the result would be
    absurdly large.
    """
    old_shape = np.array(volume.voxels.shape)
    ratio = np.asarray(spacing_mm, float) / volume.spacing_mm
    new_shape = resampled_shape(volume, spacing_mm)
    first = (old_shape - 1) / 2 - (np.array(new_shape) - 1) / 2 * ratio
    index_map = np.diag([*ratio, 1.0])
    index_map[:3, 3] = first
    positions = [
        f + np.arange(n) * r for f, n, r in zip(first, new_shape, ratio, strict=True)
    ]
    return replace(
        volume,
        voxels=interpolate(volume.voxels, positions, order=order),
        affine=volume.affine @ index_map,
    )


def resampled_shape(
    volume: Volume, spacing_mm: Sequence[float] | np.ndarray
) -> list[int]:
    """The shape `resample` gives. Raises `BadData` if it would be absurdly large."""
    ratio = np.asarray(spacing_mm, float) / volume.spacing_mm
    # Three digits: an image and its label whose headers differ in the last bit must
    # not come out one slice apart.
    exact = np.round(np.array(volume.voxels.shape) / ratio, 3).tolist()
    new_shape = [max(1, round(n)) for n in exact]
    if np.prod(new_shape, dtype=float) > MOST_VOXELS:
        raise BadData(
            f"{volume.path}: at {_by(spacing_mm)} mm it would have {_by(new_shape)} "
            f"voxels; is its spacing of {_by(volume.spacing_mm)} mm right?"
        )
    return new_shape


def blur(volume: Volume, sigma_mm: float) -> Volume:
    """`volume` smoothed by a Gaussian of `sigma_mm` in the world, float32."""
    # Late: it takes a good part of a program's start, and few runs blur.
    from scipy import ndimage

    voxels = ndimage.gaussian_filter(
        volume.voxels,
        sigma_mm / volume.spacing_mm,
        output=np.float32,
        mode="nearest",
    )
    return replace(volume, voxels=voxels)


def _by(numbers: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
