"""A run's folder in; a function from scans to label maps on their own grids out."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attunet_jax.checkpoint import open_existing, with_sharding
from attunet_jax.errors import BadArguments
from attunet_jax.model import build_network, check_divisible
from attunet_jax.predict import windows
from attunet_jax.train.optimizer import make_optimizer
from attunet_jax.train.state import TrainState, initial_state
from attunet_jax.volume import Volume, blur, labels_onto_grid, resample


class Predictor:
    """A trained network with everything that its run fixed: spacing, classes, sizes."""

    def __init__(self, network: Any, state: TrainState, run: Mapping[str, Any]) -> None:
        self.run = run
        self.step = int(state.step)
        self.classes: tuple[str, ...] = tuple(run["config"]["classes"])
        self.spacing_mm: tuple[float, ...] = tuple(run["spacing_mm"])
        self.network = network
        self.variables = {"params": state.params, "batch_stats": state.batch_stats}
        self._divisor = 2 ** (len(network.widths) - 1)
        self._settings = run["config"]["predict"]

        def forward(variables: Any, image: jax.Array) -> jax.Array:
            logits = network.apply(variables, image[None, ..., None], train=False)
            return jnp.moveaxis(jax.nn.softmax(logits[0], axis=-1), -1, 0)

        self._forward = jax.jit(forward)

    def label_map(self, volume: Volume) -> np.ndarray:
        """`[D, H, W]` uint8 on the canonical view of the scan's own grid.

        Values are positions in `classes`; every class is resampled linearly and the
        largest wins, in slabs, so that no class is held at full resolution whole.
        """
        seen = volume
        if self.run["blur_mm"]:
            seen = blur(seen, self.run["blur_mm"])
        seen = resample(seen, self.spacing_mm, order="linear")
        return labels_onto_grid(
            self.probabilities(seen.voxels), seen.affine, volume.grid
        )

    def probabilities(self, image_hu: np.ndarray) -> np.ndarray:
        """`image_hu [D, H, W]` at `spacing_mm` to softmax `[K, D, H, W]` float32."""
        image = self._normalise(image_hu)
        if not self._settings["average_flips"]:
            return self._once(image)
        total = 0
        for axes in ((), (1,), (2,), (1, 2)):
            # One more axis in the result: the classes stand in front.
            flipped = self._once(np.flip(image, axes))
            total = total + np.flip(flipped, tuple(a + 1 for a in axes))
        return np.asarray(total) / 4

    def forward_seconds(self, shape: tuple[int, int, int], repeats: int = 5) -> float:
        """Median seconds of one forward pass of `shape`, compiled and warm."""
        image = jnp.zeros(shape)
        jax.block_until_ready(self._forward(self.variables, image))
        seconds = []
        for _ in range(repeats):
            began = time.perf_counter()
            jax.block_until_ready(self._forward(self.variables, image))
            seconds.append(time.perf_counter() - began)
        return float(np.median(seconds))

    def _once(self, image: np.ndarray) -> np.ndarray:
        settings = self._settings
        if image.size <= settings["whole_volume_limit_vox"]:
            return windows.whole(self._call, image, divisor=self._divisor)
        shape = settings["window_shape"]
        check_divisible("config.predict.window_shape", shape, self.network.widths)
        return windows.sliding(
            self._call,
            image,
            window_shape=tuple(shape),
            overlap=settings["window_overlap"],
            sigma=settings["window_sigma"],
        )

    def _call(self, image: np.ndarray) -> np.ndarray:
        return np.asarray(self._forward(self.variables, np.ascontiguousarray(image)))

    def _normalise(self, image_hu: np.ndarray) -> np.ndarray:
        """As in training: mean and deviation of the whole scan."""
        mean = image_hu.mean(dtype=np.float64)
        std = max(float(image_hu.std(dtype=np.float64)), 1.0)
        return ((image_hu - np.float32(mean)) / np.float32(std)).astype(np.float32)


def load_predictor(workdir: Path, overrides: Mapping[str, Any]) -> Predictor:
    """The checkpoint of a run that `config.predict.checkpoint` names.

    `overrides` replaces fields of the run's `config.predict`. Without held-out cases
    "best" is the latest. Raises `BadData` or `BadArguments` naming what does not fit.
    """
    with open_existing(workdir) as checkpoints:
        steps = checkpoints.steps()
        configured = checkpoints.run(steps[-1])["config"]["predict"]
        which = (configured | dict(overrides))["checkpoint"]
        if which == "best":
            step = checkpoints.best() or steps[-1]
        elif which == "latest":
            step = steps[-1]
        elif which.isdecimal() and int(which) in steps:
            step = int(which)
        else:
            raise BadArguments(
                f"config.predict.checkpoint={which!r} is neither best, latest "
                f"nor a step of {workdir}, which has: {', '.join(map(str, steps))}"
            )
        run = checkpoints.run(step)
        config = run["config"]
        config["predict"].update(overrides)
        network = build_network(
            config["model"],
            class_count=len(config["classes"]),
            backend=jax.default_backend(),
            device_count=1,
        )
        optimizer = make_optimizer(
            decay_every_steps=1,
            **{
                k: v
                for k, v in config["optimizer"].items()
                if k != "decay_every_epochs"
            },
        )
        abstract = jax.eval_shape(
            lambda key: initial_state(key, network, optimizer), jax.random.key(0)
        )
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        state, _ = checkpoints.restore(step, with_sharding(abstract, here))
    return Predictor(network, state, run)
