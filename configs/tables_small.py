"""All tables in small, on phantoms: an hour on two CPU cores, to see every step work.

    python -m launch.tables --table=1 --config=tables_small --data=DIR --workdir=RUNS
    python -m launch.train --config=configs/tables_small.py --data=DIR --workdir=RUN

Data of --spacing_mm=5. The convolution is one whose compiled programs are kept: the
first training of a network warms the cache for all others (docs/evaluation.md has the
commands). Scores say nothing about real scans.
"""

from typing import Any

from configs import demo


def get_config() -> Any:
    config = demo.get_config()
    config.name = "tables_small"
    config.model.widths = (8, 16, 32)
    config.model.gating_channels = 16
    config.model.convolution = "matrix"
    config.data.crop_shape = (32, 40, 56)
    config.data.read_shape = (32, 48, 64)
    # Without a decay, which counts epochs, all splits have the same programs.
    config.optimizer.decay_factor = 1.0
    config.train.steps = 120
    config.train.evaluate_every_steps = 60
    return config
