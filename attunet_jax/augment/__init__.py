"""Warps, flips, crops and normalises a batch on the device."""

from attunet_jax.augment.sample import augmented_crops, centre_crops

__all__ = ["augmented_crops", "centre_crops"]
