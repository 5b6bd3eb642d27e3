"""The story of a run: a config and a working folder in, checkpoints and metrics out."""

import json
import math
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from attunet_jax.checkpoint import BEST_METRIC, Checkpoints, with_sharding
from attunet_jax.data.dataset import Dataset, open_dataset
from attunet_jax.data.pipeline import training_batches
from attunet_jax.errors import BadArguments, BadData, Interrupted
from attunet_jax.sharding import (
    batch_shardings,
    data_shard,
    make_mesh,
    replicated,
    to_global,
)
from attunet_jax.train.environment import environment
from attunet_jax.train.fine_tuning import begin_from
from attunet_jax.train.finished import FinishedRun, load_finished
from attunet_jax.train.held_out import HeldOut
from attunet_jax.train.journal import Journal, duration
from attunet_jax.train.plan import Plan, differing_fields, make_plan
from attunet_jax.train.state import (
    TrainState,
    draw_state,
    initial_state,
    parameter_count,
)
from attunet_jax.train.stop import StopRequest

# Steps that may be under way at once: enough to hide the host, few enough that a
# signal is answered soon.
IN_FLIGHT = 2


def train(config: Any, workdir: Path) -> None:
    """Trains, or goes on training, in `workdir` until `config`'s last step.

    Raises `BadArguments`, `BadData`, or `Interrupted` after a signal (all saved).
    """
    # Data, mesh, functions.
    dataset = open_dataset(Path(config.data.directory))
    mesh = make_mesh(config.mesh.data, config.mesh.spatial)
    source = load_finished(Path(config.init_from), {}) if config.init_from else None
    plan = make_plan(config, dataset, mesh.size, source)
    shard_index, shard_count = data_shard(mesh)
    check_fits_mesh(config, mesh)
    leader = jax.process_index() == 0

    workdir.mkdir(parents=True, exist_ok=True)
    with (
        jax.set_mesh(mesh),
        Checkpoints(
            workdir / "checkpoints",
            keep_latest=config.train.keep_latest,
            keep_best=config.train.keep_best,
            clean_up=True,
        ) as checkpoints,
        StopRequest() as stop,
    ):
        # State: no device ever holds more than its share, not even at the start.
        everywhere = replicated(mesh)
        seed = jax.random.key(config.seed)
        init_key, step_key = jax.random.split(seed)

        def begin(key: jax.Array) -> TrainState:
            return initial_state(key, plan.network, plan.optimizer)

        # A run begins in one of three ways: 1. it goes on from its newest whole
        # checkpoint; 2. from random parameters; 3. from those of a finished run.
        _refuse_other_run(checkpoints, plan.run["config"], workdir)
        abstract = with_sharding(jax.eval_shape(begin, init_key), everywhere)
        restored = checkpoints.restore_newest(abstract)
        if restored is None:
            state, position = draw_state(begin, init_key, everywhere), 0
            if source is not None:
                state, new = begin_from(source, state, tuple(plan.run["outputs"]))
                if leader:
                    _say_what_was_taken(source, state, new)
        else:
            state, position = restored[0], restored[1]["step"]
            _refuse_other_data(restored[1], dataset, workdir)
        if leader:
            _describe(plan, workdir, state, position, mesh.shape)
        if position >= plan.steps:
            return

        # The data stream goes on where the state stands: its position is the step.
        batches = training_batches(
            dataset,
            plan.train_ids,
            batch_size=config.data.batch_size,
            crop_shape=tuple(config.data.read_shape),
            least_shape=tuple(config.data.crop_shape),
            padding=config.data.padding,
            foreground_fraction=config.data.foreground_fraction,
            seed=config.seed,
            shard_index=shard_index,
            shard_count=shard_count,
            start_step=position,
            threads=config.data.threads,
            prefetch=config.data.prefetch_batches,
        )
        batch = to_global(next(batches), mesh)

        # Compile once, before the clock starts.
        began = time.perf_counter()
        step_sharding = batch_shardings(mesh, batch)
        compiled_step = (
            jax.jit(
                plan.train_step,
                in_shardings=(everywhere, step_sharding, everywhere),
                out_shardings=everywhere,
                donate_argnums=0,
            )
            .lower(state, batch, step_key)
            .compile()
        )
        held_out = HeldOut(config, plan, dataset, mesh)
        if leader:
            print(f"compiled in {duration(time.perf_counter() - began)}", flush=True)
        journal = Journal(workdir, step=position, steps=plan.steps) if leader else None

        def save(step: int, metrics: dict[str, float] | None) -> None:
            # A copy: the next step reuses the state's memory while Orbax writes.
            checkpoints.save(
                step,
                jax.tree.map(jax.numpy.copy, state),
                position={"step": step, "manifest_sha256": dataset.manifest_sha256},
                run=plan.run,
                metrics=metrics,
            )

        try:
            under_way: deque = deque()
            for step in range(position + 1, plan.steps + 1):
                state, metrics = compiled_step(state, batch, step_key)
                under_way.append(metrics)
                if len(under_way) > IN_FLIGHT:
                    jax.block_until_ready(under_way.popleft())
                if step % config.train.log_every_steps == 0 or step == plan.steps:
                    figures = {k: float(v) for k, v in metrics.items()}
                    if not math.isfinite(figures["loss"]):
                        raise BadArguments(
                            f"the loss is {figures['loss']} at step {step}: start "
                            "again with a smaller config.optimizer.learning_rate"
                        )
                    if journal:
                        journal.log(step, figures)
                if step % config.train.evaluate_every_steps == 0 or step == plan.steps:
                    began = time.perf_counter()
                    dice = held_out.dice(state)
                    if journal:
                        journal.record(
                            step, {f"held_out_{k}": v for k, v in dice.items()}
                        )
                        if dice:
                            print("  held-out " + _named(dice), flush=True)
                        journal.paused(time.perf_counter() - began)
                    save(step, {BEST_METRIC: dice["dice"]} if dice else None)
                elif step % config.train.checkpoint_every_steps == 0:
                    save(step, None)
                if _must_stop(stop, checkpoints, step) and step < plan.steps:
                    save(step, None)
                    checkpoints.wait()
                    raise Interrupted(
                        f"{stop.name or 'the platform'} stopped training; saved at "
                        f"step {step} of {plan.steps}: the same command goes on"
                    )
                if step < plan.steps:
                    began = time.perf_counter()
                    host_batch = next(batches)
                    if journal:
                        journal.waited(time.perf_counter() - began)
                    batch = to_global(host_batch, mesh)
        finally:
            if journal:
                journal.close()
            _close(batches)


