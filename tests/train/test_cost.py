"""Figures of a program small enough to count by hand."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from attunet_jax.distributed.mesh import make_mesh, replicated
from attunet_jax.train.aot import cost_of


def test_memory_work_and_messages_of_a_split_product_are_those_counted_by_hand():
    mesh = make_mesh(1, 8)
    split = NamedSharding(mesh, PartitionSpec("spatial"))
    a = jax.ShapeDtypeStruct((128, 64), jnp.float32, sharding=split)
    b = jax.ShapeDtypeStruct((128, 32), jnp.float32, sharding=split)

    def product(a, b):
        return a.T @ b  # contracts what is split: each device adds its 16 rows

    compiled = jax.jit(product, out_shardings=replicated(mesh)).lower(a, b).compile()
    cost = cost_of(compiled)
    assert cost.arguments == 16 * 64 * 4 + 16 * 32 * 4
    result = 64 * 32 * 4
    assert result <= cost.temporaries <= 4 * result
    assert cost.collectives == {"all-reduce": (1, result)}
    products = 2 * 64 * 32 * 16
    assert cost.flops is not None
    assert products <= cost.flops <= 1.2 * products
    assert cost.peak is None or cost.peak > cost.arguments
