"""The network: 3D U-Net with attention gates, as pure Flax Linen modules."""

from attunet_jax.model.config import build_network, check_divisible
from attunet_jax.model.unet import AttentionUNet3D, UNet3D

__all__ = ["AttentionUNet3D", "UNet3D", "build_network", "check_divisible"]
