"""A config and a prepared data set in, everything a run needs to know out, checked.

A plan, a mesh and shapes in, the compiled train step out.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import optax

from attunet_jax import augment
from attunet_jax.data.crops import PADDINGS
from attunet_jax.data.dataset import Dataset
from attunet_jax.data.labels import LabelMap
from attunet_jax.distributed.mesh import batch_shardings, replicated
from attunet_jax.errors import BadArguments
from attunet_jax.model import AttentionUNet3D, build_network, check_divisible
from attunet_jax.train.loss import soft_dice_loss
from attunet_jax.train.optimizer import make_optimizer
from attunet_jax.train.step import count_step, train_step
from attunet_jax.train.trained import FinishedRun


@dataclass(frozen=True)
class Plan:
    """Functions and numbers of one run; nothing in it lives on a device."""

    network: AttentionUNet3D
    optimizer: optax.GradientTransformation
    train_step: Any  # (state, batch, key) -> (state, metrics)
    count_step: Any  # (state, batch) -> int32 [B, K, 3]
    train_ids: tuple[str, ...]
    validation_ids: tuple[str, ...]
    organs: tuple[str, ...]  # foreground classes, in the order of count_step's K
    steps: int
    run: dict  # what a checkpoint says of itself


def make_plan(
    config: Any,
    dataset: Dataset,
    device_count: int,
    source: FinishedRun | None = None,
) -> Plan:
    """`source` is the run that `config.init_from` names.

    Raises `BadArguments` for fields that contradict each other, the data or `source`.
    """
    _check_numbers(config)
    resolved = json.loads(config.to_json())
    parts = dataset.split(config.data.split)
    if not parts["train"]:
        raise BadArguments(
            f"{dataset.directory}: split {config.data.split} has no training cases"
        )
    if source is not None:
        there = {"model": source.run["config"]["model"]}
        differing = differing_fields(there, {"model": resolved["model"]})
        if differing:
            raise BadArguments(
                f"config.init_from={source.workdir} was trained with another "
                + "; ".join(differing)
            )
    outputs = output_names(config.classes, source)
    network = build_network(
        config.model.to_dict(),
        num_classes=len(outputs),
        backend=jax.default_backend(),
        device_count=device_count,
    )
    check_divisible("config.data.crop_shape", config.data.crop_shape, network.widths)

    # An epoch of fewer cases than a batch is still a step.
    epoch_steps = max(len(parts["train"]) // config.data.batch_size, 1)
    every = config.optimizer.decay_every_epochs * epoch_steps
    optimizer = make_optimizer(
        name=config.optimizer.name,
        learning_rate=config.optimizer.learning_rate,
        l2=config.optimizer.l2,
        decay_factor=config.optimizer.decay_factor,
        decay_every_steps=max(every // config.optimizer.average_batches, 1),
        average_batches=config.optimizer.average_batches,
    )
    classes = tuple(outputs.index(name) for name in config.classes)
    averaged = len({"classes": classes, "outputs": outputs}[config.loss.mean_over])
    crops = dict(
        crop_shape=tuple(config.data.crop_shape),
        normalise_over=config.augment.normalise_over,
        label_lookup=label_lookup(dataset.labels, outputs, tuple(config.classes)),
    )
    ranges = config.augment.to_dict()
    ranges.pop("normalise_over")
    loss = partial(
        soft_dice_loss,
        classes=classes,
        smoothing=config.loss.smoothing,
        smoothing_inside_factor=config.loss.smoothing_inside_factor,
        include_background=config.loss.include_background,
        averaged_over=averaged - (not config.loss.include_background),
    )
    return Plan(
        network=network,
        optimizer=optimizer,
        train_step=partial(
            train_step,
            network=network,
            optimizer=optimizer,
            crops=partial(augment.augmented_crops, **crops, **ranges),
            loss=loss,
            auxiliary_weight=config.loss.auxiliary_weight,
        ),
        count_step=partial(
            count_step,
            network=network,
            crops=partial(augment.centre_crops, **crops),
            classes=classes,
        ),
        train_ids=tuple(parts["train"]),
        validation_ids=tuple(parts["validation"]),
        organs=tuple(config.classes)[1:],
        steps=config.train.steps
        if config.train.steps > 0
        else config.train.epochs * epoch_steps,
        run={
            "format": 1,
            "config": resolved,
            "outputs": list(outputs),
            "spacing_mm": list(dataset.manifest["spacing_mm"]),
            "blur_mm": dataset.manifest["settings"].get("blur_mm", 0.0),
            "manifest_sha256": dataset.manifest_sha256,
        },
    )


def output_names(classes: Sequence[str], source: FinishedRun | None) -> tuple[str, ...]:
    """What each output node means: the classes, or all nodes of `source`.

    Fine-tuning on some of the source's classes keeps its nodes: those that take no
    part are left out of softmax, loss and gradient. Other classes need a new head.
    """
    if source is not None and set(classes) <= set(source.outputs):
        return source.outputs
    return tuple(classes)


def label_lookup(
    labels: LabelMap, outputs: tuple[str, ...], classes: tuple[str, ...]
) -> tuple[int, ...]:
    """Returns the output node of each stored label; organs without one become 0.

    Raises `BadArguments` where `classes` does not fit the prepared data.
    """
    missing = set(classes[1:]) - set(labels.organs)
    repeated = len(set(classes)) < len(classes)
    if not classes or classes[0] != "background" or missing or repeated:
        raise BadArguments(
            f"config.classes={classes}: must be 'background' and then organs of the "
            f"prepared data, each once, which are: {', '.join(labels.organs)}"
        )
    return labels.lookup(outputs)


# What decides the parameters of a run: a resumed run must agree on all of it.
FIXED_GROUPS = ("model", "data", "augment", "loss", "optimizer")
FIXED_FIELDS = ("seed", "classes", "init_from")
FREE_FIELDS = {
    "data.directory",
    "data.threads",
    "data.prefetch_batches",
    "model.convolution",
    "model.rematerialise",
}


def differing_fields(a: dict, b: dict) -> list[str]:
    """Fields of two resolved configs that make them different runs, in words."""
    differing = []
    for group in (*FIXED_FIELDS, *FIXED_GROUPS):
        x, y = ({"": c.get(group)} for c in (a, b))
        if group in FIXED_GROUPS:
            x, y = a.get(group, {}), b.get(group, {})
        for field in sorted(x.keys() | y.keys()):
            name = f"{group}.{field}" if field else group
            if name not in FREE_FIELDS and x.get(field) != y.get(field):
                differing.append(f"{name} ({x.get(field)} there, {y.get(field)} here)")
    return differing


def _check_numbers(config: Any) -> None:
    positive = {
        "data.batch_size": config.data.batch_size,
        "data.threads": config.data.threads,
        "data.prefetch_batches": config.data.prefetch_batches,
        "optimizer.learning_rate": config.optimizer.learning_rate,
        "optimizer.average_batches": config.optimizer.average_batches,
        "optimizer.decay_every_epochs": config.optimizer.decay_every_epochs,
        "train.epochs": config.train.epochs,
        "train.log_every_steps": config.train.log_every_steps,
        "train.evaluate_every_steps": config.train.evaluate_every_steps,
        "train.checkpoint_every_steps": config.train.checkpoint_every_steps,
        "train.keep_latest": config.train.keep_latest,
    }
    for name, value in positive.items():
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
    for name, value, choices in (
        ("data.padding", config.data.padding, PADDINGS),
        ("augment.normalise_over", config.augment.normalise_over, ("case", "window")),
        ("loss.mean_over", config.loss.mean_over, ("classes", "outputs")),
        ("predict.largest_of", config.predict.largest_of, ("classes", "outputs")),
        ("predict.region", config.predict.region, ("whole", "centre_crop")),
    ):
        if value not in choices:
            raise BadArguments(
                f"config.{name}={value!r} is none of: {', '.join(choices)}"
            )


def compile_step(
    plan: Plan, mesh: Any, state: Any, batch: Any, key: Any, options: Any = None
) -> Any:
    """`(state, batch, key) -> (state, metrics)`; the state given to it is used up.

    `state`, `batch` and `key` are arrays or their shapes on `mesh`; `options` are the
    compiler's.
    """
    everywhere = replicated(mesh)
    return (
        jax.jit(
            plan.train_step,
            in_shardings=(everywhere, batch_shardings(mesh, batch), everywhere),
            out_shardings=everywhere,
            donate_argnums=0,
        )
        .lower(state, batch, key)
        .compile(compiler_options=options)
    )
