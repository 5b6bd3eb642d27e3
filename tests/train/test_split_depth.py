"""On a mesh that splits depth the compiled step sends halos and sums, no volume.

Read from the compiled program itself: what the real train step, augmentation included,
makes eight devices say to each other.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from attunet_jax.distributed.mesh import batch_shardings, make_mesh, replicated
from attunet_jax.errors import BadArguments
from attunet_jax.ops.dispatch import conv3x3x3
from attunet_jax.ops.resize import upsample
from attunet_jax.train.aot import collectives_of, compile_ahead_of_time, training_shapes
from attunet_jax.train.config_checks import check_fits_mesh
from configs import base

HALO = 1  # slices that a neighbour may be sent at once
QUICK: Any = {"xla_backend_optimization_level": 0}


def small_config(spatial: int, model: dict[str, Any] | None = None):
    """Planes so large that the smallest activation outweighs the largest parameter."""
    config = base.get_config()
    config.classes = base.PAPER_CLASSES
    config.model.widths = (4, 6, 8)
    config.model.gating_channels = 8
    config.model.update(model or {})
    config.data.batch_size = 8 // spatial
    config.data.crop_shape = (32, 80, 80)
    config.data.read_shape = (32, 88, 88)
    return config


def offences(compiled, largest_parameter: int) -> list[str]:
    """Every exchange that is neither a halo nor a sum of parameter size, in words."""
    found = []
    for each in collectives_of(compiled.as_text()):
        shapes = [shape for _, shape in each.arrays]
        if each.kind == "collective-permute":
            fine = all(len(s) in (4, 5) and s[1] <= HALO for s in shapes)
        else:
            fine = each.kind == "all-reduce" and all(
                math.prod(s) <= largest_parameter for s in shapes
            )
        if not fine:
            found.append(str(each))
    return found


def largest_of(params) -> int:
    return max(leaf.size for leaf in jax.tree.leaves(params))


def assert_only_halos_and_sums(compiled, params) -> None:
    largest = largest_of(params)
    assert largest < 32 // 4 * 20 * 20  # one channel at the coarsest scale
    kinds = {each.kind for each in collectives_of(compiled.as_text())}
    assert {"collective-permute", "all-reduce"} <= kinds
    found = offences(compiled, largest)
    assert not found, "\n".join(found)


# Both axes at once; eight parts are counted below in validation, which compiles sooner.
@pytest.mark.parametrize("spatial", [4, pytest.param(8, marks=pytest.mark.cluster)])
def test_train_step_sends_halos_and_sums_alone(spatial):
    config = small_config(spatial)
    before = config.to_json()
    compiled, state = compile_ahead_of_time(config, make_mesh(8 // spatial, spatial))
    assert config.to_json() == before
    assert_only_halos_and_sums(compiled, state.params)


@pytest.mark.cluster
@pytest.mark.parametrize(
    "changes",
    [
        {"remat": True},
        {"gate_kernel": 1, "gate_source": "bottleneck"},
        {"deep_supervision": "auxiliary", "attention_coefficients": "vector"},
        {"compute_dtype": "bfloat16"},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_train_step_of_other_networks_sends_halos_and_sums_alone(changes):
    compiled, state = compile_ahead_of_time(small_config(8, changes), make_mesh(1, 8))
    assert_only_halos_and_sums(compiled, state.params)


@pytest.mark.cluster
def test_statistics_of_the_warped_window_send_halos_and_sums_alone():
    config = small_config(4)
    config.augment.normalise_over = "window"
    compiled, state = compile_ahead_of_time(config, make_mesh(2, 4))
    assert_only_halos_and_sums(compiled, state.params)


def test_held_out_counts_send_halos_and_sums_alone():
    mesh = make_mesh(1, 8)
    config = small_config(8)
    config.data.read_shape = config.data.crop_shape
    training, state, batch = training_shapes(config, mesh)
    everywhere = replicated(mesh)
    counting = jax.jit(
        training.eval_step,
        in_shardings=(everywhere, batch_shardings(mesh, batch)),
        out_shardings=everywhere,
    )
    with jax.set_mesh(mesh):
        compiled = counting.lower(state, batch).compile(compiler_options=QUICK)
    assert_only_halos_and_sums(compiled, state.params)


def compiled_alone(operation, shape=(1, 32, 16, 16, 4)):
    """`operation` and its gradient on a volume split over eight devices."""
    mesh = make_mesh(1, 8)
    volume = jax.ShapeDtypeStruct(
        shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(None, "spatial"))
    )

    def both(x):
        return jax.value_and_grad(lambda y: jnp.square(operation(y)).sum())(x)

    with jax.set_mesh(mesh):
        return jax.jit(both).lower(volume).compile(compiler_options=QUICK)


@pytest.mark.parametrize(
    "operation, offence",
    [
        (lambda x: jnp.cumsum(x, 1), "all-gather of f32[1,32,16,16,4] in "),
        (lambda x: jnp.sort(x, 1), "all-to-all of "),
        (lambda x: jnp.roll(x, 3, 1), "collective-permute of f32[1,3,16,16,4] in "),
        (
            lambda x: jax.image.resize(x, (1, 64, 32, 32, 4), "linear"),
            "all-reduce of f32[64,1,16,16,4] in ",
        ),
    ],
    ids=["cumsum", "sort", "roll", "resize"],
)
def test_an_operation_that_moves_volumes_is_named_with_its_shape(operation, offence):
    found = offences(compiled_alone(operation), 1000)
    assert any(line.startswith(offence) for line in found), found


def test_a_convolution_for_one_cpu_would_exchange_volumes():
    kernel = jnp.ones((3, 3, 3, 4, 4))
    operation = partial(conv3x3x3, kernel=kernel, convolution="matrix")
    assert offences(compiled_alone(operation), kernel.size)
    operation = partial(conv3x3x3, kernel=kernel, convolution="compiler")
    assert offences(compiled_alone(operation), kernel.size) == []


@pytest.mark.parametrize("align_corners", [False, True])
def test_only_resizing_with_aligned_corners_sums_whole_volumes(align_corners):
    compiled = compiled_alone(partial(upsample, factor=2, align_corners=align_corners))
    assert bool(offences(compiled, 1000)) == align_corners


def test_a_depth_that_does_not_divide_is_refused_with_both_numbers():
    config = small_config(8)
    config.data.crop_shape = config.data.read_shape = (16, 80, 80)
    with pytest.raises(BadArguments) as refused:
        check_fits_mesh(config, make_mesh(1, 8))
    assert "--config.mesh.spatial=8" in str(refused.value)
    assert "(16) must be divisible by 32" in str(refused.value)


def test_a_window_deeper_than_the_crop_is_refused_where_depth_is_split():
    config = small_config(4)
    config.data.read_shape = (40, 88, 88)
    with pytest.raises(BadArguments, match=r"\(32\).* equal that of .*\(40\)"):
        check_fits_mesh(config, make_mesh(2, 4))
    check_fits_mesh(small_config(4), make_mesh(2, 4))
