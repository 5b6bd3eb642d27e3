"""What the benchmark measures of this project, as functions ready to be timed."""

import functools
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attunet_jax.data.batch import HostBatch
from attunet_jax.data.dataset import Dataset
from attunet_jax.distributed.mesh import make_mesh, replicated, to_global
from attunet_jax.errors import BadData
from attunet_jax.evaluate.metrics import measure_case
from attunet_jax.ops import dispatch
from attunet_jax.ops.conv import conv_1x1x1, conv_2x2x2_stride_2
from attunet_jax.ops.resize import upsample
from attunet_jax.predict.predictor import Predictor
from attunet_jax.train.experiment import compile_step, make_experiment
from attunet_jax.train.setup import stream
from attunet_jax.train.state import (
    TrainState,
    copy_of,
    init_state,
    parameter_count,
)
from attunet_jax.train.trained import TrainedModel
from launch.benchmark.machine import free_bytes
from launch.benchmark.timing import Runner, timed
from launch.benchmark.workload import ORGANS, SPACING_MM, Size, make_case

ROOT = Path(__file__).resolve().parents[2]
# More than the pipeline reads ahead, so that a round waits for what it reads.
BATCHES_PER_ROUND = 8


class NotEnoughMemory(Exception):
    """A computation needs more memory than is free; its measurement is skipped."""


class Ours:
    """One network in one compute type, with random parameters."""

    def __init__(self, config: Any, dataset: Dataset, device: Any) -> None:
        self.config, self.dataset, self.device = config, dataset, device
        self.mesh = make_mesh(1, 1)
        self.experiment = make_experiment(config, dataset, self.mesh)
        self.class_count = len(config.classes)

    @functools.cached_property
    def state(self) -> TrainState:
        """The initial state, compiled and drawn at its first use."""
        return init_state(
            self.experiment.create_state,
            jax.random.key(self.config.seed),
            replicated(self.mesh),
        )

    @property
    def parameters(self) -> int:
        return parameter_count(self.state.params)

    def batches(self) -> Any:
        """Returns the endless iterator of host batches of a training; to be closed."""
        return stream(
            self.config,
            self.dataset,
            self.experiment.train_ids,
            self.mesh,
            0,
            self.experiment.normalisation,
        )

    def forward(self) -> Callable[[], object]:
        """Returns a forward pass of one volume with BatchNorm's running statistics."""
        network = self.experiment.network
        variables = self.state.variables
        # Noise: zeros cost a GPU less power, and so less time, than an image does.
        shape = (1, *self.config.data.crop_shape, 1)
        image = jax.random.normal(jax.random.key(1), shape, jnp.float32)
        apply = jax.jit(lambda v, x: network.apply(v, x, train=False))
        lowered = apply.lower(variables, image)
        with dispatch.compilation_cache(network.convolution):
            options = dispatch.compiler_options(network.convolution) or None
            compiled = self._check_memory(lowered.compile(compiler_options=options))
        return lambda: jax.block_until_ready(compiled(variables, image))

    def train_step(self, host_batch: HostBatch | None = None) -> Callable[[], object]:
        """Returns the train step: augmentation, forward pass, backward pass, update.

        It takes `host_batch`, or else the first batch of the data set.
        """
        batches = self.batches()
        batch = to_global(host_batch or next(batches), self.mesh)
        batches.close()
        key = jax.random.key(self.config.seed)
        state = copy_of(self.state)  # the step donates its state
        with jax.set_mesh(self.mesh):
            step = self._check_memory(
                compile_step(self.experiment, self.mesh, state, batch, key)
            )

        def call() -> None:
            nonlocal state
            state, metrics = step(state, batch, key)
            jax.block_until_ready((state, metrics))

        return call

    def predictor(self) -> Predictor:
        """Returns the predictor that a trained model of this config has."""
        return Predictor(
            TrainedModel(
                self.experiment.network,
                self.state.variables,
                step=0,
                run=self.experiment.run,
                workdir=Path(),
            )
        )

    def _check_memory(self, compiled: Any) -> Any:
        """Returns `compiled`; raises `NotEnoughMemory` if the device has too little."""
        memory = compiled.memory_analysis()
        free = free_bytes(self.device)
        if memory and free is not None:
            needed = memory.temp_size_in_bytes + memory.output_size_in_bytes
            needed -= memory.alias_size_in_bytes
            if needed > free:
                raise NotEnoughMemory(
                    f"needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
                )
        return compiled


def out_of_memory(error: Exception) -> bool:
    """Returns whether the compiler or the runtime ran out of memory."""
    return isinstance(error, MemoryError | NotEnoughMemory) or (
        isinstance(error, jax.errors.JaxRuntimeError)
        and "RESOURCE_EXHAUSTED" in str(error)
    )


