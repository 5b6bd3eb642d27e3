"""Plain U-Net of Table 1, the baseline: 5,888,004 parameters.

    python -m launch.train --config=configs/unet.py --data=DIR --workdir=RUN

The paper (CT-150, 120 training cases): pancreas Dice 0.814, 0.167 s a forward pass.
"""

from typing import Any

from configs import base


def get_config() -> Any:
    config = base.get_config()
    apply_to(config)
    return config


def apply_to(config: Any) -> None:
    """Turns the Attention U-Net of `config` into this network, at any widths."""
    config.name = "unet"
    config.model.sub_gates = 0
