"""What the paper says, and the published code where the paper is silent.

    python -m launch.train --config=configs/paper.py --data=DIR --workdir=RUN

Every field that differs from `base` is one where the paper or its code is followed
against a choice of ours. Prepare the scans with --spacing_mm=2 --blur_mm=0.75.
"""

from typing import Any

from configs import base


def get_config() -> Any:
    config = base.get_config()
    config.name = "paper"
    config.model.align_corners = True  # PyTorch of the paper's time
    return config
