"""A normalised image of any size in, class probabilities of the same size out.

Whole where it fits, as in the paper, else in overlapping windows that are weighed by
a Gaussian (the idea of nnU-Net's inference: the middle of a window is surest).
"""

import math
from collections.abc import Callable

import numpy as np

# [D, H, W] float32 of a size the network takes -> probabilities [K, D, H, W].
Forward = Callable[[np.ndarray], np.ndarray]


def whole(
    forward: Forward, image: np.ndarray, *, divisor: int, parts: int = 1
) -> np.ndarray:
    """One forward pass over `image [D, H, W]`, padded by its minimum and cut back.

    Sizes are padded to multiples of twice the divisor: every new size is a new
    compilation, and scans of nearly equal size should share one. The depth is one that
    also falls into `parts` of multiples of the divisor.
    """
    multiple = 2 * divisor
    multiples = (math.lcm(multiple, parts * divisor), multiple, multiple)
    shape = [-(-n // m) * m for n, m in zip(image.shape, multiples, strict=True)]
    padded, cut = _pad(image, shape)
    return forward(padded)[:, *cut]


def sliding(
    forward: Forward,
    image: np.ndarray,
    *,
    window_shape: tuple[int, int, int],
    overlap: float,
    sigma: float,
) -> np.ndarray:
    """Gaussian-weighted mean of windows that overlap by the share `overlap`.

    `sigma` is the Gaussian's deviation as a share of the window.
    """
    shape = [max(n, w) for n, w in zip(image.shape, window_shape, strict=True)]
    padded, cut = _pad(image, shape)
    weight = gaussian_weight(window_shape, sigma)
    total: np.ndarray | None = None
    weights = np.zeros(padded.shape, np.float32)
    for start in window_starts(padded.shape, window_shape, overlap):
        place = tuple(slice(s, s + w) for s, w in zip(start, window_shape, strict=True))
        part = forward(padded[place]) * weight
        if total is None:
            total = np.zeros((part.shape[0], *padded.shape), np.float32)
        total[:, *place] += part
        weights[place] += weight
    assert total is not None
    total /= weights
    return total[:, *cut]


def window_starts(
    shape: tuple[int, ...], window_shape: tuple[int, ...], overlap: float
) -> list[tuple[int, ...]]:
    """Evenly spread first voxels of windows that cover `shape` to the last voxel."""
    axes = []
    for size, window in zip(shape, window_shape, strict=True):
        stride = max(int(window * (1 - overlap)), 1)
        count = -(-(size - window) // stride) + 1
        axes.append(np.linspace(0, size - window, count).round().astype(int).tolist())
    return [(d, h, w) for d in axes[0] for h in axes[1] for w in axes[2]]


def gaussian_weight(window_shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """1 in the middle of a window, falling off; never 0, so that edges stay defined."""
    weight = np.ones((), np.float32)
    for size in window_shape:
        x = (np.arange(size) - (size - 1) / 2) / (sigma * size)
        weight = weight[..., None] * np.exp(-0.5 * x**2).astype(np.float32)
    return np.maximum(weight, 1e-3)


def _pad(
    image: np.ndarray, shape: list[int]
) -> tuple[np.ndarray, tuple[slice, slice, slice]]:
    """The image in the middle of `shape`, and the slices that cut it out again."""
    before = [(n - m) // 2 for n, m in zip(shape, image.shape, strict=True)]
    after = [n - m - b for n, m, b in zip(shape, image.shape, before, strict=True)]
    padded = np.pad(
        image, list(zip(before, after, strict=True)), constant_values=image.min()
    )
    d, h, w = (slice(b, b + m) for b, m in zip(before, image.shape, strict=True))
    return padded, (d, h, w)
