"""U-Net of Table 2 with far more capacity: 10,403,190 parameters.

    python -m launch.train --config=configs/unet_huge.py --data=DIR --workdir=RUN

The paper (CT-150, 120 training cases): pancreas Dice 0.825, 0.222 s a forward pass.
"""

from typing import Any

from configs import unet


def get_config() -> Any:
    config = unet.get_config()
    config.name = "unet_huge"
    config.model.widths = (21, 42, 85, 170, 341)  # 64..1024 / 3, rounded down
    return config
