"""Two masks of one organ and the spacing in, the published code's distance out.

The authors' evaluation (utils/metrics.py) calls this the surface distance: axial slice
by axial slice, the mean distance between the outer contours' pixels, averaged over the
slices in which both masks have the organ. Slices that were missed altogether do not
count, so it flatters; surface.py measures in 3-D.
"""

import numpy as np
from scipy import ndimage

from attunet_jax.evaluate.overlap import check_masks


def contour_distance_mm(
    truth: np.ndarray, prediction: np.ndarray, spacing_mm
) -> float | None:
    """Mean over slices of the mean of both one-way mean contour distances.

    Args:
      truth, prediction: bool [D, H, W], D the axial slices.
      spacing_mm: 3 lengths [D, H, W].

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
    for a, b in zip(truth[both], prediction[both], strict=True):
        contours = [outer_contour(mask) for mask in (a, b)]
        to_b, to_a = (
            np.asarray(ndimage.distance_transform_edt(~there, sampling=plane_mm))[here]
            for here, there in (contours, contours[::-1])
        )
        distances.append((to_b.mean() + to_a.mean()) / 2)
    return float(np.mean(distances)) if distances else None


def outer_contour(mask: np.ndarray) -> np.ndarray:
    """Pixels of a 2-D mask on its outer border, holes filled: bool [H, W].

    OpenCV's RETR_EXTERNAL contours without approximation: a pixel belongs if one of
    its four neighbours is outside.
    """
    filled = np.asarray(ndimage.binary_fill_holes(mask), bool)
    # Eroded by a cross; beyond the border is outside.
    return filled & ~np.asarray(ndimage.binary_erosion(filled), bool)
