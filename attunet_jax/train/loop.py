"""The story of a run: a config and a working folder in, checkpoints and metrics out."""

import json
import math
import time
from collections import deque
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import jax

from attunet_jax.checkpoint import BEST_METRIC, Checkpoints
from attunet_jax.distributed.consensus import checked_by_all
from attunet_jax.distributed.mesh import data_shard, to_global
from attunet_jax.distributed.step_exchange import Beat, Pulse
from attunet_jax.errors import BadArguments, Interrupted
from attunet_jax.train.experiment import compile_step
from attunet_jax.train.metrics import Journal, ProcessLog, duration, speed
from attunet_jax.train.monitor import Pace, Profile, Sleepless, Stalls, StopRequest
from attunet_jax.train.setup import Run, batches_from, first_state, prepare
from attunet_jax.train.state import TrainState, copy_of, parameter_count
from attunet_jax.train.trained import FinishedRun
from attunet_jax.train.validation import HeldOut
from attunet_jax.train.workdir import Exclusive, environment

# Steps that may be under way at once: enough to hide the host, few enough that a
# signal is answered soon.
IN_FLIGHT = 2


def train(
    config: Any, workdir: Path, *, profile_steps: tuple[int, int] | None = None
) -> None:
    """Trains, or goes on training, in `workdir` until `config`'s last step.

    In several processes each calls this; process 0 writes the run's files and the
    terminal, the others a log of their own. `profile_steps` are the first and the last
    step to record into `workdir/profile`, in process 0.

    Raises `BadArguments`, `BadData`, or `Interrupted` after a signal (all saved).
    """
    with StopRequest() as stop, Sleepless() as sleepless:
        run = prepare(config)
        alone = checked_by_all(lambda: _enter(workdir))
        # One process alone says all on the terminal.
        logged = jax.process_count() > 1 or config.train.log_cases
        with (
            alone,
            closing(ProcessLog(workdir, jax.process_index(), logged)) as log,
            jax.set_mesh(run.mesh),
            Checkpoints(
                workdir / "checkpoints",
                keep_latest=config.train.keep_latest,
                keep_best=config.train.keep_best,
                clean_up=True,
            ) as checkpoints,
        ):
            _train(run, workdir, checkpoints, stop, sleepless, log, profile_steps)


def _enter(workdir: Path) -> Any:
    """Makes the folder; keeps others out of it for as long as the context lasts."""
    workdir.mkdir(parents=True, exist_ok=True)
    return closing(Exclusive(workdir)) if jax.process_index() == 0 else nullcontext()


