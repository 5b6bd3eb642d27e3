"""Attention U-Net as the published code builds it: 6,473,322 parameters.

    python -m launch.train --config=configs/attention_unet_published.py \
        --data=DIR --workdir=RUN

Gating signal of 256 channels; everything else as in `attention_unet`.
"""

from typing import Any

from configs import base


def get_config() -> Any:
    config = base.get_config()
    config.name = "attention_unet_published"
    config.model.gating_channels = 256
    config.model.gate_initialisation = "kaiming"
    return config
