"""The update rule against PyTorch's formulas, written out by hand."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from attunet_jax.errors import BadArguments
from attunet_jax.train.optimizer import make_optimizer

SETTINGS: dict[str, Any] = dict(
    name="adam",
    learning_rate=0.1,
    l2=0.01,
    decay_factor=0.5,
    decay_every_steps=2,
    grad_accum_steps=1,
)
GRADIENTS = [np.array([0.5, -2.0]), np.array([1.0, 1.0]), np.array([-0.3, 0.2])]


def run(gradients, **changes):
    optimizer = make_optimizer(**(SETTINGS | changes))
    params: Any = jnp.array([1.0, -1.0])
    state = optimizer.init(params)
    path = []
    for gradient in gradients:
        change, state = optimizer.update(jnp.asarray(gradient), state, params)
        params = params + change
        path.append(np.asarray(params))
    return path


def test_adam_adds_l2_to_the_gradient_and_halves_its_rate_by_steps():
    w, m, v = np.array([1.0, -1.0]), np.zeros(2), np.zeros(2)
    for t, (g, got) in enumerate(zip(GRADIENTS, run(GRADIENTS), strict=True), start=1):
        g = g + 0.01 * w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        rate = 0.1 if t <= 2 else 0.05
        w = w - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(got, w, rtol=1e-5)


def test_sgd_is_nesterov_with_momentum_of_the_published_head():
    w, buffer = np.array([1.0, -1.0]), np.zeros(2)
    for t, (g, got) in enumerate(
        zip(GRADIENTS, run(GRADIENTS, name="sgd"), strict=True), start=1
    ):
        g = g + 0.01 * w
        buffer = 0.9 * buffer + g
        w = w - (0.1 if t <= 2 else 0.05) * (g + 0.9 * buffer)
        np.testing.assert_allclose(got, w, rtol=1e-5)


def test_averaging_two_batches_equals_one_step_on_their_mean():
    twice = run(GRADIENTS[:2], grad_accum_steps=2)
    once = run([(GRADIENTS[0] + GRADIENTS[1]) / 2])
    np.testing.assert_array_equal(twice[0], [1.0, -1.0])  # no update in between
    np.testing.assert_allclose(twice[1], once[0], rtol=1e-6)


def test_an_unknown_optimizer_is_named():
    with pytest.raises(BadArguments, match="--config.optimizer.name=lion"):
        make_optimizer(**{**SETTINGS, "name": "lion"})
