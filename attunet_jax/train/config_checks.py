"""Checks of fields against each other, and how stored configs of before are read.

What each field may be by itself is the table in `config_fields.py`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from jax.sharding import Mesh

from attunet_jax.config_fields import ADDED, RENAMED, as_typed, check_fields
from attunet_jax.errors import BadArguments
from attunet_jax.model import check_divisible


class Config(Protocol):
    """What is used of an `ml_collections.ConfigDict`; its fields are attributes."""

    def __getattr__(self, name: str, /) -> Any: ...

    def __getitem__(self, name: str, /) -> Any: ...

    def to_json(self) -> str: ...


# Over fewer numbers the statistics of BatchNorm are noise.
MIN_BATCH_NORM_NUMBERS = 32

# What decides the parameters of a run: a resumed run must agree on all of it.
FIXED_GROUPS = ("model", "data", "augment", "loss", "optimizer")
FIXED_FIELDS = ("seed", "classes", "init_from")
FREE_FIELDS = {
    "data.directory",
    "data.threads",
    "data.prefetch_batches",
    "model.convolution",
    "model.remat",
}


def check_config(config: Config) -> None:
    """Raises `BadArguments` naming a field that cannot be used, whatever the data."""
    check_fields(config.to_dict())
    data = config.data
    if any(c > r for c, r in zip(data.crop_shape, data.read_shape, strict=True)):
        raise BadArguments(
            f"--config.data.read_shape={as_typed(data.read_shape)}: must be as large "
            f"as --config.data.crop_shape={as_typed(data.crop_shape)} along D, H and W"
        )
    check_divisible("--config.data.crop_shape", data.crop_shape, config.model.widths)
    check_windows(config.predict, config.model.widths)


def check_windows(predict: Mapping[str, Any] | Config, widths: Sequence[int]) -> None:
    """Raises `BadArguments` where prediction's windows do not fit the network."""
    shape, spatial = predict["window_shape"], predict["spatial"]
    check_divisible("--config.predict.window_shape", shape, tuple(widths))
    slices = spatial * 2 ** (len(widths) - 1)
    if shape[0] % slices:
        raise BadArguments(
            f"--config.predict.window_shape={as_typed(shape)}: with "
            f"--config.predict.spatial={spatial} its depth must be divisible by "
            f"{slices}"
        )


def warnings_of(config: Config, train_cases: int) -> list[str]:
    """Lines on fields that can be used, but are hardly meant."""
    lines, data = [], config.data
    if data.batch_size > train_cases:
        lines.append(
            f"--config.data.batch_size={data.batch_size}: there are {train_cases} "
            "training cases, so a batch holds some of them more than once"
        )
    halvings = len(config.model.widths) - 1
    coarsest = [size // 2**halvings for size in data.crop_shape]
    voxels = math.prod(coarsest)
    if data.batch_size * voxels < MIN_BATCH_NORM_NUMBERS:
        enough = -(-MIN_BATCH_NORM_NUMBERS // voxels)
        lines.append(
            f"BatchNorm at the coarsest scale has {data.batch_size * voxels} numbers a "
            f"channel ({data.batch_size} cases of {'x'.join(map(str, coarsest))}), "
            f"fewer than {MIN_BATCH_NORM_NUMBERS}: its statistics are hardly more than "
            f"chance; use --config.data.batch_size={enough} or a larger "
            "--config.data.crop_shape"
        )
    return [f"warning: {line}" for line in lines]


def lengths_of(config: Config, train_cases: int) -> tuple[int, int]:
    """Returns (steps of an epoch, steps of the whole training)."""
    # An epoch of fewer cases than a batch is still a step.
    epoch_steps = max(train_cases // config.data.batch_size, 1)
    return epoch_steps, config.train.steps or config.train.epochs * epoch_steps


def epochs_text(steps: int, batch_size: int, train_cases: int) -> str:
    """300 steps (540 epochs of 5 cases)"""
    epochs = steps * batch_size / train_cases
    text = f"{epochs:,.0f}" if epochs >= 100 else f"{epochs:.3g}"
    return f"{steps:,} steps ({text} epochs of {train_cases} cases)"


def check_fits_mesh(config: Config, mesh: Mesh) -> None:
    """Raises `BadArguments` where the mesh does not divide the batch or the depth."""
    data, spatial = mesh.devices.shape
    if config.data.batch_size % data:
        raise BadArguments(
            f"--config.data.batch_size={config.data.batch_size}: cannot be split over "
            f"{data} devices: use a multiple, or --config.mesh.data="
            f"{math.gcd(data, config.data.batch_size)}"
        )
    depth, read_depth = config.data.crop_shape[0], config.data.read_shape[0]
    slices = spatial * 2 ** (len(config.model.widths) - 1)
    if spatial > 1 and (depth % slices or depth != read_depth):
        raise BadArguments(
            f"--config.mesh.spatial={spatial}: the depth of --config.data.crop_shape "
            f"({depth}) must be divisible by {slices} and equal that of "
            f"--config.data.read_shape ({read_depth})"
        )


def with_current_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a copy of a stored run's config with today's fields."""
    current = {
        name: dict(value) if isinstance(value, Mapping) else value
        for name, value in config.items()
    }
    for old, new in RENAMED.items():
        group, old_field = old.split(".")
        if old_field in current.get(group, {}):
            current[group][new.split(".")[1]] = current[group].pop(old_field)
    for name, value in ADDED.items():
        group, _, field = name.rpartition(".")
        if not group:
            current.setdefault(field, value)
        elif group in current:
            current[group].setdefault(field, value)
    return current


def meant_before(
    stored: Mapping[str, Any], current: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns dotted name -> value of fields that `stored` lacks and meant otherwise.

    Only those that decide a run's parameters; `current` is a resolved config.
    """
    meant = {}
    before = {new: old.rpartition(".")[2] for old, new in RENAMED.items()}
    for name, value in ADDED.items():
        group, _, field = name.rpartition(".")
        names = {field, before.get(name, field)}
        if group in FIXED_GROUPS and names.isdisjoint(stored[group]):
            if current[group][field] != value:
                meant[name] = value
    return meant


def differing_fields(
    stored: Mapping[str, Any], current: Mapping[str, Any]
) -> list[str]:
    """Names the fields of two resolved configs that make them different runs."""
    differing = []
    for group in (*FIXED_FIELDS, *FIXED_GROUPS):
        x, y = ({"": config.get(group)} for config in (stored, current))
        if group in FIXED_GROUPS:
            x, y = stored.get(group, {}), current.get(group, {})
        for field in sorted(x.keys() | y.keys()):
            name = f"{group}.{field}" if field else group
            if name not in FREE_FIELDS and x.get(field) != y.get(field):
                there, here = as_typed(x.get(field)), as_typed(y.get(field))
                differing.append(f"--config.{name} ({there} there, {here} here)")
    return differing
