"""Adam or SGD as optax transformations, with L2 and a stepwise decay of the rate."""

from collections.abc import Callable

import optax

from attunet_jax.errors import BadArguments

RULES: dict[str, Callable[[], optax.GradientTransformation]] = {
    "adam": optax.scale_by_adam,
    "sgd": lambda: optax.trace(decay=0.9, nesterov=True),
}


def make_optimizer(
    *,
    name: str,
    learning_rate: float,
    l2: float,
    decay_factor: float,
    decay_every_steps: int,
    grad_accum_steps: int,
) -> optax.GradientTransformation:
    """Returns the optimizer called `name`.

    `l2` times the parameter is added to every gradient before Adam (or SGD) sees it:
    PyTorch's `weight_decay`, not decoupled decay. `decay_every_steps` counts updates.
    With `grad_accum_steps` above 1 the mean gradient of so many batches makes one
    update. Raises `BadArguments` for an unknown name.
    """
    if name not in RULES:
        raise BadArguments(
            f"--config.optimizer.name={name}: must be one of {', '.join(RULES)}"
        )
    rate = optax.exponential_decay(
        learning_rate, decay_every_steps, decay_factor, staircase=True
    )
    if decay_factor == 1:  # then programs for any number of cases are the same
        rate = optax.constant_schedule(learning_rate)
    optimizer = optax.chain(
        optax.add_decayed_weights(l2), RULES[name](), optax.scale_by_learning_rate(rate)
    )
    if grad_accum_steps > 1:
        steps = optax.MultiSteps(optimizer, grad_accum_steps)
        return optax.GradientTransformation(steps.init, steps.update)  # pyright: ignore
    return optimizer