def check_fits_mesh(config: Any, mesh: Any) -> None:
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


def _must_stop(stop: StopRequest, checkpoints: Checkpoints, step: int) -> bool:
    if jax.process_count() > 1:
        return checkpoints.reached_preemption(step)  # all agree on one step
    return stop.name is not None


def _refuse_other_run(checkpoints: Checkpoints, config: dict, workdir: Path) -> None:
    steps = checkpoints.steps()
    if not steps:
        return
    try:
        there = checkpoints.run(steps[-1])["config"]
    except BadData:
        return  # damaged: restoring names it and goes on with the one before
    differing = differing_fields(there, config)
    if differing:
        raise BadArguments(
            f"{workdir} holds a run with another {'; '.join(differing)}: "
            "use another --workdir"
        )


def _refuse_other_data(position: dict, dataset: Dataset, workdir: Path) -> None:
    if position["manifest_sha256"] != dataset.manifest_sha256:
        raise BadArguments(
            f"{workdir} was trained on other data than {dataset.directory} (its "
            "manifest differs): use another --workdir"
        )


def _describe(
    plan: Plan, workdir: Path, state: TrainState, position: int, mesh_shape: Any
) -> None:
    for name, content in (("config", plan.run), ("environment", environment())):
        beside = workdir / f".{name}.json.new"
        beside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        beside.replace(workdir / f"{name}.json")
    print(
        f"{plan.run['config']['name']}: {parameter_count(state.params):,} parameters, "
        f"{len(plan.train_ids)} training and {len(plan.validation_ids)} validation "
        f"cases, mesh {dict(mesh_shape)}, "
        + (f"going on at step {position} of" if position else "new run,")
        + f" {plan.steps} steps",
        flush=True,
    )


def _say_what_was_taken(source: FinishedRun, state: TrainState, new: list[str]) -> None:
    count = len(jax.tree.leaves((state.params, state.batch_stats)))
    print(
        f"begins from {source.workdir}, step {int(source.state.step)}: took "
        f"{count - len(new)} of {count} arrays"
        + (f"; new: {', '.join(new)}" if new else ""),
        flush=True,
    )


def _named(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in figures.items())


def _close(batches: Iterator) -> None:
    close = getattr(batches, "close", None)
    if close:
        close()
