"""What the device does to a host batch: warp, flip, crop, normalise."""

from attunet_jax.augment.sample import augmented_crops, centre_crops

__all__ = ["augmented_crops", "centre_crops"]
