"""Checks of a config that need no data set, and how stored configs of before are read.

`ALLOWED` is the one table of the fields that have only a few values.
"""

import math
from collections.abc import Mapping
from typing import Any, Protocol

from jax.sharding import Mesh

from attunet_jax.data.crops import PADDINGS
from attunet_jax.errors import BadArguments
from attunet_jax.intensity import NORMALISATIONS, SCAN
from attunet_jax.model.config import CHOICES
from attunet_jax.train.optimizer import RULES


class Config(Protocol):
    """What is used of an `ml_collections.ConfigDict`; its fields are attributes."""

    def __getattr__(self, name: str, /) -> Any: ...

    def __getitem__(self, name: str, /) -> Any: ...

    def to_json(self) -> str: ...


# Field today by its name in configs and checkpoints of before.
RENAMED = {
    "model.rematerialise": "model.remat",
    "optimizer.average_batches": "optimizer.grad_accum_steps",
    "loss.mean_over": "loss.reduce_over",
    "predict.largest_of": "predict.argmax_over",
}

# Fields that stored configs of before lack, with what they meant then.
ADDED = {
    "data.normalisation": SCAN,
    "predict.argmax_over": "classes",
    "predict.region": "whole",
    "predict.spatial": 1,
}

ALLOWED: dict[str, tuple[Any, ...]] = {
    **{f"model.{field}": choices for field, choices in CHOICES.items()},
    "data.padding": PADDINGS,
    "data.normalisation": NORMALISATIONS,
    "augment.normalise_over": ("case", "window"),
    "loss.reduce_over": ("classes", "outputs"),
    "optimizer.name": tuple(RULES),
    "predict.argmax_over": ("classes", "outputs"),
    "predict.region": ("whole", "centre_crop"),
}

POSITIVE = (
    "data.batch_size",
    "data.threads",
    "data.prefetch_batches",
    "optimizer.learning_rate",
    "optimizer.grad_accum_steps",
    "optimizer.decay_every_epochs",
    "train.epochs",
    "train.log_every_steps",
    "train.evaluate_every_steps",
    "train.checkpoint_every_steps",
    "train.keep_latest",
)

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


def check_allowed(config: Config | Mapping[str, Any]) -> None:
    """Raises `BadArguments` naming a field whose value is not in `ALLOWED`.

    Fields that `config` lacks are not checked: runs of before may lack some.
    """
    for name, choices in ALLOWED.items():
        group, field = name.split(".")
        value = config.get(group, {}).get(field, choices[0])
        if value not in choices:
            raise BadArguments(
                f"config.{name}={value!r} is none of: {', '.join(map(str, choices))}"
            )


def check_config(config: Config) -> None:
    """Raises `BadArguments` naming a field that cannot be used, whatever the data."""
    for name in POSITIVE:
        group, field = name.split(".")
        value = config[group][field]
        if not value > 0:
            raise BadArguments(f"config.{name}={value} must be above 0")
    crop, read = config.data.crop_shape, config.data.read_shape
    if (
        len(crop) != 3
        or len(read) != 3
        or any(c > r for c, r in zip(crop, read, strict=True))
    ):
        raise BadArguments(
            f"config.data.read_shape={tuple(read)} must be as large as "
            f"config.data.crop_shape={tuple(crop)} along D, H and W"
        )
    check_allowed(config)


def check_fits_mesh(config: Config, mesh: Mesh) -> None:
    """Raises `BadArguments` where the mesh does not divide the batch or the depth."""
    data, spatial = mesh.devices.shape
    if config.data.batch_size % data:
        raise BadArguments(
            f"config.data.batch_size={config.data.batch_size} cannot be split over "
            f"{data} devices: use a multiple, or config.mesh.data="
            f"{math.gcd(data, config.data.batch_size)}"
        )
    depth, read_depth = config.data.crop_shape[0], config.data.read_shape[0]
    slices = spatial * 2 ** (len(config.model.widths) - 1)
    if spatial > 1 and (depth % slices or depth != read_depth):
        raise BadArguments(
            f"with config.mesh.spatial={spatial} the depth of config.data.crop_shape "
            f"({depth}) must be divisible by {slices} and equal that of "
            f"config.data.read_shape ({read_depth})"
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
        group, field = name.split(".")
        if group in current:
            current[group].setdefault(field, value)
    return current


def meant_before(
    stored: Mapping[str, Any], current: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns dotted name -> value of fields that `stored` lacks and meant otherwise.

    Only those that decide a run's parameters; `current` is a resolved config.
    """
    meant = {}
    for name, value in ADDED.items():
        group, field = name.split(".")
        if group in FIXED_GROUPS and field not in stored[group]:
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
                differing.append(f"{name} ({x.get(field)} there, {y.get(field)} here)")
    return differing
