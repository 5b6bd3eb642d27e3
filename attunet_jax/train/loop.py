"""Runs a training from its config: data, steps, logging, validation, checkpoints."""

import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path

import jax

from attunet_jax import interrupts
from attunet_jax.checkpoint import (
    BEST_METRIC,
    CENTRED_ON_ORGANS,
    Checkpoints,
    NotFinite,
)
from attunet_jax.data.pipeline import HostBatch
from attunet_jax.distributed.consensus import raise_on_all
from attunet_jax.distributed.mesh import data_shard, to_global
from attunet_jax.distributed.processes import is_main_process, print_on_main
from attunet_jax.distributed.progress import PROGRESS
from attunet_jax.errors import BadArguments, Interrupted, one_line
from attunet_jax.files import local_path
from attunet_jax.ops import dispatch
from attunet_jax.train import goodput
from attunet_jax.train.config_checks import Config, epochs_text, warnings_of
from attunet_jax.train.experiment import compile_step
from attunet_jax.train.health import Health, check_metrics, diverged
from attunet_jax.train.metrics import (
    MetricWriter,
    ProcessLog,
    duration,
    read_rows,
    speed_text,
)
from attunet_jax.train.monitor import Monitor, Profile, StopVote
from attunet_jax.train.setup import (
    Run,
    as_begun,
    batches_from,
    describe_finished,
    init_or_restore,
    setup,
)
from attunet_jax.train.state import TrainState, copy_of, parameter_count
from attunet_jax.train.validation import Validation
from attunet_jax.train.workdir import WorkdirLock, describe_run

# Steps dispatched at once: enough to hide the host, few enough that a signal is
# answered soon.
IN_FLIGHT = 2
WAITS_FOR = "the step in progress and its checkpoint"


def train(
    config: Config,
    workdir: Path,
    *,
    profile_steps: tuple[int, int] | None = None,
    on_validation: Callable[[bool], object] = lambda last: None,
    on_metrics: Callable[[int, dict[str, float]], object] = lambda step, metrics: None,
    cache_dir: Path | None = None,
    program_began_s: float | None = None,
    on_files: Callable[[], object] = lambda: None,
) -> None:
    """Trains in `workdir` until the config's last step, from its newest checkpoint.

    With several processes each calls this; process 0 writes the run's files and the
    terminal, the others a log each. `profile_steps` are the first and the last step to
    record into `workdir/profile`, in process 0. `on_validation(last)` is called there
    when the rows of a validation are in metrics.jsonl, and at the end,
    `on_metrics(step, metrics)` with each row. `on_files()` is called in every process
    before a checkpoint is begun, when all rows up to its step are in its files, and
    after a validation. Data in a bucket is copied into `cache_dir`, see
    `storage.mirror`. `program_began_s` is when a program began that is there for this
    training (Unix time): its start counts as the run's.

    Raises `BadArguments`, `BadData`, or `Interrupted` after a signal (all saved).
    """
    began = goodput.begin(program_began_s)
    several = jax.process_count() > 1
    # Several processes stop together, after a step. One alone has nothing to save
    # before its first, and ends at once.
    with interrupts.deferred(WAITS_FOR) if several else nullcontext() as stop:
        workdir = local_path(workdir)
        config, changed = as_begun(config, workdir)
        run = setup(config, workdir, cache_dir)
        for line in changed:
            print_on_main(line)
        lock = raise_on_all(lambda: _lock(workdir))
        # A single process reports everything on the terminal.
        logged = several or config.train.log_cases
        with (
            lock,
            closing(ProcessLog(workdir, jax.process_index(), enabled=logged)) as log,
            jax.set_mesh(run.mesh),
            Checkpoints(
                workdir / "checkpoints",
                keep_latest=config.train.keep_latest,
                keep_best=config.train.keep_best,
                keep_steps=config.train.keep_steps,
                clean_up=True,
            ) as checkpoints,
        ):
            _train(
                run,
                began,
                workdir,
                checkpoints,
                stop,
                log,
                profile_steps,
                on_validation,
                on_metrics,
                on_files,
            )


