"""A run's folder in; a function from scans to label maps on their own grids out."""

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attunet_jax.distributed.mesh import make_mesh, replicated, split_depth
from attunet_jax.errors import BadArguments
from attunet_jax.intensity import HuStatistics
from attunet_jax.model import check_divisible
from attunet_jax.predict import sliding_window
from attunet_jax.train.trained import FinishedRun, load_finished
from attunet_jax.volume import Volume, blur, labels_onto_grid, resample


class Predictor:
    """A trained network with everything that its run fixed: spacing, classes, sizes."""

    def __init__(self, finished: FinishedRun) -> None:
        self.run = run = finished.run
        self.step = int(finished.state.step)
        # The name of each value of a label map.
        self.classes = finished.outputs
        self.spacing_mm: tuple[float, ...] = tuple(run["spacing_mm"])
        self.network = network = finished.network
        self.variables = {
            "params": finished.state.params,
            "batch_stats": finished.state.batch_stats,
        }
        self._divisor = 2 ** (len(network.widths) - 1)
        self._settings = run["config"]["predict"]
        # Runs of before this field have one device for a case.
        self._spatial = self._settings.get("spatial", 1)
        self._volume_sharding: Any = None
        if self._spatial != 1:
            mesh = _mesh_of(self._spatial)
            self._volume_sharding = split_depth(mesh)
            self.variables = jax.device_put(self.variables, replicated(mesh))
        trained = run["config"]["classes"]
        if self._settings["largest_of"] == "outputs":
            trained = self.classes
        takes_part = jnp.array([name in trained for name in self.classes])

        def forward(variables: Any, image: jax.Array) -> jax.Array:
            logits = network.apply(variables, image[None, ..., None], train=False)
            # What was not trained is never the answer.
            logits = jnp.where(takes_part, logits[0], -jnp.inf)
            return jnp.moveaxis(jax.nn.softmax(logits, axis=-1), -1, 0)

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

    def probabilities(
        self, image_hu: np.ndarray, whole_hu: np.ndarray | None = None
    ) -> np.ndarray:
        """`image_hu [D, H, W]` at `spacing_mm` to softmax `[K, D, H, W]` float32.

        As in training, it is normalised by mean and deviation of the whole scan:
        `whole_hu` where `image_hu` is a part of it.
        """
        whole = HuStatistics.of(image_hu if whole_hu is None else whole_hu)
        image = whole.normalise(image_hu)
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
        image = self._place(np.zeros(shape, np.float32))
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
            return sliding_window.whole(
                self._call, image, divisor=self._divisor, parts=self._spatial
            )
        shape = settings["window_shape"]
        check_divisible("config.predict.window_shape", shape, self.network.widths)
        if shape[0] % (self._divisor * self._spatial):
            raise BadArguments(
                f"config.predict.window_shape={tuple(shape)}: its depth must be "
                f"divisible by {self._divisor * self._spatial} for "
                f"config.predict.spatial={self._spatial}"
            )
        return sliding_window.sliding(
            self._call,
            image,
            window_shape=tuple(shape),
            overlap=settings["window_overlap"],
            sigma=settings["window_sigma"],
        )

    def _call(self, image: np.ndarray) -> np.ndarray:
        placed = self._place(np.ascontiguousarray(image))
        return np.asarray(self._forward(self.variables, placed))

    def _place(self, image: np.ndarray) -> jax.Array:
        if image.shape[0] % self._spatial:
            raise BadArguments(
                f"config.predict.spatial={self._spatial} does not divide a depth of "
                f"{image.shape[0]}"
            )
        return jax.device_put(image, self._volume_sharding)

    def settings_digest(self) -> str:
        """Names the settings that decide a prediction, apart from the checkpoint."""
        free = ("checkpoint", "spatial")
        fields = {k: v for k, v in self._settings.items() if k not in free}
        text = json.dumps(fields, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _mesh_of(spatial: int) -> Any:
    devices = jax.local_devices()
    if not 0 < spatial <= len(devices):
        raise BadArguments(
            f"config.predict.spatial={spatial}: this process has {len(devices)} devices"
        )
    return make_mesh(1, spatial, devices[:spatial])


def load_predictor(workdir: Path, overrides: Mapping[str, Any]) -> Predictor:
    """See `load_finished`, which it follows in what it raises."""
    return Predictor(load_finished(workdir, overrides))
