"""Measures what each form of attunet_jax/ops/cpu gains for a train step on a CPU.

    python -m launch.benchmark cpu_forms
    python -m launch.benchmark cpu_forms --forms=bf16_bits --compute_dtype=bfloat16

Times the step with all forms, the step with one form switched off, for each, and the
step with each implementation of the 3x3x3 convolution, in alternating rounds. Prints
the ratio of the seconds with a form to those without it, round by round: a form pays
where it is below 1. A form is switched off by its name in ATTUNET_CPU_FORMS_OFF, which
attunet_jax.ops reads when a step is traced.
"""

import itertools
import os
import sys
from collections.abc import Mapping
from typing import Any

from attunet_jax.files import temporary_folder
from launch import cli
from launch.benchmark import workload
from launch.benchmark.timing import Runner, Series, alternating, timed, with_warmup
from launch.flag_types import names_of, positive

SWITCH = "ATTUNET_CPU_FORMS_OFF"
FORMS = ("recompute", "conv_upsampled", "bf16_bits")
CONVOLUTIONS = ("onednn", "matrix", "compiler")
ALL_FORMS = "all forms"

FLAGS = cli.Flags(__doc__)
FLAGS.add("size", str, "small", "paper, small or tiny.")
FLAGS.add("network", str, "unet", "Network.", choices=workload.NETWORKS)
FLAGS.add("rounds", positive, 15, "Alternating rounds.")
FLAGS.add("compute_dtype", names_of(workload.DTYPES), workload.DTYPES, "Types.")
FLAGS.add("forms", names_of(FORMS, may_be_empty=True), FORMS, "Switched off in turn.")
FLAGS.add(
    "convolutions",
    names_of(CONVOLUTIONS, may_be_empty=True),
    CONVOLUTIONS,
    "Implementations to compare.",
)


def main(values: cli.Values) -> None:
    os.environ["JAX_PLATFORMS"] = "cpu"
    size = workload.find_size(values.size, backend="cpu")
    print("| type | with / without | ratio of seconds (quartiles) |")
    print("|---|---|---|", flush=True)
    with temporary_folder("attunet_cpu_forms_") as folder:
        dataset = workload.make_dataset(folder, size)
        for dtype in values.compute_dtype:

            def config(convolution: str = "auto", dtype: str = dtype) -> Any:
                return workload.make_config(values.network, size, dtype, convolution)

            runners = {ALL_FORMS: _train_step(config(), dataset)}
            for form in values.forms:
                runners[form] = _train_step(config(), dataset, forms_off=form)
            convolutions = available_convolutions(values.convolutions, dtype)
            for name in convolutions:
                runners[name] = _train_step(config(name), dataset)
            print(f"{dtype}: {len(runners)} steps alternate", file=sys.stderr)
            series = alternating(runners, values.rounds)
            lines = ratio_lines(dtype, series, values.forms, convolutions)
            print("\n".join(lines), flush=True)


def available_convolutions(
    convolutions: tuple[str, ...], dtype: str
) -> tuple[str, ...]:
    """Leaves out oneDNN's convolution where it is absent, and says so."""
    from attunet_jax.ops import dispatch  # late: --help needs no jax

    if dispatch.ONEDNN not in convolutions or dispatch.onednn_available(dtype):
        return convolutions
    print(f"{dtype}: not measured: onednn is not available here", file=sys.stderr)
    return tuple(name for name in convolutions if name != dispatch.ONEDNN)


def _train_step(config: Any, dataset: Any, forms_off: str = "") -> Runner:
    """Returns a runner of the step that is traced with these forms switched off."""
    import jax  # late: --help needs no jax

    from launch.benchmark.ours import Ours

    print(f"compiling; {SWITCH}={forms_off!r}, {config.model.convolution}",
          file=sys.stderr)  # fmt: skip
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = forms_off
    jax.clear_caches()  # functions traced with other forms
    try:
        step = Ours(config, dataset, jax.devices()[0]).train_step()
    finally:
        del os.environ[SWITCH]
        if before is not None:
            os.environ[SWITCH] = before
    return with_warmup(timed(step))


def ratio_lines(
    dtype: str,
    series: Mapping[str, Series],
    forms: tuple[str, ...],
    convolutions: tuple[str, ...],
) -> list[str]:
    """Returns a line of the table for each form and each pair of convolutions."""
    pairs = [(f"{form} / without", ALL_FORMS, form) for form in forms]
    pairs += [(f"{a} / {b}", a, b) for a, b in itertools.combinations(convolutions, 2)]
    lines = []
    for label, first, second in pairs:
        ratio = series[first].over(series[second])
        low, high = ratio.quartiles
        lines.append(
            f"| {dtype} | {label} | {ratio.median:.3f} ({low:.3f} to {high:.3f}) |"
        )
    return lines
