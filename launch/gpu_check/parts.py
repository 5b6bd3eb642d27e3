"""Parts of the programs of this folder: a network with its train step, a report.

`Setting` is a network with its compiled step and a synthetic batch, so no data set is
needed; `Report` is a file of results that survives a time-out; the rest compares
arrays. DRY=1 in the environment selects tiny sizes on a CPU.
"""

import hashlib
import importlib
import json
import os
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from attunet_jax.data.batch import HostBatch, whole_scans
from attunet_jax.distributed.mesh import make_mesh, replicated
from attunet_jax.train.aot import training_shapes
from attunet_jax.train.experiment import compile_step
from attunet_jax.train.state import copy_of, init_state
from configs.base import PAPER_CLASSES

# Tiny sizes on a CPU, to test the check itself.
DRY = os.environ.get("DRY") == "1"


class Setting:
    """Everything of a train step on one device, with parameters drawn on a CPU.

    `drawn` is the state of another setting of the same network, so that different
    devices and compute types start from the same state.
    """

    def __init__(
        self,
        network: str,
        dtype: str,
        device: Any,
        *,
        crop: tuple[int, int, int],
        batch: int,
        widths: tuple[int, ...] | None = None,
        fields: dict[str, Any] | None = None,
        drawn: Any = None,
    ) -> None:
        config = importlib.import_module(f"configs.{network}").get_config()
        config.classes = PAPER_CLASSES
        config.model.compute_dtype = dtype
        # What "auto" picks on a GPU; so a CPU compares the same formulas.
        config.model.convolution = "channels_last"
        if widths:
            config.model.widths = widths
        for name, value in (fields or {}).items():
            config.model[name] = value
        config.data.crop_shape = crop
        depth, height, width = crop
        config.data.read_shape = (depth, height * 13 // 10, width * 13 // 10)
        config.data.batch_size = batch
        config.mesh.data = config.mesh.spatial = 1
        # As many steps an epoch as in launch.benchmark's synthetic data, which then
        # finds this program in the compilation cache.
        config.optimizer.decay_every_epochs *= 2 if DRY else 4
        self.config, self.device = config, device
        self.mesh = make_mesh(1, 1, [device])
        self.training, _, batch_shapes = training_shapes(config, self.mesh)
        self.everywhere = replicated(self.mesh)
        self.drawn = self._draw() if drawn is None else drawn
        self.state = jax.device_put(self.drawn, self.everywhere)
        self.batch = {
            k: jax.device_put(v, batch_shapes[k].sharding)
            for k, v in _drawn(batch_shapes["image_hu"].shape).items()
        }
        self.key = jax.device_put(jax.random.key(11), self.everywhere)

    def _draw(self) -> Any:
        cpu = replicated(make_mesh(1, 1, [jax.devices("cpu")[0]]))
        return init_state(
            self.training.create_state,
            jax.device_put(jax.random.key(0), cpu),
            cpu,
        )

    def step(self) -> Any:
        """Returns the compiled train step that `launch.train` runs."""
        with jax.set_mesh(self.mesh):
            return compile_step(
                self.training, self.mesh, self.state, self.batch, self.key
            )

    def fresh_state(self) -> Any:
        """Returns a state before the first step."""
        with jax.set_mesh(self.mesh):
            return copy_of(self.state)  # the step donates its state

    def forward(self, batch: int | None = None) -> tuple[Any, Any, Any]:
        """Returns (compiled, variables, image) of a forward pass."""
        count = batch or self.config.data.batch_size
        shape = (count, *self.config.data.crop_shape, 1)
        image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
        image = jax.device_put(image, self.everywhere)
        variables = {
            "params": self.state.params,
            "batch_stats": self.state.batch_stats,
        }
        network = self.training.network
        with jax.set_mesh(self.mesh):
            apply = jax.jit(lambda v, x: network.apply(v, x, train=False))
            return apply.lower(variables, image).compile(), variables, image


def _drawn(shape: tuple[int, ...]) -> HostBatch:
    """Returns smooth noise with organs where it is high, which can be learned."""
    rng = np.random.default_rng(7)
    count, *space = shape
    coarse = rng.normal(0, 200, (count, *(max(n // 8, 1) for n in space)))
    image = coarse
    for axis, size in enumerate(space, start=1):
        image = np.repeat(image, -(-size // image.shape[axis]), axis)
        image = np.take(image, range(size), axis)
    image = image.astype(np.float32)
    image += 30 * rng.standard_normal(image.shape, np.float32)
    label = (image > 150).astype(np.uint8) + 2 * (image < -200).astype(np.uint8)
    return whole_scans(image.astype(np.int16), label)


class Report:
    """A JSON file, rewritten with every result: a time-out loses only the rest."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.content: dict[str, Any] = {}
        self.start = time.perf_counter()

    def add(self, **results: Any) -> None:
        self.content |= results
        self.content["at_s"] = round(time.perf_counter() - self.start, 1)
        self.path.write_text(json.dumps(self.content, indent=1) + "\n")
        for name, value in results.items():
            if not isinstance(value, dict | list):
                value = f"{value:.4g}" if isinstance(value, float) else value
                print(f"  {name:<44} {value}", flush=True)
            else:
                print(f"  {name:<44} {json.dumps(value)[:300]}", flush=True)


def relative(found: Any, expected: Any) -> float:
    """Returns the norm of the difference over the norm of what is expected."""
    a, b = (np.asarray(x, np.float64) for x in (found, expected))
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30))


def relative_of_trees(found: Any, expected: Any) -> float:
    """Returns the same over all arrays of two trees together."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    over = under = 0.0
    for a, b in pairs:
        a, b = (np.asarray(x, np.float64) for x in (a, b))
        over += float(np.sum((a - b) ** 2))
        under += float(np.sum(b**2))
    return (over / max(under, 1e-30)) ** 0.5


def same_bits(a: Any, b: Any) -> bool:
    """Returns whether two trees of arrays are equal bit for bit."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


def digest(tree: Any) -> str:
    """Returns a digest of all bits, to compare two processes."""
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        total.update(np.asarray(leaf).tobytes())
    return total.hexdigest()[:16]


def the_device() -> Any:
    """Returns the first GPU, or the CPU of a dry run."""
    return jax.devices()[0]


def block(x: Any) -> Any:
    """Returns `x` when the device has computed it."""
    return jax.block_until_ready(x)
