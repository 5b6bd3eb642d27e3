"""Says what a run would take and whether it fits; trains and writes nothing.

Memory is estimated in seconds (`train/estimate.py`), or read from the compiled step.
"""

from collections import Counter
from collections.abc import Sequence

import jax

from attunet_jax.distributed.consensus import raise_on_all
from attunet_jax.distributed.mesh import data_shard, to_global
from attunet_jax.memory.devices import DeviceMemory, device_memory
from attunet_jax.train.config_checks import epochs_text, warnings_of
from attunet_jax.train.estimate import ACCURACY, Estimate, estimate, whole_scan_vox
from attunet_jax.train.experiment import compile_step
from attunet_jax.train.setup import Run, batches_from
from attunet_jax.train.state import TrainState, parameter_count
from attunet_jax.train.validation import nowhere_warning

MIB = 2**20
COMPILE = "--dry_run=compile"


def dry_run(run: Run, *, compiled: bool, memory_gib: float | None = None) -> str:
    """Describes what `run` needs on these devices.

    With `memory_gib` whether it fits devices of so much memory; where these are CPUs,
    as GPUs would compute it. All processes call it; each returns the same text.
    """
    device = run.mesh.devices.flat[0]
    backend = jax.default_backend()
    asked = "cuda" if memory_gib and backend == "cpu" and not compiled else None
    memory = device_memory(jax.local_devices()[0], memory_gib)
    state = run.abstract_state
    lines = _described(run, state)
    notes = []
    if compiled:
        needs = _compiled_needs(run, state)
        lines |= needs
        if memory:
            lines["memory there is"] = (
                f"{_mib(memory.bytes)} a device ({memory.source})"
            )
        if backend == "cpu":
            notes.append(
                "The memory is that of the program compiled for CPU: it shows how "
                "memory scales with devices,\nnot what a GPU or TPU needs (TPU layouts "
                "took 4 times as much where both were compiled)."
            )
    else:
        found = raise_on_all(
            lambda: estimate(
                run.config,
                run.dataset.labels,
                run.mesh,
                outputs=tuple(run.experiment.run["outputs"]),
                platform=asked,
                state=state,
            )
        )
        lines |= _estimated(found)
        lines |= _verdict(run, found, memory, asked or device.platform)
        if memory and (asked or device.platform) != "tpu":
            lines["whole scans"] = _whole_scans(run, state, memory.bytes, asked)
        if asked:
            notes.append(
                "Estimated for a GPU, because --device_memory_gib was given and the "
                "devices here are CPUs."
            )
    width = max(map(len, lines))
    text = "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())
    for line in (*_warnings(run), *notes):
        text += f"\n{line}"
    return text + "\nDry run: nothing was trained or written."


def _described(run: Run, state: TrainState) -> dict[str, str]:
    data, experiment = run.config.data, run.experiment
    kinds = Counter(device.device_kind for device in jax.devices())
    per_host = Counter(zip(run.hosts, range(len(run.hosts)), strict=True))
    train_cases = len(experiment.train_ids)
    rows = data.batch_size // data_shard(run.mesh)[1]
    return {
        "mesh": "  ".join(f"{k} {n}" for k, n in run.mesh.shape.items()),
        "processes": ", ".join(f"{i} on {host}" for host, i in per_host),
        "devices": f"{jax.device_count()} ({_counted(kinds)}), "
        f"{jax.local_device_count()} a process, {run.mesh.size} in use",
        "batch": f"{data.batch_size} cases of {_size(data.crop_shape)}, "
        f"{rows} read by each process",
        "parameters": f"{parameter_count(state.params):,}",
        "outputs": ", ".join(experiment.run["outputs"]),
        "cases": f"{train_cases} training, {len(experiment.validation_ids)} validation",
        "steps": epochs_text(experiment.steps, data.batch_size, train_cases),
    }


