"""Makes network, optimizer and step functions of a config, with or without a data set.

`make_training` needs the label values of the organs only; `make_experiment` adds the
cases of a prepared data set.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from attunet_jax import augment
from attunet_jax.config_fields import as_typed
from attunet_jax.data.dataset import Dataset
from attunet_jax.data.labels import LabelMap
from attunet_jax.distributed.mesh import batch_shardings, replicated
from attunet_jax.errors import BadArguments
from attunet_jax.intensity import CtNormalisation, HuLevels
from attunet_jax.model import AttentionUNet3D, build_network, check_divisible
from attunet_jax.ops import dispatch
from attunet_jax.train import stored_run
from attunet_jax.train.config_checks import (
    Config,
    check_config,
    differing_fields,
    lengths_of,
)
from attunet_jax.train.loss import soft_dice_loss
from attunet_jax.train.normalisation import run_normalisation
from attunet_jax.train.optimizer import make_optimizer
from attunet_jax.train.state import TrainState, create_state
from attunet_jax.train.step import EvalStep, TrainStep, eval_step, train_step
from attunet_jax.train.trained import TrainedModel


@dataclass(frozen=True)
class Training:
    """What a training step is made of; holds no arrays."""

    network: AttentionUNet3D
    optimizer: optax.GradientTransformation
    train_step: TrainStep
    eval_step: EvalStep

    def create_state(self, key: jax.Array) -> TrainState:
        """Random parameters and an empty optimizer; pure."""
        return create_state(key, self.network, self.optimizer)


@dataclass(frozen=True)
class Experiment(Training):
    """A training together with its cases and its length."""

    train_ids: tuple[str, ...]
    validation_ids: tuple[str, ...]
    organs: tuple[str, ...]  # foreground classes, in the order of eval_step's K
    steps: int
    run: dict[str, Any]  # stored with every checkpoint: resolved config, outputs, ...

    @property
    def normalisation(self) -> CtNormalisation | None:
        """None where each scan is normalised by its own mean and deviation."""
        return CtNormalisation.of_run(self.run)


def make_experiment(
    config: Config,
    dataset: Dataset,
    mesh: Mesh,
    source: TrainedModel | None = None,
    before: Mapping[str, Any] | None = None,
) -> Experiment:
    """`source` is the trained model that `config.init_from` names.

    `before` is what a run that continues has stored; it needs no `source`.

    Raises `BadArguments` for fields that contradict each other, the data or `source`.
    """
    check_config(config)
    config = with_classes(config, dataset.labels)
    resolved = json.loads(config.to_json())
    parts = dataset.split(config.data.split, "--config.data.split")
    if not parts["train"]:
        raise BadArguments(
            f"{dataset.place}: split {config.data.split} has no training cases"
        )
    if source is not None:
        _check_same_network(source, resolved["model"])
    if before is not None:
        outputs = tuple(before["outputs"])
    else:
        outputs = output_names(config.classes, source)
    if before is not None and config.init_from:  # its source's, which may be gone
        normalisation = CtNormalisation.of_run(before)
    else:
        normalisation = run_normalisation(config, dataset, parts["train"], source)
    levels = dataset.hu_levels(parts["train"])
    epoch_steps, steps = lengths_of(config, len(parts["train"]))
    training = make_training(
        config, dataset.labels, mesh, outputs=outputs, epoch_steps=epoch_steps
    )
    return Experiment(
        **vars(training),
        train_ids=tuple(parts["train"]),
        validation_ids=tuple(parts["validation"]),
        organs=tuple(config.classes)[1:],
        steps=steps,
        run={
            **stored_run.stamp(),
            "config": resolved,
            "convolution": training.network.convolution,
            "outputs": list(outputs),
            "spacing_mm": list(dataset.manifest["spacing_mm"]),
            "blur_mm": dataset.manifest["settings"].get("blur_mm", 0.0),
            "normalisation": normalisation and normalisation.as_json(),
            "hu_range": dataset.hu_range,
            "training_hu": HuLevels.spans(levels) if levels else None,
            "manifest_sha256": dataset.manifest_sha256,
            "split_sha256": dataset.split_sha256(config.data.split),
        },
    )


def make_training(
    config: Config,
    labels: LabelMap,
    mesh: Mesh,
    *,
    outputs: tuple[str, ...] | None = None,
    epoch_steps: int = 1,
) -> Training:
    """Network, optimizer and step functions for the devices of `mesh`.

    `labels` says which organ each stored label value means, and names the classes where
    the config names none. `outputs` names the network's output nodes, by default the
    classes. `epoch_steps`, the steps of
    an epoch, decides when the learning rate decays.
    """
    config = with_classes(config, labels)
    outputs = tuple(config.classes) if outputs is None else outputs
    network = make_network(config, len(outputs), mesh)
    optimizer = make_optimizer_of(config, epoch_steps)
    steps = make_steps(config, labels, outputs, network, optimizer)
    return Training(network, optimizer, *steps)


def make_network(config: Config, num_outputs: int, mesh: Mesh) -> AttentionUNet3D:
    """The network of `config.model`, in the form that is fast on `mesh`'s devices."""
    network = build_network(
        config.model.to_dict(),
        num_classes=num_outputs,
        backend=mesh.devices.flat[0].platform,
        device_count=mesh.size,
    )
    check_divisible("--config.data.crop_shape", config.data.crop_shape, network.widths)
    return network


