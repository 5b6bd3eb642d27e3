"""Does this device compute what a CPU computes?

    python -m launch.gpu_check.smoke OUT.json [bits]

How float32 convolutions and products are rounded; forward pass and three training
steps of a small Attention U-Net in float32 and bfloat16 against the same on the CPU in
float32 (products "highest"); the same once more, for equal bits; a digest of the
parameters, to compare two processes. With "bits", all but what is compared with the
CPU. Ends with status 1 if a figure is farther off than rounding explains.
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

from attunet_jax.ops.conv import conv3x3x3
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

# A size with every gate.
CROP, WIDTHS = ((16, 16, 16), (4, 6)) if DRY else ((32, 48, 48), (8, 16, 32))
LIMITS = {  # generous: they find what is wrong, not what is rounded
    "conv float32, precision highest": 1e-5,
    "float32 highest: logits, relative": 1e-4,
    "float32 highest: losses, largest difference": 1e-4,
    "float32 default: logits, relative": 1e-2,
    "float32 default: losses, largest difference": 1e-2,
    "bfloat16 default: logits, relative": 1e-1,
    "bfloat16 default: losses, largest difference": 3e-2,
}


def precise(name: str | None) -> AbstractContextManager[Any]:
    """With products of this precision; None leaves the device its own."""
    return jax.default_matmul_precision(name) if name else contextlib.nullcontext()


def rounding(device: Any) -> dict[str, float]:
    """Relative errors of one convolution and product: 1e-7 is float32, 3e-4 TF32."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 8, 24, 24, 16)).astype(np.float32)
    k = rng.normal(size=(3, 3, 3, 16, 16)).astype(np.float32)
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3, 3), (1, 2, 3))
    convolved = np.einsum("bdhwcxyz,xyzco->bdhwo", windows, k.astype(np.float64))
    rows, matrix = x.reshape(-1, 16), k[1, 1, 1]
    product = rows.astype(np.float64) @ matrix.astype(np.float64)
    told = {}
    for name in (None, "highest"):
        with precise(name), jax.default_device(device):
            y = jax.jit(lambda x, k: conv3x3x3(x, k, formulation="compiler"))(x, k)
            p = jax.jit(jnp.matmul)(rows, matrix)
        told[f"conv float32, precision {name}"] = relative(y, convolved)
        told[f"product float32, precision {name}"] = relative(p, product)
    return told


class Case:
    """The network on one device in one type and precision."""

    def __init__(self, where: Any, dtype: str, precision: str | None = None) -> None:
        self.label = f"{dtype} {precision or 'default'}"
        self.where, self.dtype, self.precision = where, dtype, precision

    def set_up(self, drawn: Any = None) -> Any:
        """Returns the state that was drawn: the other cases begin with the same."""
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
        """(losses, state after the third)."""
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
    """Losses, state, and what is told of them: are they the same when repeated?"""
    losses, state = case.three_steps()
    again = case.three_steps()
    told = {
        "losses": losses,
        "same bits when repeated": same_bits((losses, state), again),
        "digest": digest(state.params),
    }
    return losses, state, told


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
    everyone = list(dict.fromkeys([*cases, reference] if reference else cases))
    compile_together(everyone, forward=reference is not None)
    report.add(compiled=f"{len(everyone)} cases")
    truth = None
    if reference:
        truth = reference.logits(), *reference.three_steps()
        report.add(true_losses=truth[1])
    for case in cases:
        losses, state, told = bits_of(case)
        if truth:
            logits, true_losses, true_state = truth
            told |= {
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
        report.add(**{f"{case.label}: {name}": value for name, value in told.items()})
    wrong = [
        name
        for name, most in LIMITS.items()
        if name in report.content and not report.content[name] <= most
    ]
    report.add(wrong=wrong, verdict="WRONG" if wrong else "right")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
