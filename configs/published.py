"""What the authors' published code does, also where the paper says otherwise.

    python -m launch.train --config=configs/published.py --data=DIR --workdir=RUN

As `paper.py`, and the code's own ways besides: docs/paper_versus_code.md lists them.
Prepare the scans with --spacing_mm=2 --blur_mm=0.75.
"""

from typing import Any

from configs import paper


def get_config() -> Any:
    config = paper.get_config()
    config.name = "published"
    config.model.gating_channels = 256
    config.model.gate_initialisation = "kaiming"
    config.loss.smoothing_inside_factor = True
    config.optimizer.name = "sgd"
    config.predict.region = "centre_crop"
    return config
