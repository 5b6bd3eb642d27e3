"""One update by hand with a network of two numbers, and a real one that learns."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attunet_jax.train.optimizer import make_optimizer
from attunet_jax.train.state import TrainState, parameter_count
from attunet_jax.train.step import eval_step, train_step

QUICK: Any = {"xla_backend_optimization_level": 0}
IMAGE = np.arange(1.0, 9.0, dtype=np.float32).reshape(1, 2, 2, 2, 1)
LABEL = np.array([1, 0, 0, 2, 0, 0, 0, 1]).reshape(1, 2, 2, 2)
# sum(label image) = 1 + 2 * 4 + 8
SLOPE = 17.0


class Multiplies:
    """Logits are the image times `w`; it counts how often it was trained."""

    def __init__(self, auxiliary: bool) -> None:
        self.auxiliary = auxiliary

    def apply(self, variables, image, train, mutable=()):
        logits = image * variables["params"]["w"]
        if not train:
            assert not mutable
            return logits
        seen = variables["batch_stats"]["seen"] + 1
        updates: dict[str, Any] = {"batch_stats": {"seen": seen}}
        if self.auxiliary:
            updates["auxiliary"] = {"logits": (3 * logits, 5 * logits)}
        return logits, updates


def linear(label: Any, logits: Any, mask: Any) -> Any:
    assert mask is None
    return (label * logits[..., 0]).sum() + 10 * (label * logits[..., 1]).sum()


@pytest.fixture
def setting():
    optimizer = make_optimizer(
        name="sgd",
        learning_rate=0.01,
        l2=0.0,
        decay_factor=1.0,
        decay_every_steps=1,
        grad_accum_steps=1,
    )
    params = {"w": jnp.array([2.0, 1.0])}
    state = TrainState(
        step=jnp.int32(5),
        params=params,
        batch_stats={"seen": jnp.float32(0)},
        opt_state=optimizer.init(params),
    )
    return optimizer, state


def step_once(setting, auxiliary=False, crops=lambda batch, key: batch):
    optimizer, state = setting
    return train_step(
        state,
        {"image": jnp.asarray(IMAGE), "label": jnp.asarray(LABEL)},
        jax.random.key(3),
        network=Multiplies(auxiliary),
        optimizer=optimizer,
        crops=crops,
        loss=linear,
        auxiliary_weight=0.5,
    )


def test_a_step_by_hand(setting):
    state, metrics = step_once(setting)
    gradient = np.array([SLOPE, 10 * SLOPE])
    assert float(metrics["loss"]) == 2 * SLOPE + 10 * SLOPE
    assert float(metrics["gradient_norm"]) == pytest.approx(np.linalg.norm(gradient))
    # The first Nesterov update is 1 + 0.9 times the gradient.
    expected = [2, 1] - 0.01 * 1.9 * gradient
    np.testing.assert_allclose(state.params["w"], expected, rtol=1e-6)
    assert int(state.step) == 6
    assert float(state.batch_stats["seen"]) == 1


def test_each_auxiliary_logit_adds_its_loss_times_the_weight(setting):
    _, metrics = step_once(setting, auxiliary=True)
    assert float(metrics["loss"]) == 12 * SLOPE * (1 + 0.5 * 3 + 0.5 * 5)
    assert float(metrics["gradient_norm"]) == pytest.approx(
        np.hypot(1, 10) * SLOPE * (1 + 0.5 * 3 + 0.5 * 5)
    )


def test_the_augmentation_of_a_step_is_drawn_from_the_runs_key_and_the_step(setting):
    used = []

    def crops(batch, key):
        used.append(key)
        return batch

    optimizer, state = setting
    for step in (5, 6, 5):
        step_once((optimizer, state.replace(step=jnp.int32(step))), crops=crops)
    five, six, again = (jax.random.key_data(key).tolist() for key in used)
    expected = [jax.random.fold_in(jax.random.key(3), step) for step in (5, 6)]
    assert [five, six] == [jax.random.key_data(key).tolist() for key in expected]
    assert again == five != six


def test_voxels_are_counted_for_each_case_and_class():
    class Says:
        def apply(self, variables, image, train):
            assert not train
            return image

    # Outputs 0, 1, 2, of which 0 and 2 take part; output 1 is largest everywhere.
    said = [[3, 9, 1], [1, 9, 2], [1, 9, 5], [4, 9, 0]]
    image = np.array([said, said[::-1]], np.float32).reshape(2, 1, 1, 4, 3)
    label = np.array([[0, 2, 0, 1], [2, 2, 2, 2]]).reshape(2, 1, 1, 4)
    state: Any = TrainState(
        step=jnp.int32(0), params={}, batch_stats={}, opt_state=None
    )
    batch = {"image": jnp.asarray(image), "label": jnp.asarray(label)}

    def count(batch):
        words: Any = {"crops": lambda batch: batch, "classes": (0, 2)}
        return eval_step(state, batch, network=Says(), **words).tolist()

    # Predictions 0 2 2 0 and 0 2 2 0; columns are (both, truth, prediction).
    assert count(batch) == [[[1, 2, 2], [1, 1, 2]], [[0, 0, 2], [2, 4, 2]]]
    # Without the second voxel of each, of which nothing is known.
    mask = jnp.array([True, False, True, True] * 2).reshape(2, 1, 1, 4)
    expected = [[[1, 2, 2], [0, 0, 1]], [[0, 0, 2], [1, 3, 1]]]
    assert count(batch | {"mask": mask}) == expected


def test_a_step_passes_the_mask_to_every_loss(setting):
    optimizer, state = setting
    seen = []

    def loss(label, logits, mask):
        seen.append(mask)
        return jnp.where(mask, label * logits[..., 0], 0).sum()

    mask = jnp.ones(LABEL.shape, bool).at[0, 0, 0, 0].set(False)
    _, metrics = train_step(
        state,
        {"image": jnp.asarray(IMAGE), "label": jnp.asarray(LABEL), "mask": mask},
        jax.random.key(3),
        network=Multiplies(auxiliary=True),  # pyright: ignore[reportArgumentType]
        optimizer=optimizer,
        crops=lambda batch, key: batch,
        loss=loss,
        auxiliary_weight=0.5,
    )
    assert len(seen) == 3 and all(m is mask for m in seen)
    # Without the first voxel, label 1 of image 1.
    assert float(metrics["loss"]) == 2 * (SLOPE - 1) * (1 + 0.5 * 3 + 0.5 * 5)


def test_parameters_are_counted_in_numbers():
    assert parameter_count({"a": np.zeros((2, 3)), "b": {"c": np.zeros(4)}}) == 10


def test_a_state_is_data_only(tiny):
    _, _, _, begin = tiny()
    state = jax.eval_shape(begin, jax.random.key(0))
    leaves = jax.tree.leaves(state)
    assert len(leaves) > 200
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
    assert (state.step.shape, state.step.dtype) == ((), jnp.int32)
    # The structure says nothing of network or optimizer either: two builds agree.
    _, _, _, again = tiny()
    assert jax.tree.structure(state) == jax.tree.structure(
        jax.eval_shape(again, jax.random.key(0))
    )


@pytest.fixture(scope="module")
def real(tiny, host_batch, step_key):
    """(compiled step, the state it starts from, its batch)."""
    _, _, step, begin = tiny(sub_gates=1)
    key = jax.random.key(0)
    state = jax.jit(begin).lower(key).compile(compiler_options=QUICK)(key)
    batch = {name: jnp.asarray(rows) for name, rows in host_batch.items()}
    compiled = jax.jit(step).lower(state, batch, step_key)
    return compiled.compile(compiler_options=QUICK), state, batch


def test_the_same_state_batch_and_key_give_the_same_bits(real, step_key):
    step, state, batch = real
    one, two = (step(state, batch, step_key) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_another_key_or_step_gives_another_loss(real, step_key):
    step, state, batch = real
    losses = {
        float(step(s, batch, key)[1]["loss"])
        for s, key in (
            (state, step_key),
            (state, jax.random.key(12)),
            (state.replace(step=jnp.int32(1)), step_key),
        )
    }
    assert len(losses) == 3


def test_fifteen_steps_on_one_batch_lower_the_loss(real, step_key):
    step, state, batch = real
    losses = []
    for _ in range(15):
        state, metrics = step(state, batch, step_key)
        losses.append(float(metrics["loss"]))
    assert int(state.step) == 15
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.02
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))
