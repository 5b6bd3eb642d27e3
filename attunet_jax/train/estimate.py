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

from attunet_jax.data.batch import batch_schema
from attunet_jax.data.labels import LabelMap
from attunet_jax.memory.alive import alive_at_peak
from attunet_jax.ops import dispatch
from attunet_jax.train.config_checks import Config
from attunet_jax.train.experiment import make_training

# The compiled figure is within this share of the estimate.
ACCURACY = 0.15
# XLA for CPUs fuses less: it keeps each activation minus its mean too, for example.
# Compiled / counted, by the form of the convolutions.
CPU_KEEPS = {dispatch.COMPILER: 1.45, dispatch.MATRIX: 1.4, dispatch.ONEDNN: 1.0}
# It keeps kernels turned around for the backward pass, and in another layout.
CPU_COPIES_OF_PARAMETERS = 2
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

        It has the proportions of this one, as far as the divisors of each axis allow.
        None where not even the smallest fits.
        """
        found = None
        # All crops with these proportions: each axis grows by a divisor at a time.
        steps = {
            n * d / size
            for size, d in zip(self.crop_shape, divisors, strict=True)
            for n in range(1, 4096 // d + 1)
        }
        for scale in sorted(steps):
            crop = tuple(
                max(int(size * scale + 1e-6) // d, 1) * d
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
) -> Estimate:
    """Estimates what a device of `mesh` needs to train `config`.

    The config fits the mesh (`check_fits_mesh`). `platform` ("cuda") asks about devices
    of another kind than the mesh's.
    """
    own = mesh.devices.flat[0].platform
    local: Any = copy.deepcopy(config)
    rows, parts = (len(x) for x in (mesh.devices, mesh.devices[0]))
    local.data.batch_size //= rows
    for name in ("crop_shape", "read_shape"):
        depth, *plane = local.data[name]
        local.data[name] = (depth // parts, *plane)
    if platform not in (None, own):
        local.model.convolution = dispatch.COMPILER
    training = make_training(local, labels, mesh, outputs=outputs)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(training.create_state, key)
    schema = batch_schema(local.data.batch_size, local.data.read_shape)
    batch = {name: jax.ShapeDtypeStruct(*spec) for name, spec in schema.items()}
    traced = jax.make_jaxpr(training.train_step)(state, batch, key)
    name = {"gpu": "cuda"}.get(platform or own, platform or own)
    parameters = {tuple(x.shape) for x in jax.tree.leaves(state)}
    alive = alive_at_peak(traced, name, shapes=parameters)
    keeps, copies = 1.0, 0
    if name == "cpu":
        keeps = CPU_KEEPS[training.network.convolution]
        copies = CPU_COPIES_OF_PARAMETERS * _bytes(state.params)
    return Estimate(
        state=_bytes(state),
        batch=_bytes(batch),
        parameter_like=alive.of_shapes + copies,
        activations=round((alive.bytes - alive.of_shapes) * keeps),
        crop_shape=tuple(config.data.crop_shape),
        read_shape=tuple(config.data.read_shape),
    )


def _bytes(tree: Any) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))