def _lock(workdir: Path) -> AbstractContextManager:
    """Makes the folder and, in the main process, locks it."""
    workdir.mkdir(parents=True, exist_ok=True)
    return closing(WorkdirLock(workdir)) if is_main_process() else nullcontext()


def _train(
    run: Run,
    began: goodput.Start,
    workdir: Path,
    checkpoints: Checkpoints,
    stop: interrupts.Deferral | None,
    log: ProcessLog,
    profile_steps: tuple[int, int] | None,
    on_validation: Callable[[bool], object],
    on_metrics: Callable[[int, dict[str, float]], object],
    on_files: Callable[[], object],
) -> None:
    config, experiment = run.config.train, run.experiment
    with PROGRESS.doing("restores", pause=True):
        state, start, note = init_or_restore(run, checkpoints, workdir)
    _check_profile(profile_steps, start + 1, experiment.steps)
    if start >= experiment.steps:
        print_on_main(describe_finished(run, checkpoints, start))
        return
    if is_main_process():
        describe_run(workdir, experiment.run)
    _print_start(run, state, start, note, log)
    account = goodput.Goodput(_rows_of(workdir), start, began)

    validation = Validation(run.config, experiment, run.dataset, run.mesh)
    for line in validation.description():
        print_on_main(line)
    batches = batches_from(run, start)
    host_batch = next(batches)
    batch = to_global(host_batch, run.mesh)
    with PROGRESS.doing("compiles", pause=True):
        # All together, or the first step would wait for those that still compile.
        compiled_step = raise_on_all(lambda: _compile(run, state, batch))
    profile = Profile(workdir, profile_steps if is_main_process() else None)
    in_flight: deque = deque()
    health = Health()
    rate = run.config.optimizer.learning_rate

    def save(step: int, dice: float | None = None) -> None:
        scored = {} if dice is None else {BEST_METRIC: dice, CENTRED_ON_ORGANS: 1.0}
        writer.flush()
        on_files()
        try:
            # A copy: the next step reuses the state's memory while Orbax writes.
            checkpoints.save(
                step,
                copy_of(state),
                position={"step": step, "manifest_sha256": run.dataset.manifest_sha256},
                run=experiment.run,
                metrics=scored or None,
            )
        except NotFinite as error:
            problem = one_line(error).rpartition(": ")[2]
            raise diverged(problem, step, checkpoints, workdir, rate) from None
        log.line(f"step {step}: saves a checkpoint")

    with (
        nullcontext(stop) if stop else interrupts.deferred(WAITS_FOR) as stop,
        closing(batches),
        closing(profile),
        MetricWriter(
            workdir,
            step=start,
            steps=experiment.steps,
            enabled=is_main_process(),
            account=account.row(),
            also=on_metrics,
        ) as writer,
        Monitor(
            step=start,
            batch_size=run.config.data.batch_size,
            hang_limit_s=config.hang_limit_s,
        ) as monitor,
    ):
        timer = monitor.timer
        vote = StopVote(stop, checkpoints, run.mesh, run.hosts)
        for step in range(start + 1, experiment.steps + 1):
            last = step == experiment.steps
            if config.log_cases:
                log.line(f"step {step}: cases {_case_ids(run, host_batch)}")
            profile.before(step)
            monitor.begin_step(step)
            state, metrics = compiled_step(state, batch, run.step_key)

            vote.send(step, *monitor.step_times())
            in_flight.append(metrics)
            if len(in_flight) > IN_FLIGHT:
                with timer.spending("devices"):
                    jax.block_until_ready(in_flight.popleft())
            if late := monitor.straggler(vote.receive(IN_FLIGHT), run.hosts):
                log.line(late)
                print_on_main(f"  {late}")

            with timer.spending("pause"):
                if report := profile.after(step, state):
                    print(report, flush=True)
            logs = step % config.log_every_steps == 0 or last
            if logs:
                with timer.spending("devices"):
                    values = {k: float(v) for k, v in metrics.items()}
                if problem := check_metrics(values):
                    raise diverged(problem, step, checkpoints, workdir, rate)
                if dead := health.gradient(step, values["gradient_norm"]):
                    print_on_main(dead)
                speed = timer.speed(step)
                log.line(f"step {step}: {speed_text(speed)}")
                writer.log(step, values, speed, timer.remaining_s(experiment.steps))

            validates = step % config.evaluate_every_steps == 0 or last
            saves = (
                step % config.checkpoint_every_steps == 0 or step in config.keep_steps
            )
            if validates:
                with timer.spending("validation"):
                    dice = validation.dice(state)
                if dice:
                    writer.record(step, {f"held_out_{k}": v for k, v in dice.items()})
                    print_on_main("  held-out " + _named(dice))
                    if found := health.validation(step, dice, last=last):
                        print_on_main(found)
                with timer.spending("saving"):
                    save(step, dice.get("dice"))
                with timer.spending("pause"):
                    if is_main_process():
                        on_validation(last)
                    on_files()
            elif saves:
                with timer.spending("saving"):
                    save(step)
            checkpoints.check()

            if reason := vote.reason(step):
                with timer.spending("saving"):
                    save(step)
                    checkpoints.wait()
                log.line(f"step {step}: stopped by {reason}, everything saved")
                writer.record(step, account.row(clean_stop=True))
                print_on_main(account.text())
                raise Interrupted(
                    f"{reason} stopped training; saved at step {step} of "
                    f"{experiment.steps}: the same command continues"
                )
            if not last:
                if logs or validates or saves or account.is_due():
                    writer.record(step, account.row())
                with timer.spending("data"):
                    host_batch = next(batches)
                batch = to_global(host_batch, run.mesh)
        with timer.spending("saving"):
            checkpoints.wait()
        log.line(f"step {experiment.steps}: done")
        writer.record(experiment.steps, account.row(clean_stop=True))
        print_on_main(account.text())
        if len(run.hosts) == 1:
            stop.check("all steps are done and saved")