def _train(
    run: Run,
    workdir: Path,
    checkpoints: Checkpoints,
    stop: StopRequest,
    sleepless: Sleepless,
    log: ProcessLog,
    profile_steps: tuple[int, int] | None,
) -> None:
    config, plan = run.config, run.plan
    leader = jax.process_index() == 0
    state, position, new_arrays = first_state(run, checkpoints, workdir)
    if leader:
        if run.source is not None and new_arrays is not None:
            _say_what_was_taken(run.source, state, new_arrays)
        _describe(run, workdir, state, position)
    shard_index, shard_count = data_shard(run.mesh)
    log.line(
        f"begins on {run.hosts[jax.process_index()]} as process {jax.process_index()} "
        f"of {jax.process_count()} at step {position}, {jax.local_device_count()} "
        f"devices, shard {shard_index} of {shard_count} of each batch"
    )
    if position >= plan.steps:
        return

    # Compile once, before the clock starts.
    batches = batches_from(run, position)
    host_batch = next(batches)
    batch = to_global(host_batch, run.mesh)
    began = time.perf_counter()
    compiled_step = compile_step(plan, run.mesh, state, batch, run.step_key)
    held_out = HeldOut(config, plan, run.dataset, run.mesh)
    pulse = Pulse(run.mesh)
    if leader:
        print(f"compiled in {duration(time.perf_counter() - began)}", flush=True)

    pace = Pace(step=position, batch_size=config.data.batch_size)
    stalls = Stalls()

    def save(step: int, metrics: dict[str, float] | None) -> None:
        # A copy: the next step reuses the state's memory while Orbax writes.
        checkpoints.save(
            step,
            copy_of(state),
            position={"step": step, "manifest_sha256": run.dataset.manifest_sha256},
            run=plan.run,
            metrics=metrics,
        )
        log.line(f"step {step}: saves a checkpoint")

    under_way: deque = deque()
    profile = Profile(workdir, profile_steps if leader else None)
    with (
        closing(batches),
        closing(profile),
        Journal(workdir, step=position, steps=plan.steps)
        if leader
        else nullcontext() as journal,
    ):
        for step in range(position + 1, plan.steps + 1):
            if config.train.log_cases:
                log.line(f"step {step}: cases {_names(run, host_batch)}")
            profile.before(step)
            state, metrics = compiled_step(state, batch, run.step_key)
            step_s, own_s = pace.stepped()
            pulse.send(step, stop.number, step_s, max(own_s, sleepless.worst_s()))
            under_way.append(metrics)
            if len(under_way) > IN_FLIGHT:
                with pace.spending("devices"):
                    jax.block_until_ready(under_way.popleft())
            beat = pulse.receive(IN_FLIGHT)
            _tell(stalls, beat, run, log, leader)
            with pace.spending("pause"):
                if said := profile.after(step, state):
                    print(said, flush=True)
            if step % config.train.log_every_steps == 0 or step == plan.steps:
                with pace.spending("devices"):
                    numbers = {k: float(v) for k, v in metrics.items()}
                _refuse_divergence(numbers["loss"], step)
                figures = pace.figures(step)
                log.line(f"step {step}: {speed(figures)}")
                if journal:
                    journal.log(step, numbers, figures, pace.left_s(plan.steps))
            with pace.spending("pause"):
                if step % config.train.evaluate_every_steps == 0 or step == plan.steps:
                    dice = held_out.dice(state)
                    if journal and dice:
                        journal.record(
                            step, {f"held_out_{k}": v for k, v in dice.items()}
                        )
                        print("  held-out " + _named(dice), flush=True)
                    save(step, {BEST_METRIC: dice["dice"]} if dice else None)
                elif step % config.train.checkpoint_every_steps == 0:
                    save(step, None)
                checkpoints.check()
            asked = _who_stops(stop, beat, checkpoints, step, run.hosts)
            if asked and step < plan.steps:
                save(step, None)
                checkpoints.wait()
                log.line(f"step {step}: stopped by {asked}, everything saved")
                raise Interrupted(
                    f"{asked} stopped training; saved at step {step} of {plan.steps}: "
                    "the same command goes on"
                )
            if step < plan.steps:
                with pace.spending("data"):
                    host_batch = next(batches)
                batch = to_global(host_batch, run.mesh)
        checkpoints.wait()
        log.line(f"step {plan.steps}: done")


def _who_stops(
    stop: StopRequest,
    beat: Beat | None,
    checkpoints: Checkpoints,
    step: int,
    hosts: list[str],
) -> str | None:
    """Who asks to stop after this step, in words; the same step in all processes."""
    if len(hosts) == 1:
        return stop.name
    if beat is not None and (asked := beat.who_stops()):
        process, name = asked
        return f"{name} to process {process} ({hosts[process]})"
    return "the platform" if checkpoints.reached_preemption(step) else None


def _tell(
    stalls: Stalls, beat: Beat | None, run: Run, log: ProcessLog, leader: bool
) -> None:
    if beat is None:
        return
    notice = stalls.notice(beat.step, beat.step_s, beat.own_s, run.hosts)
    if notice:
        log.line(notice)
        if leader:
            print(f"  {notice}", flush=True)


def _refuse_divergence(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise BadArguments(
            f"the loss is {loss} at step {step}: start again with a smaller "
            "config.optimizer.learning_rate"
        )


def _describe(run: Run, workdir: Path, state: TrainState, position: int) -> None:
    plan = run.plan
    for name, content in (("config", plan.run), ("environment", environment())):
        beside = workdir / f".{name}.json.new"
        beside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        beside.replace(workdir / f"{name}.json")
    processes = len(run.hosts)
    print(
        f"{plan.run['config']['name']}: {parameter_count(state.params):,} parameters, "
        f"{len(plan.train_ids)} training and {len(plan.validation_ids)} validation "
        f"cases, mesh {dict(run.mesh.shape)}, "
        + (f"{processes} processes, " if processes > 1 else "")
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


def _names(run: Run, host_batch: dict) -> str:
    return " ".join(run.dataset.case_ids[i] for i in host_batch["case_index"])


def _named(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
