"""What the authors' published code does, where that is not what the paper says.

    python -m launch.train --config=configs/published.py --data=DIR --workdir=RUN

Every field that differs from `base` is one where the code goes another way than we or
the paper; docs/paper_versus_code.md lists them. Prepare the scans with --spacing_mm=2
--blur_mm=0.75. `paper.py` has Adam and the paper's gates.
"""

from typing import Any

from configs import base


def get_config() -> Any:
    config = base.get_config()
    config.name = "published"
    config.model.gating_channels = 256
    config.model.gate_initialisation = "kaiming"
    config.model.align_corners = True  # PyTorch 0.3, of its time
    # Windows that hold whole scans: statistics and the warp's centre are the scan's.
    config.data.read_shape = (256, 256, 256)
    config.data.padding = "line_minimum"
    config.augment.normalise_over = "window"
    config.loss.smoothing_inside_factor = True
    config.loss.mean_over = "outputs"
    config.optimizer.name = "sgd"
    config.predict.largest_of = "outputs"
    config.predict.region = "centre_crop"
    return config