def _rows_of(workdir: Path) -> list[dict]:
    """The metrics of the run so far, in the main process; what is missing is none."""
    path = workdir / "metrics.jsonl"
    return read_rows(path) if is_main_process() and path.is_file() else []


def _check_profile(steps: tuple[int, int] | None, first: int, last: int) -> None:
    """Raises `BadArguments` where a step to record is none of this run's."""
    if steps and not first <= steps[0] <= steps[1] <= last:
        there = f"steps {first} to {last}" if first <= last else "no more steps"
        raise BadArguments(
            f"--profile_steps={steps[0]}:{steps[1]}: this run has {there}"
        )


def _print_start(
    run: Run, state: TrainState, start: int, note: str | None, log: ProcessLog
) -> None:
    experiment, processes = run.experiment, len(run.hosts)
    train_cases = len(experiment.train_ids)
    if note:
        print_on_main(note)
    print_on_main(
        f"{experiment.run['config']['name']}: {parameter_count(state.params):,} "
        f"parameters, {train_cases} training and "
        f"{len(experiment.validation_ids)} validation cases, mesh "
        f"{dict(run.mesh.shape)}, "
        + (f"{processes} processes, " if processes > 1 else "")
        + (f"continuing at step {start} of" if start else "new run,")
        + " "
        + epochs_text(experiment.steps, run.config.data.batch_size, train_cases)
    )
    for line in warnings_of(run.config, train_cases):
        print_on_main(line)
    shard_index, shard_count = data_shard(run.mesh)
    log.line(
        f"begins on {run.hosts[jax.process_index()]} as process {jax.process_index()} "
        f"of {jax.process_count()} at step {start}, {jax.local_device_count()} "
        f"devices, shard {shard_index} of {shard_count} of each batch"
    )


def _compile(run: Run, state: TrainState, batch: dict[str, jax.Array]):
    """Compiles the train step before the clock of the steps starts."""
    began = time.perf_counter()
    compiled = compile_step(run.experiment, run.mesh, state, batch, run.step_key)
    convolution = run.experiment.network.convolution
    every_start = dispatch.compiled_at_every_start(convolution)
    print_on_main(
        f"compiled in {duration(time.perf_counter() - began)}, convolution "
        f"{convolution}" + (" (compiled at every start)" if every_start else "")
    )
    return compiled


def _case_ids(run: Run, host_batch: HostBatch) -> str:
    return " ".join(run.dataset.case_ids[i] for i in host_batch["case_index"])


def _named(values: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in values.items())
