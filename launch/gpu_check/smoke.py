"""Compares what this device computes with what a CPU computes.

    python -m launch.gpu_check.smoke OUT.json [bits]

Measures the rounding of float32 convolutions and products. Compares the forward pass
and three train steps of a small Attention U-Net in float32 and bfloat16 with the CPU's
in float32 (precision "highest"). Repeats the steps and compares the bits, and writes a
digest of the parameters to compare two processes. With "bits", leaves out the
comparison with the CPU. Ends with status 1 if a result differs by more than rounding
explains.
"""

import contextlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attunet_jax.ops.dispatch import conv3x3x3
from launch.gpu_check.parts import (
    DRY,
    Report,
    Setting,
    block,
    digest,
    relative,
    relative_of_trees,
    same_bits,
    the_device,
)

# A size that has every gate.
CROP, WIDTHS = ((16, 16, 16), (4, 6)) if DRY else ((32, 48, 48), (8, 16, 32))
LIMITS = {  # wide enough for rounding, not for errors
    "conv float32, precision highest": 1e-5,
    "float32 highest: logits, relative": 1e-4,
    "float32 highest: losses, largest difference": 1e-4,
    "float32 default: logits, relative": 1e-2,
    "float32 default: losses, largest difference": 1e-2,
    "bfloat16 default: logits, relative": 1e-1,
    "bfloat16 default: losses, largest difference": 3e-2,
}


def precise(name: str | None) -> AbstractContextManager[Any]:
    """Returns a context with this precision of products; None: the default."""
    return jax.default_matmul_precision(name) if name else contextlib.nullcontext()


def rounding(device: Any) -> dict[str, float]:
    """Returns relative errors of a convolution and a product.

    1e-7 is float32, 3e-4 is TF32.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 8, 24, 24, 16)).astype(np.float32)
    k = rng.normal(size=(3, 3, 3, 16, 16)).astype(np.float32)
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3, 3), (1, 2, 3))
    convolved = np.einsum("bdhwcxyz,xyzco->bdhwo", windows, k.astype(np.float64))
    rows, matrix = x.reshape(-1, 16), k[1, 1, 1]
    product = rows.astype(np.float64) @ matrix.astype(np.float64)
    results = {}
    for name in (None, "highest"):
        with precise(name), jax.default_device(device):
            y = jax.jit(lambda x, k: conv3x3x3(x, k, convolution="compiler"))(x, k)
            p = jax.jit(jnp.matmul)(rows, matrix)
        results[f"conv float32, precision {name}"] = relative(y, convolved)
        results[f"product float32, precision {name}"] = relative(p, product)
    return results


class Case:
    """The network on one device in one type and precision."""

    def __init__(self, where: Any, dtype: str, precision: str | None = None) -> None:
        self.label = f"{dtype} {precision or 'default'}"
        self.where, self.dtype, self.precision = where, dtype, precision

    def set_up(self, drawn: Any = None) -> Any:
        """Returns the drawn state, from which the other cases start too."""
        self.setting = Setting(
            "attention_unet",
            self.dtype,
            self.where,
            crop=CROP,
            batch=2,
            widths=WIDTHS,
            drawn=drawn,
        )
        return self.setting.drawn

    def compile(self, forward: bool) -> None:
        with precise(self.precision):
            if forward:
                self.forward = self.setting.forward()
            self.step = self.setting.step()

    def logits(self) -> np.ndarray:
        compiled, variables, image = self.forward
        return np.asarray(compiled(variables, image), np.float64)

    def three_steps(self) -> tuple[list[float], Any]:
        """Returns (losses, state after the third step)."""
        state, losses = self.setting.fresh_state(), []
        for _ in range(3):
            state, metrics = self.step(state, self.setting.batch, self.setting.key)
            losses.append(float(metrics["loss"]))
        return losses, block(state)


def compile_together(cases: list[Case], forward: bool) -> None:
    drawn = None
    for case in cases:
        drawn = case.set_up(drawn)
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(case.compile, forward) for case in cases]:
            done.result()


def bits_of(case: Case) -> tuple[list[float], Any, dict[str, Any]]:
    """Returns losses, state, and whether they are the same when repeated."""
    losses, state = case.three_steps()
    again = case.three_steps()
    results = {
        "losses": losses,
        "same bits when repeated": same_bits((losses, state), again),
        "digest": digest(state.params),
    }
    return losses, state, results


def main(out: str, only: str = "") -> int:
    report = Report(out)
    device, cpu = the_device(), jax.devices("cpu")[0]
    report.add(
        devices=[f"{d.platform}: {d.device_kind}" for d in jax.devices()],
        jax=jax.__version__,
        xla_flags=os.environ.get("XLA_FLAGS", ""),
    )
    report.add(**rounding(device))
    cases = [Case(device, "float32"), Case(device, "bfloat16")]
    reference = None
    if only != "bits":
        cases.insert(0, Case(device, "float32", "highest"))
        # Without a GPU, the first case itself.
        reference = cases[0] if DRY else Case(cpu, "float32", "highest")
    all_cases = list(dict.fromkeys([*cases, reference] if reference else cases))
    compile_together(all_cases, forward=reference is not None)
    report.add(compiled=f"{len(all_cases)} cases")
    truth = None
    if reference:
        truth = reference.logits(), *reference.three_steps()
        report.add(true_losses=truth[1])
    for case in cases:
        losses, state, results = bits_of(case)
        if truth:
            logits, true_losses, true_state = truth
            results |= {
                "logits, relative": relative(case.logits(), logits),
                "losses, largest difference": max(
                    abs(a - b) for a, b in zip(losses, true_losses, strict=True)
                ),
                "statistics, relative": relative_of_trees(
                    state.batch_stats, true_state.batch_stats
                ),
                "parameters, relative": relative_of_trees(
                    state.params, true_state.params
                ),
            }
        report.add(
            **{f"{case.label}: {name}": value for name, value in results.items()}
        )
    wrong = [
        name
        for name, most in LIMITS.items()
        if name in report.content and not report.content[name] <= most
    ]
    report.add(wrong=wrong, verdict="WRONG" if wrong else "right")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
