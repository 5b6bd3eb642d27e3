"""Estimated memory beside the compiler's, on meshes, and the largest crop."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from attunet_jax.data.labels import LabelMap
from attunet_jax.distributed.mesh import make_mesh
from attunet_jax.train.aot import compile_ahead_of_time, cost_of
from attunet_jax.train.estimate import ACCURACY, Estimate, estimate, whole_scan_vox
from attunet_jax.train.experiment import make_training
from configs import base

LABELS = LabelMap.numbered(("spleen", "pancreas", "kidney"))


def config_of(crop_shape, **model):
    config = base.get_config()
    config.classes = ("background", "spleen", "pancreas", "kidney")
    config.data.crop_shape = config.data.read_shape = crop_shape
    config.model.update({"widths": (4, 8), "sub_gates": 0} | model)
    config.model.convolution = "compiler"
    return config


def one_device():
    return make_mesh(1, 1, jax.devices()[:1])


def ratio(config):
    mesh = one_device()
    compiled, _ = compile_ahead_of_time(config, mesh)
    cost, found = cost_of(compiled), estimate(config, LABELS, mesh)
    assert found.state + found.batch == pytest.approx(cost.arguments, rel=0.01)
    return (cost.arguments + cost.temporaries) / found.bytes


@pytest.mark.cluster
def test_the_estimate_is_within_its_accuracy_of_what_is_compiled():
    gated = {"widths": (4, 8, 16), "sub_gates": 2, "gating_channels": 8}
    for crop_shape, model in (
        ((16, 32, 48), {}),
        ((48, 64, 64), gated),
        ((32, 48, 48), {"widths": (16, 32, 64), "sub_gates": 1}),
    ):
        config = config_of(crop_shape, **model)
        assert ratio(config) == pytest.approx(1, abs=ACCURACY), (crop_shape, model)


@pytest.mark.cluster
def test_a_scan_of_the_size_that_is_told_fits_when_its_prediction_is_compiled():
    config, available = config_of((16, 32, 48)), 50_000_000
    vox = whole_scan_vox(config, LABELS, one_device(), available)
    edge = round(vox ** (1 / 3)) // 2 * 2
    network = make_training(config, LABELS, one_device()).network
    image = jax.ShapeDtypeStruct((1, edge, edge, edge, 1), jnp.float32)
    small = jnp.zeros((1, 2, 2, 2, 1))
    variables = jax.eval_shape(
        lambda: network.init(jax.random.key(0), small, train=False)
    )

    def predict(variables: Any, image: jax.Array) -> jax.Array:
        logits: Any = network.apply(variables, image, train=False)
        return jax.nn.softmax(logits, -1)

    forward = jax.jit(predict)
    memory = forward.lower(variables, image).compile().memory_analysis()
    needed = sum(
        getattr(memory, f"{part}_size_in_bytes")
        for part in ("temp", "argument", "output")
    )
    assert (1 - 2 * ACCURACY) * available < needed <= available


def test_devices_of_a_mesh_share_a_batch_and_a_depth():
    one = estimate(config_of((8, 16, 16)), LABELS, one_device())
    for data, spatial in ((2, 1), (2, 4)):
        config = config_of((8 * spatial, 16, 16))
        config.data.batch_size *= data
        mesh = make_mesh(data, spatial, jax.devices()[: data * spatial])
        found = estimate(config, LABELS, mesh)
        assert (found.batch, found.work) == (one.batch, one.work), (data, spatial)


def test_other_crops_and_half_the_bytes_follow_from_one_count():
    small, large = (
        estimate(config_of(shape), LABELS, one_device(), platform="cuda")
        for shape in ((16, 32, 32), (32, 64, 64))
    )
    told = small.bytes_with(large.crop_shape, large.read_shape)
    assert told == pytest.approx(large.bytes, rel=0.02)
    half = config_of((32, 64, 64), compute_dtype="bfloat16")
    found = estimate(half, LABELS, one_device(), platform="cuda")
    # Logits, loss and augmentation stay float32.
    assert 0.5 < found.activations / large.activations < 0.8
    again = config_of((32, 64, 64), remat=True)
    found = estimate(again, LABELS, one_device(), platform="cuda")
    assert found.activations < 0.8 * large.activations


def test_the_largest_crop_keeps_proportions_divisors_and_room():
    # 1 byte a voxel is read, 10 are activations; 1000 do not grow.
    here = Estimate(600, 6 * 8 * 8, 400, 60 * 8 * 8, (6, 8, 8), (6, 8, 8))
    available, divisors = 200_000, (3, 4, 4)
    largest = here.largest_crop(available, divisors)
    assert largest is not None
    crop, read = largest
    assert crop == read and not any(n % d for n, d in zip(crop, divisors, strict=True))
    room = available / (1 + ACCURACY)
    assert 1000 + 11 * math.prod(crop) <= room
    # By trying: the crops nearest to these proportions, at many sizes.
    nearest = {
        tuple(
            max(round(n * scale / 1000 / d), 1) * d
            for n, d in zip((6, 8, 8), divisors, strict=True)
        )
        for scale in range(1, 9000)
    }
    fitting = [s for s in nearest if 1000 + 11 * math.prod(s) <= room]
    assert math.prod(crop) == max(map(math.prod, fitting))
    assert here.largest_crop(1500, divisors) is None
    # What is read stays as much larger than the crop as it is.
    wider = Estimate(600, 6 * 10 * 10, 400, 60 * 8 * 8, (6, 8, 8), (6, 10, 10))
    found = wider.largest_crop(available, divisors)
    assert found is not None
    assert found[1] == (found[0][0], *(math.ceil(n * 10 / 8) for n in found[0][1:]))