def _warnings(run: Run) -> list[str]:
    experiment = run.experiment
    lines = warnings_of(run.config, len(experiment.train_ids))
    validation = experiment.validation_ids
    absent = run.dataset.absent(validation, experiment.organs)
    nowhere = [organ for organ, n in absent.items() if 0 < n == len(validation)]
    if nowhere:
        lines.append(nowhere_warning(nowhere, len(nowhere) < len(absent)))
    return lines


def _compiled_needs(run: Run, state: TrainState) -> dict[str, str]:
    """The compiler's numbers; empty if the backend does not report them."""
    batches = batches_from(run, 0)
    with jax.set_mesh(run.mesh):
        try:
            batch = to_global(next(batches), run.mesh)
        finally:
            batches.close()
        compiled = compile_step(run.experiment, run.mesh, state, batch, run.step_key)
    memory = compiled.memory_analysis()
    if memory is None:
        return {}
    state_and_batch = memory.argument_size_in_bytes
    new = memory.output_size_in_bytes - memory.alias_size_in_bytes
    work = memory.temp_size_in_bytes + new
    return {
        "memory per device": f"{_mib(state_and_batch + work)} (compiled): "
        f"state and batch {_mib(state_and_batch)}, work {_mib(work)}"
    }


def _estimated(found: Estimate) -> dict[str, str]:
    return {
        "memory per device": f"{_mib(found.bytes)} (estimated): parameters and "
        f"optimizer {_mib(found.state)}, batch {_mib(found.batch)}, activations and "
        f"gradients {_mib(found.work)}"
    }


def _verdict(
    run: Run, found: Estimate, memory: DeviceMemory | None, platform: str
) -> dict[str, str]:
    """Whether it fits, and the largest crop that does."""
    if memory is None:
        return {"fits": "not known: --device_memory_gib=GIB says what a device has"}
    needs, there = found.bytes, memory.bytes
    lines = {"memory there is": f"{_mib(there)} a device ({memory.source})"}
    if needs > there * (1 + ACCURACY):
        answer = "no: a smaller crop or batch, --config.model.remat=True, or more "
        answer += "devices (--config.mesh.spatial)"
    elif platform == "tpu":
        answer = f"not known: a TPU's layouts take several times as much; {COMPILE}"
    elif needs * (1 + ACCURACY) > there:
        answer = f"hardly: closer than the estimate is; {COMPILE} tells"
    else:
        answer = f"yes, in {needs / there:.0%} of it"
    lines["fits"] = answer
    if platform != "tpu":
        lines["largest crop"] = _largest(run, found, there)
    return lines


def _largest(run: Run, found: Estimate, available: int) -> str:
    halvings = 2 ** (len(run.config.model.widths) - 1)
    divisors = (halvings * run.mesh.shape["spatial"], halvings, halvings)
    largest = found.largest_crop(available, divisors)
    if largest is None:
        return f"none: not even {_size(divisors)} fits"
    crop, read = (",".join(map(str, shape)) for shape in largest)
    return (
        f"{crop.replace(',', 'x')} (estimated, with room for an error of "
        f"{ACCURACY:.0%}): --config.data.crop_shape={crop} "
        f"--config.data.read_shape={read}"
    )


def _whole_scans(run: Run, state: TrainState, available: int, asked: str | None) -> str:
    most = raise_on_all(
        lambda: whole_scan_vox(
            run.config,
            run.dataset.labels,
            run.mesh,
            available,
            outputs=tuple(run.experiment.run["outputs"]),
            platform=asked,
            state=state,
        )
    )
    return (
        f"prediction without windows up to {most / 1e6:,.1f} million voxels "
        f"(estimated): --config.predict.whole_volume_limit_vox={most // 10**6 * 10**6}"
    )


def _mib(count: int) -> str:
    return f"{count / MIB:,.1f} MiB"


def _counted(kinds: Counter) -> str:
    return ", ".join(f"{count} x {kind}" for kind, count in kinds.items())


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
