"""A small network on small phantoms: minutes on two CPU cores (`make demo`).

    python -m launch.train --config=configs/demo.py --data=DIR --workdir=RUN

Shows that every stage works; its Dice scores say nothing about real scans.
"""

from typing import Any

from configs import base


def get_config() -> Any:
    config = base.get_config()
    config.name = "demo"
    config.classes = base.PAPER_CLASSES
    config.model.widths = (8, 16, 32, 64)
    config.model.gating_channels = 32
    config.data.crop_shape = (40, 48, 64)
    config.data.read_shape = (40, 56, 72)
    config.augment.zoom_range = (0.85, 1.15)
    config.augment.flip_probability = 0.0  # minutes do not suffice to learn mirrors
    config.optimizer.learning_rate = 2e-3
    config.train.steps = 300
    config.train.evaluate_every_steps = 100
    config.train.keep_steps = (10, 30, 100)  # for Figure 4
    return config
