"""U-Net of Table 2 with far more capacity: 10,403,190 parameters.

    python -m launch.train --config=configs/unet_huge.py --data=DIR --workdir=RUN

The paper (CT-150, 120 training cases): pancreas Dice 0.825, 0.222 s a forward pass.
"""

from typing import Any

from configs import base, unet


def get_config() -> Any:
    config = base.get_config()
    apply_to(config)
    return config


def apply_to(config: Any) -> None:
    """Turns the Attention U-Net of `config` into this network, at any widths."""
    unet.apply_to(config)
    config.name = "unet_huge"
    # The published code divides 64..1024 by 3 where it divides those of Table 1 by 4:
    # 21, 42, 85, 170, 341 from the paper's widths.
    config.model.widths = tuple(int(4 * w / 3) for w in config.model.widths)
