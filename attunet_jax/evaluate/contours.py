"""The published code's distance between contours, slice by slice (utils/metrics.py).

The mean distance between the outer contours' pixels in each axial slice, averaged over
the slices in which both masks have the organ. It ignores slices that were missed
altogether, so it is too favourable.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from attunet_jax.evaluate.overlap import check_masks


def contour_distance_mm(
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Sequence[float] | np.ndarray,
    known: np.ndarray | None = None,
) -> float | None:
    """Returns the published code's distance: the mean over slices of the contours'.

    In each slice it is the mean of both one-way mean distances.

    Args:
      truth, prediction: bool [D, H, W], D the axial slices.
      spacing_mm: 3 lengths [D, H, W].
      known: as in `surface_distances`.

    Returns:
      None where no slice has the organ in both. A pixel that a contour passes twice
      (where the organ is one pixel thin) counts once, in the authors' code twice.

    Raises:
      ValueError: the masks are not boolean or differ in shape.
    """
    check_masks(truth, prediction)
    plane_mm = np.asarray(spacing_mm, float)[1:]
    both = truth.any((1, 2)) & prediction.any((1, 2))
    distances = []
    for d in np.flatnonzero(both):
        of_a, of_b = outer_contour(truth[d]), outer_contour(prediction[d])
        forth = _nearest_mm(of_a, of_b, plane_mm)
        back = _nearest_mm(of_b, of_a, plane_mm)
        if known is not None:
            beside = np.asarray(ndimage.binary_dilation(~known[d]), bool)
            forth, back = forth[~beside[of_a]], back[~beside[of_b]]
        if forth.size and back.size:
            distances.append((forth.mean() + back.mean()) / 2)
    return float(np.mean(distances)) if distances else None


def outer_contour(mask: np.ndarray) -> np.ndarray:
    """Returns the pixels on the outer border of a 2-D mask, holes filled: bool [H, W].

    Equals OpenCV's RETR_EXTERNAL contours without approximation: a pixel belongs if one
    of its four neighbours is outside. Pixels beyond the border are outside.
    """
    filled = np.asarray(ndimage.binary_fill_holes(mask), bool)
    return filled & ~np.asarray(ndimage.binary_erosion(filled), bool)


def _nearest_mm(
    from_pixels: np.ndarray, to_pixels: np.ndarray, spacing_mm: np.ndarray
) -> np.ndarray:
    """Distance of each True of `from_pixels` to the nearest of `to_pixels`: float64."""
    nearest_mm = ndimage.distance_transform_edt(~to_pixels, sampling=spacing_mm)
    return np.asarray(nearest_mm)[from_pixels]
