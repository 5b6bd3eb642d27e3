"""Applies a network of fixed input sizes to a normalised image of any size.

An image that fits is processed whole, as in the paper, else in overlapping windows
weighted by a Gaussian (as in nnU-Net: predictions are best in the middle of a window).
"""

import math
from collections.abc import Callable

import numpy as np

# [D, H, W] float32 of a size that the network accepts -> probabilities [K, D, H, W].
Forward = Callable[[np.ndarray], np.ndarray]


def whole(
    forward: Forward, image: np.ndarray, *, divisor: int, shards: int = 1
) -> np.ndarray:
    """Applies one forward pass to `image [D, H, W]`, padded by its minimum.

    Sizes are padded to multiples of twice the divisor, so that scans of nearly equal
    size share one compilation. The padded depth also divides into `shards` multiples of
    the divisor.
    """
    padded, cut = padded_whole(image, divisor=divisor, shards=shards)
    return forward(padded)[:, *cut]


def padded_whole(
    image: np.ndarray, *, divisor: int, shards: int = 1
) -> tuple[np.ndarray, tuple[slice, slice, slice]]:
    """Returns the image padded as `whole` does, and where it lies in that."""
    multiple = 2 * divisor
    multiples = (math.lcm(multiple, shards * divisor), multiple, multiple)
    shape = [-(-n // m) * m for n, m in zip(image.shape, multiples, strict=True)]
    return _pad(image, shape)


def sliding(
    forward: Forward,
    image: np.ndarray,
    *,
    window_shape: tuple[int, int, int],
    overlap: float,
    sigma: float,
) -> np.ndarray:
    """Returns the Gaussian-weighted mean over windows.

    `overlap` is the fraction by which windows overlap, `sigma` the Gaussian's deviation
    as a fraction of the window.
    """
    shape = [max(n, w) for n, w in zip(image.shape, window_shape, strict=True)]
    padded, cut = _pad(image, shape)
    weight = gaussian_weight(window_shape, sigma)
    total: np.ndarray | None = None
    weights = np.zeros(padded.shape, np.float32)
    for start in window_starts(padded.shape, window_shape, overlap):
        place = tuple(slice(s, s + w) for s, w in zip(start, window_shape, strict=True))
        weighted = forward(padded[place]) * weight
        if total is None:
            total = np.zeros((len(weighted), *padded.shape), np.float32)
        total[:, *place] += weighted
        weights[place] += weight
    assert total is not None
    total /= weights
    return total[:, *cut]


def window_starts(
    shape: tuple[int, ...], window_shape: tuple[int, ...], overlap: float
) -> list[tuple[int, ...]]:
    """Returns evenly spread first voxels of windows that cover all of `shape`."""
    axes = []
    for size, window in zip(shape, window_shape, strict=True):
        stride = max(int(window * (1 - overlap)), 1)
        count = -(-(size - window) // stride) + 1
        axes.append(np.linspace(0, size - window, count).round().astype(int).tolist())
    return [(d, h, w) for d in axes[0] for h in axes[1] for w in axes[2]]


def gaussian_weight(window_shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """Returns weights of 1 in the middle of a window that never fall to 0."""
    weight = np.ones((), np.float32)
    for size in window_shape:
        x = (np.arange(size) - (size - 1) / 2) / (sigma * size)
        weight = weight[..., None] * np.exp(-0.5 * x**2).astype(np.float32)
    return np.maximum(weight, 1e-3)


def _pad(
    image: np.ndarray, shape: list[int]
) -> tuple[np.ndarray, tuple[slice, slice, slice]]:
    """Returns the image padded on all sides to `shape`, and where it lies in that."""
    before = [(n - m) // 2 for n, m in zip(shape, image.shape, strict=True)]
    after = [n - m - b for n, m, b in zip(shape, image.shape, before, strict=True)]
    padded = np.pad(
        image, list(zip(before, after, strict=True)), constant_values=image.min()
    )
    d, h, w = (slice(b, b + m) for b, m in zip(before, image.shape, strict=True))
    return padded, (d, h, w)
