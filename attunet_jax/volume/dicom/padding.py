"""Finds the pixels of a slice that were never scanned, as its tags say.

Scanners fill the corners outside their round field of view with PixelPaddingValue, or
with the range from there to PixelPaddingRangeLimit.
"""

import numpy as np
import pydicom

from attunet_jax.intensity import AIR_HU


def padding_of(
    dataset: pydicom.Dataset, stored: np.ndarray, hu: np.ndarray
) -> np.ndarray | None:
    """Returns which pixels of a slice are padding, bool `[row, column]`.

    `stored` are its numbers as stored, `hu` the same rescaled. None without padding
    above air: what lies below shows it by its value. Pixels inside the picture that
    have the value by chance (some writers name 0, which is water) are none: padding
    reaches the edge.
    """
    first = _stored_number(dataset, "PixelPaddingValue")
    if first is None:
        return None
    limit = _stored_number(dataset, "PixelPaddingRangeLimit")
    low, high = sorted((first, first if limit is None else limit))
    padding = (stored >= low) & (stored <= high)
    if not (padding & (hu > AIR_HU)).any():
        return None
    # Imported late: it takes a good part of a program's start, and few scans need it.
    from scipy import ndimage

    regions = np.empty(padding.shape, np.int32)
    ndimage.label(padding, np.ones((3, 3)), output=regions)
    edge = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    padding &= np.isin(regions, edge)
    return padding if padding.any() else None


def _stored_number(dataset: pydicom.Dataset, name: str) -> int | None:
    """Returns the tag in the sign of the pixels; None where it is no whole number.

    Writers store it signed or unsigned, whatever the pixels are: 63536 is -2000.
    """
    try:
        number = int(dataset.get(name))
    except (TypeError, ValueError):
        return None
    bits = int(dataset.get("BitsAllocated") or 16)
    number %= 2**bits
    if dataset.get("PixelRepresentation") == 1 and number >= 2 ** (bits - 1):
        number -= 2**bits
    return number
