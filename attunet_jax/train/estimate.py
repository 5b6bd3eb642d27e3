"""Estimates the memory of a training on each device, without compiling anything.

The train step is traced for the part of the batch that one device has, and the arrays
are counted that are alive at once (`memory/alive.py`): so activations are those that
the network as it is keeps, by layer, type, `remat` and mesh. All of them grow with the
voxels of a batch, so that one count tells other crops too.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from attunet_jax.data.batch import batch_schema
from attunet_jax.data.labels import LabelMap
from attunet_jax.memory.alive import alive_at_peak
from attunet_jax.ops import dispatch
from attunet_jax.train.config_checks import Config
from attunet_jax.train.experiment import Training, make_training
from attunet_jax.train.state import TrainState

# The compiled figure is within this share of the estimate.
ACCURACY = 0.15
# XLA for CPUs fuses less: it keeps each activation minus its mean too, for example.
# Compiled / counted, by the form of the convolutions.
CPU_KEEPS = {dispatch.COMPILER: 1.45, dispatch.MATRIX: 1.4, dispatch.ONEDNN: 1.0}
# It keeps kernels turned around for the backward pass, and in another layout.
CPU_COPIES_OF_PARAMETERS = 2
CPU_KEEPS_FORWARD = 1.2  # compiled / counted of a forward pass, by any form
# More crops than these are not asked for: of a whole scan and more.
LARGEST_VOX = 2048**3


@dataclass(frozen=True)
class Estimate:
    """What one device needs, in bytes."""

    state: int  # parameters, statistics, optimizer
    batch: int  # as it is read
    parameter_like: int  # gradients, copies of kernels
    activations: int  # and what else grows with the crop
    crop_shape: tuple[int, ...]  # [D, H, W] of the whole case
    read_shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return self.state + self.batch + self.parameter_like + self.activations

    @property
    def work(self) -> int:
        """What the compiler calls temporaries."""
        return self.parameter_like + self.activations

    def bytes_with(self, crop_shape: Sequence[int], read_shape: Sequence[int]) -> int:
        """The same for another crop."""
        larger = math.prod(crop_shape) / math.prod(self.crop_shape)
        read_larger = math.prod(read_shape) / math.prod(self.read_shape)
        return round(
            (self.state + self.parameter_like)
            + self.batch * read_larger
            + self.activations * larger
        )

    def largest_crop(
        self, available: int, divisors: Sequence[int]
    ) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """The largest crop that fits whatever the estimate's error, and what is read.

        It has the proportions of this one, to the nearest multiple of each axis'
        divisor.
        None where not even the smallest fits.
        """
        found = None
        # All crops with these proportions: each axis at the nearest multiple.
        steps = {
            (n + 0.5) * d / size
            for size, d in zip(self.crop_shape, divisors, strict=True)
            for n in range(4096 // d + 1)
        }
        for scale in (0.0, *sorted(steps)):
            crop = tuple(
                max(math.floor(size * scale / d + 0.5 + 1e-9), 1) * d
                for size, d in zip(self.crop_shape, divisors, strict=True)
            )
            read = self._read_with(crop)
            if self.bytes_with(crop, read) * (1 + ACCURACY) > available:
                break
            if math.prod(crop) > LARGEST_VOX:
                break
            found = crop, read
        return found

    def _read_with(self, crop: Sequence[int]) -> tuple[int, ...]:
        """As much larger than the crop as it is now."""
        shapes = zip(crop, self.read_shape, self.crop_shape, strict=True)
        return tuple(math.ceil(c * r / now) for c, r, now in shapes)


def estimate(
    config: Config,
    labels: LabelMap,
    mesh: Any,
    *,
    outputs: tuple[str, ...] | None = None,
    platform: str | None = None,
    state: TrainState | None = None,
) -> Estimate:
    """Estimates what a device of `mesh` needs to train `config`.

    The config fits the mesh (`check_fits_mesh`). `platform` ("cuda") asks about devices
    of another kind than the mesh's. `state` are its shapes, where they are known.
    """
    local: Any = copy.deepcopy(config)
    rows, parts = (len(x) for x in (mesh.devices, mesh.devices[0]))
    local.data.batch_size //= rows
    for name in ("crop_shape", "read_shape"):
        depth, *plane = local.data[name]
        local.data[name] = (depth // parts, *plane)
    training, name = _training(local, labels, mesh, outputs, platform)
    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes: Any = state or jax.eval_shape(training.create_state, key)
    schema = batch_schema(local.data.batch_size, local.data.read_shape)
    batch = {name: jax.ShapeDtypeStruct(*spec) for name, spec in schema.items()}
    traced = jax.make_jaxpr(training.train_step)(shapes, batch, key)
    parameters = {tuple(x.shape) for x in jax.tree.leaves(shapes)}
    alive = alive_at_peak(traced, name, shapes=parameters)
    keeps, copies = 1.0, 0
    if name == "cpu":
        keeps = CPU_KEEPS[training.network.convolution]
        copies = CPU_COPIES_OF_PARAMETERS * _bytes(shapes.params)
    return Estimate(
        state=_bytes(shapes),
        batch=_bytes(batch),
        parameter_like=alive.of_shapes + copies,
        activations=round((alive.bytes - alive.of_shapes) * keeps),
        crop_shape=tuple(config.data.crop_shape),
        read_shape=tuple(config.data.read_shape),
    )


def whole_scan_vox(
    config: Config,
    labels: LabelMap,
    mesh: Any,
    available: int,
    *,
    outputs: tuple[str, ...] | None = None,
    platform: str | None = None,
    state: TrainState | None = None,
) -> int:
    """Estimates how large a scan may be that one device predicts whole, in voxels.

    At the network's spacing; it fits whatever the estimate's error. Arguments are those
    of `estimate`, and the bytes of a device.
    """
    local: Any = copy.deepcopy(config)
    training, name = _training(local, labels, mesh, outputs, platform)
    network = training.network
    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes: Any = state or jax.eval_shape(training.create_state, key)
    variables = shapes.variables
    shape = tuple(config.data.crop_shape)
    image = jax.ShapeDtypeStruct((1, *shape, 1), jnp.float32)

    def forward(variables: Any, image: jax.Array) -> jax.Array:
        logits: Any = network.apply(variables, image, train=False)
        return jax.nn.softmax(logits, axis=-1)

    parameters = {tuple(x.shape) for x in jax.tree.leaves(variables)}
    traced = jax.make_jaxpr(forward)(variables, image)
    alive = alive_at_peak(traced, name, donated=False, shapes=parameters)
    keeps = CPU_KEEPS_FORWARD if name == "cpu" else 1.0
    a_voxel = keeps * (alive.bytes - alive.of_shapes) / math.prod(shape)
    a_voxel += image.dtype.itemsize
    room = available / (1 + ACCURACY) - _bytes(variables) - alive.of_shapes
    return max(math.floor(room / a_voxel), 0)


def _training(
    config: Any,
    labels: LabelMap,
    mesh: Any,
    outputs: tuple[str, ...] | None,
    platform: str | None,
) -> tuple[Training, str]:
    """Returns the training as it runs on `platform`, and that as the compiler's."""
    own = mesh.devices.flat[0].platform
    if platform not in (None, own):
        config.model.convolution = dispatch.COMPILER
    name = platform or own
    return (
        make_training(config, labels, mesh, outputs=outputs),
        "cuda" if name == "gpu" else name,
    )


def _bytes(tree: Any) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))
