"""A plan, a mesh and shapes in, the compiled train step out."""

from typing import Any

import jax

from attunet_jax.sharding import batch_shardings, replicated
from attunet_jax.train.plan import Plan


def compile_step(
    plan: Plan, mesh: Any, state: Any, batch: Any, key: Any, options: Any = None
) -> Any:
    """`(state, batch, key) -> (state, metrics)`; the state given to it is used up.

    `state`, `batch` and `key` are arrays or their shapes on `mesh`; `options` are the
    compiler's.
    """
    everywhere = replicated(mesh)
    return (
        jax.jit(
            plan.train_step,
            in_shardings=(everywhere, batch_shardings(mesh, batch), everywhere),
            out_shardings=everywhere,
            donate_argnums=0,
        )
        .lower(state, batch, key)
        .compile(compiler_options=options)
    )
