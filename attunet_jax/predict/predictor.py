"""Loads a trained network and predicts label maps on the grids of whole scans."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh, NamedSharding

from attunet_jax.config_fields import as_typed
from attunet_jax.data.labels import LabelMap
from attunet_jax.distributed.mesh import make_mesh, replicated, split_depth
from attunet_jax.errors import BadArguments
from attunet_jax.files import local_path
from attunet_jax.intensity import (
    CtNormalisation,
    HuHistogram,
    HuLevels,
    HuStatistics,
    clip_hu,
)
from attunet_jax.model import check_divisible
from attunet_jax.ops import dispatch
from attunet_jax.predict import sliding_window
from attunet_jax.predict.attention import (
    AttentionMap,
    attention_maps,
    compile_gate_maps,
)
from attunet_jax.train.trained import TrainedModel, load_trained
from attunet_jax.volume import Volume, as_ct, blur, labels_onto_grid, resample

# Of larger scans some slices tell the levels of their values.
_LEVELS_VOX = 2**24

# What a run stores that takes no part in a prediction.
_NO_PART = {
    *("format", "version", "convolution", "manifest_sha256"),
    "split_sha256",
    *("name", "seed", "init_from"),
    *("augment", "loss", "optimizer", "train", "mesh"),
    *("model.gate_initialisation", "model.remat", "model.convolution"),
    *("data.directory", "data.split", "data.batch_size", "data.read_shape"),
    *("data.foreground_fraction", "data.threads", "data.prefetch_batches"),
    *("predict.checkpoint", "predict.spatial"),
}


class Predictor:
    """A trained network with the spacing, classes and sizes that its run fixed.

    `predictor(volume)` is `predictor.label_map(volume)`.
    """

    def __init__(self, trained: TrainedModel) -> None:
        self.run = run = trained.run
        self.step = trained.step
        # The name of each output; its position is the value in a label map.
        self.classes = trained.outputs
        # Only these organs were trained: scores, volumes and pictures are of them.
        self.labels = LabelMap.of_outputs(self.classes, run["config"]["classes"])
        self.spacing_mm: tuple[float, ...] = tuple(run["spacing_mm"])
        # None: each scan by its own mean and deviation.
        self.normalisation = CtNormalisation.of_run(run)
        # Runs from before there was a range take the values as they are.
        self._hu_range: list[int] | None = run.get("hu_range")
        self.network = network = trained.network
        self.variables = trained.variables
        self._divisor = 2 ** (len(network.widths) - 1)
        self._settings = run["config"]["predict"]
        # Runs that were trained before the field existed lack it.
        self._spatial: int = self._settings.get("spatial", 1)
        self._volume_sharding: NamedSharding | None = None
        if self._spatial != 1:
            mesh = _mesh_of(self._spatial)
            self._volume_sharding = split_depth(mesh)
            self.variables = jax.device_put(self.variables, replicated(mesh))
        candidates: tuple[str, ...] = self.classes
        if self._settings["argmax_over"] == "classes":
            candidates = (self.classes[0], *self.labels.organs)
        # The name of each value that a label map can hold.
        self.names = {v: n for v, n in enumerate(self.classes) if n in candidates}
        is_candidate = jnp.array([name in candidates for name in self.classes])

        def forward(variables: Mapping[str, Any], image: jax.Array) -> jax.Array:
            logits = network.apply(variables, image[None, ..., None], train=False)
            logits = jnp.where(is_candidate, logits[0], -jnp.inf)
            return jnp.moveaxis(jax.nn.softmax(logits, axis=-1), -1, 0)

        self._compiled = jax.jit(
            forward,
            compiler_options=dispatch.compiler_options(network.convolution) or None,
        )

    def __call__(
        self,
        volume: Volume | np.ndarray,
        *,
        spacing_mm: Sequence[float] | np.ndarray | None = None,
    ) -> np.ndarray:
        """Predicts the label map; see `label_map`."""
        return self.label_map(volume, spacing_mm=spacing_mm)

    def label_map(
        self,
        volume: Volume | np.ndarray,
        *,
        spacing_mm: Sequence[float] | np.ndarray | None = None,
    ) -> np.ndarray:
        """Predicts `[D, H, W]` uint8 on the canonical view of the scan's own grid.

        `volume` is in HU: a `Volume`, or an array `[D, H, W]` in canonical orientation
        with its `spacing_mm` (D, H, W). Values of the result are positions in
        `classes`. Every class is resampled linearly to the grid, in slabs, and the
        largest wins. Raises `TypeError` and `ValueError` for other inputs.
        """
        scan = _scan_of(volume, spacing_mm)
        resampled = self._resampled(scan)
        return labels_onto_grid(
            self.probabilities(resampled.voxels), resampled.affine, scan.grid
        )

    def attention(
        self,
        volume: Volume | np.ndarray,
        *,
        spacing_mm: Sequence[float] | np.ndarray | None = None,
    ) -> list[AttentionMap]:
        """Computes the attention coefficients of every sub-gate, fine to coarse.

        For scans as `label_map` takes them. Raises `BadArguments` for a network without
        gates, and as `label_map` does.
        """
        scan = _scan_of(volume, spacing_mm)
        resampled = self._resampled(scan)
        return attention_maps(self, resampled.voxels, resampled.affine, scan.grid)

    def _resampled(self, scan: Volume) -> Volume:
        """The scan at the network's spacing, with the values that training saw."""
        resampled = scan
        if self._hu_range:
            resampled = as_ct(scan, self._hu_range)
        if self.normalisation is not None:
            voxels = self.normalisation.without_metal(resampled.voxels)
            resampled = replace(resampled, voxels=voxels)
        if self.run["blur_mm"]:
            resampled = blur(resampled, self.run["blur_mm"])
        return resample(resampled, self.spacing_mm, order="linear")

    def probabilities(
        self, image_hu: np.ndarray, whole_hu: np.ndarray | None = None
    ) -> np.ndarray:
        """Predicts softmax `[K, D, H, W]` float32 of `image_hu [D, H, W]`.

        The image has the network's `spacing_mm`. It is normalised as in training, where
        that is by the whole scan by `whole_hu` if `image_hu` is only a part of it.
        """
        return self.average(self.normalised(image_hu, whole_hu), self._apply)

    def average(
        self, image: np.ndarray, apply: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """Applies `apply` to a normalised image `[D, H, W]` as the settings say: whole
        or in windows, which are blended, and averaged over flips.

        `apply` takes an image of a size that the network accepts, and returns maps
        `[K, D, H, W]` on its grid.
        """
        if not self._settings["average_flips"]:
            return self._once(image, apply)
        total = 0
        for axes in ((), (1,), (2,), (1, 2)):
            # The result has one more axis, the classes, in front.
            flipped = self._once(np.flip(image, axes), apply)
            total = total + np.flip(flipped, tuple(a + 1 for a in axes))
        return np.asarray(total) / 4

    def averages(self, image: np.ndarray) -> bool:
        """Returns whether the settings make `average` average over windows or flips."""
        return self._settings["average_flips"] or not self._fits(image)

    def normalised(
        self, image_hu: np.ndarray, whole_hu: np.ndarray | None = None
    ) -> np.ndarray:
        """Normalises `image_hu` as in training; see `probabilities`."""
        whole_hu = image_hu if whole_hu is None else whole_hu
        if self.normalisation is not None:
            return self.normalisation.normalise(image_hu)
        if self._hu_range:
            image_hu, whole_hu = (
                clip_hu(values, self._hu_range) for values in (image_hu, whole_hu)
            )
        return HuStatistics.of(whole_hu).normalise(image_hu)

    def unlike_training(
        self,
        volume: Volume | np.ndarray,
        *,
        spacing_mm: Sequence[float] | np.ndarray | None = None,
    ) -> str | None:
        """Says in what the values of a scan are unlike those of the training cases.

        None where they are alike, and for runs that do not know.
        """
        spans = self.run.get("training_hu")
        if not spans:
            return None
        voxels = as_ct(_scan_of(volume, spacing_mm)).voxels
        every = max(1, voxels.size // _LEVELS_VOX)
        return HuLevels.of(HuHistogram.of(voxels[::every])).unlike(spans)

    def forward_seconds(self, shape: tuple[int, int, int], repeats: int = 5) -> float:
        """Measures the median seconds of one compiled forward pass of `shape`."""
        image = self._place(np.zeros(shape, np.float32))
        jax.block_until_ready(self._forward(image))
        seconds = []
        for _ in range(repeats):
            began = time.perf_counter()
            jax.block_until_ready(self._forward(image))
            seconds.append(time.perf_counter() - began)
        return float(np.median(seconds))

    def _forward(self, image: jax.Array) -> jax.Array:
        with dispatch.compilation_cache(self.network.convolution):
            return self._compiled(self.variables, image)

    def padded(
        self, image: np.ndarray
    ) -> tuple[np.ndarray, tuple[slice, slice, slice]]:
        """Pads a normalised image that is processed whole; also returns its place."""
        return sliding_window.padded_whole(
            image, divisor=self._divisor, shards=self._spatial
        )

    def gate_maps(self, image: np.ndarray, features: bool, *, at_image: bool) -> Any:
        """Computes what `compile_gate_maps` says for a padded image or a window."""
        placed = self._place(np.ascontiguousarray(image))
        with dispatch.compilation_cache(self.network.convolution):
            return self._gate_maps(self.variables, placed, features, at_image)

    @cached_property
    def _gate_maps(self) -> Callable[..., Any]:
        network: Any = self.network  # hashable, as Flax's modules are
        return compile_gate_maps(network)

    def _fits(self, image: np.ndarray) -> bool:
        return image.size <= self._settings["whole_volume_limit_vox"]

    def _once(
        self, image: np.ndarray, apply: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        settings = self._settings
        if self._fits(image):
            return sliding_window.whole(
                apply, image, divisor=self._divisor, shards=self._spatial
            )
        shape = settings["window_shape"]
        check_divisible("--config.predict.window_shape", shape, self.network.widths)
        if shape[0] % (self._divisor * self._spatial):
            raise BadArguments(
                f"--config.predict.window_shape={as_typed(shape)}: its depth must be "
                f"divisible by {self._divisor * self._spatial} for "
                f"--config.predict.spatial={self._spatial}"
            )
        return sliding_window.sliding(
            apply,
            image,
            window_shape=tuple(shape),
            overlap=settings["window_overlap"],
            sigma=settings["window_sigma"],
        )

    def _apply(self, image: np.ndarray) -> np.ndarray:
        placed = self._place(np.ascontiguousarray(image))
        return np.asarray(self._forward(placed))

    def _place(self, image: np.ndarray) -> jax.Array:
        if image.shape[0] % self._spatial:
            raise BadArguments(
                f"--config.predict.spatial={self._spatial}: does not divide a depth of "
                f"{image.shape[0]}"
            )
        return jax.device_put(image, self._volume_sharding)

    @property
    def settings(self) -> dict[str, Any]:
        """The fields of `config.predict` that decide a label map of a whole scan."""
        free = ("checkpoint", "spatial", "region")
        return {k: v for k, v in self._settings.items() if k not in free}

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What decides its predictions: `{"step", "weights", "predict"}`, JSON-able.

        Digests of all parameters and statistics, and of the run's settings: whatever is
        not known to take no part in a prediction.
        """
        weights = hashlib.sha256()
        for path, leaf in sorted(flatten_dict(self.variables, sep="/").items()):
            weights.update(path.encode() + np.asarray(leaf).tobytes())
        run = {key: x for key, x in self.run.items() if key not in _NO_PART}
        config = {
            group: {k: x for k, x in fields.items() if f"{group}.{k}" not in _NO_PART}
            if isinstance(fields, Mapping)
            else fields
            for group, fields in run.pop("config").items()
            if group not in _NO_PART
        }
        text = json.dumps([run, config], sort_keys=True)
        return {
            "step": self.step,
            "weights": weights.hexdigest()[:16],
            "predict": hashlib.sha256(text.encode()).hexdigest()[:12],
        }


def _scan_of(
    volume: Volume | np.ndarray, spacing_mm: Sequence[float] | np.ndarray | None
) -> Volume:
    if isinstance(volume, Volume):
        if spacing_mm is not None:
            raise ValueError("spacing_mm is for arrays; a Volume has its own")
        return volume
    if not isinstance(volume, np.ndarray):
        raise TypeError(
            "a scan is a Volume (see read_scan), or a NumPy array [D, H, W] in HU with "
            f"spacing_mm=(d, h, w), not {type(volume).__name__}"
        )
    if spacing_mm is None:
        raise ValueError("a NumPy array needs spacing_mm=(d, h, w) in mm")
    return Volume.of_array(volume, spacing_mm)


def _mesh_of(spatial: int) -> Mesh:
    devices = jax.local_devices()
    if not 0 < spatial <= len(devices):
        raise BadArguments(
            f"--config.predict.spatial={spatial}: this process has {len(devices)} "
            "devices"
        )
    return make_mesh(1, spatial, devices[:spatial])


def load_predictor(
    workdir: str | Path, overrides: Mapping[str, Any] | None = None
) -> Predictor:
    """Loads the predictor of the run in `workdir`.

    `overrides` replaces fields of its `config.predict`. Raises as `load_trained` does.
    """
    return Predictor(load_trained(local_path(workdir), overrides or {}))