@contextmanager
def input_pipeline(ours: Ours) -> Iterator[Runner]:
    """Yields a runner of a batch: from cached shards to arrays on the device."""
    batches = ours.batches()

    def run(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls * BATCHES_PER_ROUND):
            jax.block_until_ready(to_global(next(batches), ours.mesh))
        return (time.perf_counter() - start) / BATCHES_PER_ROUND

    try:
        yield run
    finally:
        batches.close()


def whole_case_prediction(ours: Ours, size: Size) -> Runner:
    """Returns a runner from a scan's HU to class probabilities."""
    predictor = ours.predictor()
    image_hu = make_case(0, size.scan_shape).image_hu
    return timed(lambda: predictor.probabilities(image_hu))


def metrics(size: Size) -> Runner:
    """Returns a runner of all metrics of a case, the prediction one voxel off."""
    truth = make_case(0, size.scan_shape).label
    prediction = np.roll(truth, 1, axis=0)
    return timed(lambda: measure_case(truth, prediction, (SPACING_MM,) * 3, ORGANS))


def preparation(size: Size, folder: Path, scans: int) -> Runner:
    """Returns a runner of `data_prep.prepare` on phantoms, process start included."""
    source = folder / "phantoms"
    _run(
        "data_prep.phantom",
        f"--output={source}",
        f"--cases={scans}",
        f"--size={size.phantom}",
        "--seed=0",
    )
    numbers = itertools.count()

    def prepare() -> None:
        _run(
            "data_prep.prepare",
            "--source=nifti",
            f"--input={source}",
            f"--output={folder / f'prepared_{next(numbers)}'}",
            "--labels=" + ",".join(f"{k}={v}" for k, v in ORGANS.items()),
            f"--spacing_mm={size.prepared_mm}",
        )

    return timed(prepare)


def _run(module: str, *arguments: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if finished.returncode:
        message = (finished.stderr.strip() or "no message").splitlines()[-1]
        raise BadData(f"{module} ended with status {finished.returncode}: {message}")


def gate_parts(model: Any, shape: tuple[int, int, int]) -> dict[str, Runner]:
    """Returns a runner of each operation of the attention gates (`model/gates.py`).

    Each takes noise of the shapes of a forward pass of one volume of `shape`, over all
    gated scales and sub-gates. Alone, each writes its result to memory; in the network
    some are fused, so their sum is above the cost of the gates. `model` is the group of
    a config whose gates are those of the published code: kernel 2, no reduction, an
    output transform.
    """
    parts: dict[str, list[Callable[[], Any]]] = {}
    dtype = jnp.dtype(model.compute_dtype)
    keys = iter(jax.random.split(jax.random.key(0), 1000))

    def noise(*sizes: int) -> jax.Array:
        return jax.random.normal(next(keys), sizes, dtype)

    def add(part: str, function: Callable[..., jax.Array], *arrays: Any) -> None:
        compiled = jax.jit(function).lower(*arrays).compile()
        parts.setdefault(part, []).append(lambda: compiled(*arrays))

    widths = tuple(model.widths)
    for scale in range(2, len(widths)):
        channels = widths[scale - 1]
        deepest = scale == len(widths) - 1
        signal = model.gating_channels if deepest else widths[scale]
        fine = [n // 2 ** (scale - 1) for n in shape]
        coarse = [n // 2 for n in fine]
        x, g = noise(1, *fine, channels), noise(1, *coarse, signal)
        theta, phi = (noise(1, *coarse, channels) for _ in range(2))
        small, alpha = noise(1, *coarse, 1), noise(1, *fine, 1)
        pointwise = noise(1, 1, 1, channels, channels)
        block = noise(2, 2, 2, channels, channels)
        for _ in range(model.sub_gates):
            add("W_x", conv_2x2x2_stride_2, x, block)
            add("W_g", conv_1x1x1, g, noise(1, 1, 1, signal, channels))
            add("sum, psi, sigmoid", _psi, theta, phi, noise(1, 1, 1, channels, 1))
            add("alpha to the grid of x", _upsampled, small)
            add("alpha x", jnp.multiply, alpha, x)
            add("W and its norm", _pointwise, x, pointwise)
        both = noise(1, *fine, model.sub_gates * channels)
        mixing = noise(1, 1, 1, model.sub_gates * channels, channels)
        add("sub-gates combined", _pointwise, both, mixing)
    return {part: _all(calls) for part, calls in parts.items()}


def _all(calls: list[Callable[[], Any]]) -> Runner:
    return timed(lambda: jax.block_until_ready([call() for call in calls]))


def _psi(theta: jax.Array, phi: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.nn.sigmoid(conv_1x1x1(jax.nn.relu(theta + phi), kernel))


def _upsampled(alpha: jax.Array) -> jax.Array:
    return upsample(alpha, 2, align_corners=False)


def _pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Applies a norm's scale and shift and ReLU too, as prediction does."""
    y = conv_1x1x1(x, kernel)
    return jax.nn.relu(y * y.dtype.type(1.5) + y.dtype.type(0.5))
