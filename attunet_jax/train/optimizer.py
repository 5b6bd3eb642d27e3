"""Plain numbers in, an optax optimizer out: Adam or SGD with L2 and stepwise decay."""

import optax

from attunet_jax.errors import BadArguments


def make_optimizer(
    *,
    name: str,
    learning_rate: float,
    l2: float,
    decay_factor: float,
    decay_every_steps: int,
    average_batches: int,
) -> optax.GradientTransformation:
    """`l2` times the parameter is added to every gradient before Adam (or SGD) sees it.

    That is PyTorch's `weight_decay`, not decoupled decay. `decay_every_steps` counts
    updates. With `average_batches` above 1 the mean gradient of so many batches makes
    one update.
    """
    rate = optax.exponential_decay(
        learning_rate, decay_every_steps, decay_factor, staircase=True
    )
    if name == "adam":
        rule = optax.scale_by_adam()
    elif name == "sgd":
        rule = optax.trace(decay=0.9, nesterov=True)
    else:
        raise BadArguments(f"config.optimizer.name={name!r} is neither adam nor sgd")
    optimizer = optax.chain(
        optax.add_decayed_weights(l2), rule, optax.scale_by_learning_rate(rate)
    )
    if average_batches > 1:
        steps = optax.MultiSteps(optimizer, average_batches)
        return optax.GradientTransformation(steps.init, steps.update)  # pyright: ignore
    return optimizer
