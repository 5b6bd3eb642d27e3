"""A tiny network and batch: the real train step in seconds."""

from functools import partial

import jax
import numpy as np
import pytest

from attunet_jax import augment
from attunet_jax.model import build_network
from attunet_jax.train.loss import soft_dice_loss
from attunet_jax.train.optimizer import make_optimizer
from attunet_jax.train.state import create_state
from attunet_jax.train.step import train_step
from configs import base

WIDTHS = (4, 6, 8)
TABLE = (0, 1, 2, 3)


@pytest.fixture(scope="session")
def tiny():
    """(network, optimizer, step, begin) with every gate and augmentation in use."""

    def make(crop_shape=(16, 8, 8), **changes):
        fields = base.get_config().model.to_dict() | {
            "widths": WIDTHS,
            "gating_channels": 8,
            "convolution": "compiler",
        }
        network = build_network(
            fields | changes, num_classes=4, backend="cpu", device_count=1
        )
        optimizer = make_optimizer(
            name="adam",
            learning_rate=1e-3,
            l2=1e-6,
            decay_factor=0.5,
            decay_every_steps=100,
            grad_accum_steps=1,
        )
        step = partial(
            train_step,
            network=network,
            optimizer=optimizer,
            crops=partial(
                augment.augmented_crops,
                crop_shape=crop_shape,
                rotation_degrees=15.0,
                shift_fraction=0.1,
                zoom_range=(0.7, 1.3),
                flip_probability=0.5,
                normalise_over="case",
                label_lookup=TABLE,
            ),
            loss=partial(
                soft_dice_loss,
                classes=TABLE,
                smoothing=0.01,
                smoothing_inside_factor=False,
                include_background=True,
                averaged_over=len(TABLE),
            ),
            auxiliary_weight=0.5,
        )
        return (
            network,
            optimizer,
            step,
            partial(create_state, network=network, optimizer=optimizer),
        )

    return make


def draw_batch(depth):
    rng = np.random.default_rng(7)
    image = rng.normal(0, 200, (8, depth, 12, 12))
    label = (image > 200).astype(np.uint8) + 2 * (image < -250).astype(np.uint8)
    return {
        "image_hu": image.astype(np.int16),
        "label": label,
        "mean_hu": image.mean((1, 2, 3)).astype(np.float32),
        "std_hu": image.std((1, 2, 3)).astype(np.float32),
        "scan_start": np.zeros((8, 3), np.int32),
        "scan_size": np.tile(np.array([depth, 12, 12], np.int32), (8, 1)),
        "case_index": np.arange(8, dtype=np.int32),
    }


@pytest.fixture(scope="session")
def host_batch():
    return draw_batch(16)


@pytest.fixture(scope="session")
def deep_host_batch():
    """Deep enough for a slice on each of eight devices at the coarsest scale."""
    return draw_batch(32)


@pytest.fixture(scope="session")
def step_key():
    return jax.random.key(11)
