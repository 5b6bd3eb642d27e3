"""A scan and label map of one shape in; which axes of the labels seem mirrored, out.

Headers may agree and voxels not: a label map saved by a program that flips an axis.
"""

from dataclasses import replace

import numpy as np

from attunet_jax.errors import BadData
from attunet_jax.volume import Volume
from data_prep.flips import best_flip

_STEP_MM = 3.0  # enough to tell tissue from fat; a flip is off by far more


def mirrored_axes(image: Volume, organs: np.ndarray) -> tuple[str, ...] | None:
    """Of "D", "H", "W" those to flip for the organs to lie on soft tissue best.

    `organs [D, H, W]` bool, voxel by voxel on `image`. None where it cannot be
    told: bodies are nearly symmetric, and not every organ is soft tissue.
    """
    steps = np.maximum(np.rint(_STEP_MM / image.spacing_mm), 1).astype(int)
    thin = tuple(slice(None, None, step) for step in steps)
    affine = image.affine @ np.diag([*steps, 1])
    try:
        axes = best_flip(
            replace(image, voxels=image.voxels[thin], affine=affine),
            organs[thin],
            image.path,
        )
    except BadData:
        return None
    return tuple("DHW"[axis] for axis in axes)
