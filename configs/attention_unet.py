"""Attention U-Net of Table 1: 6,407,402 parameters, two sub-gates a skip.

    python -m launch.train --config=configs/attention_unet.py --data=DIR --workdir=RUN

The paper (CT-150, 120 training cases): pancreas Dice 0.840, 0.179 s a forward pass.
"""

from typing import Any

from configs import base


def get_config() -> Any:
    config = base.get_config()
    apply_to(config)
    return config


def apply_to(config: Any) -> None:
    """Names the Attention U-Net of `config`, which it leaves as it is."""
    config.name = "attention_unet"