def make_optimizer_of(config: Config, epoch_steps: int) -> optax.GradientTransformation:
    """The optimizer of `config.optimizer`, its epochs counted in updates."""
    fields = config.optimizer.to_dict()
    decay_every = fields.pop("decay_every_epochs") * epoch_steps
    return make_optimizer(
        decay_every_steps=max(decay_every // fields["grad_accum_steps"], 1), **fields
    )


def make_steps(
    config: Config,
    labels: LabelMap,
    outputs: tuple[str, ...],
    network: AttentionUNet3D,
    optimizer: optax.GradientTransformation,
) -> tuple[TrainStep, EvalStep]:
    """The pure functions of a training and of an evaluation step."""
    classes = tuple(outputs.index(name) for name in config.classes)
    averaged = len({"classes": classes, "outputs": outputs}[config.loss.reduce_over])
    crops = dict(
        crop_shape=tuple(config.data.crop_shape),
        normalise_over=config.augment.normalise_over,
        label_lookup=label_lookup(labels, outputs, tuple(config.classes)),
        ignore_value=labels.ignore_value,
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
    return (
        partial(
            train_step,
            network=network,
            optimizer=optimizer,
            crops=partial(augment.augmented_crops, **crops, **ranges),
            loss=loss,
            auxiliary_weight=config.loss.auxiliary_weight,
        ),
        partial(
            eval_step,
            network=network,
            crops=partial(augment.centre_crops, **crops),
            classes=classes,
        ),
    )


def with_classes(config: Config, labels: LabelMap) -> Config:
    """Returns `config`, with all organs of the data as classes where it names none."""
    if config.classes:
        return config
    named: Any = copy.deepcopy(config)
    named.classes = ("background", *labels.organs)
    return named


def output_names(
    classes: Sequence[str], source: TrainedModel | None
) -> tuple[str, ...]:
    """Names the output nodes: the classes, or all nodes of `source`.

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
            f"--config.classes={as_typed(classes)}: must be background and then organs "
            f"of the prepared data, each once: {', '.join(labels.organs)}; for all of "
            f"them: --config.classes=background,{','.join(labels.organs)}"
        )
    return labels.lookup(outputs)


def compile_step(
    training: Training,
    mesh: Mesh,
    state: TrainState,
    batch: Any,
    key: jax.Array,
    options: dict[str, Any] | None = None,
) -> jax.stages.Compiled:
    """Compiles `(state, batch, key) -> (state, metrics)`; the step donates its state.

    `state`, `batch` and `key` are arrays or their shapes on `mesh`; `options` are the
    compiler's, besides those that the network's convolution needs.
    """
    everywhere = replicated(mesh)
    convolution = training.network.convolution
    options = dispatch.compiler_options(convolution) | (options or {})
    step = jax.jit(
        training.train_step,
        in_shardings=(everywhere, batch_shardings(mesh, batch), everywhere),
        out_shardings=everywhere,
        donate_argnums=0,
    )
    with dispatch.compilation_cache(convolution):
        return step.lower(state, batch, key).compile(compiler_options=options)


def _check_same_network(source: TrainedModel, model: dict[str, Any]) -> None:
    # Parameters are float32 whatever is computed in, and none keeps its first value.
    free = ("compute_dtype", "gate_initialisation")
    stored, given = (
        {"model": {field: x for field, x in fields.items() if field not in free}}
        for fields in (source.run["config"]["model"], model)
    )
    differing = differing_fields(stored, given)
    if differing:
        raise BadArguments(
            f"--config.init_from={source.workdir}: was trained with another "
            + "; ".join(differing)
        )
