"""Compares our networks with arrays computed by the authors' PyTorch code.

    python -m launch.parity --golden=DIR

DIR holds files published_<network>_align<0 or 1>.npz: weights, an input, and what the
published network computes from it (logits, attention coefficients, loss, gradients,
running statistics). Prints a table for each file. The exit status is 0 when every error
is within its tolerance, else 3 with a message that names the worst.
"""

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attunet_jax.errors import BadData, exit_status
from launch import cli

FLAGS = cli.Flags(__doc__)
FLAGS.add("golden", Path, None, "Folder of the golden files.", required=True)

# Largest allowed |ours - theirs| / largest |theirs|; of gradients by Euclidean norm.
TOLERANCES = {
    "eval logits": 1e-5,
    "alpha": 1e-5,
    "train logits": 1e-4,
    "loss": 1e-6,
    "gradient": 1e-3,
    "zero gradient": 1e-6,  # absolute
    "running statistics": 1e-5,
}
# BatchNorm subtracts any constant added before it, so the true gradient of such a bias
# is zero: it is 1e-17 in the float64 of the golden files and 1e-8 in float32, and their
# ratio means nothing. All other gradients of these files are above 1e-6.
ZERO = 1e-12

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Row:
    """The worst error of one quantity, and the name of the array that has it."""

    quantity: str
    error: float
    where: str

    @property
    def tolerance(self) -> float:
        return TOLERANCES[self.quantity]

    @property
    def share(self) -> float:
        """Returns the error in units of the tolerance; infinity for NaN."""
        share = self.error / self.tolerance
        return share if share == share else float("inf")


def main(argv: list[str] | None = None) -> int:
    golden = FLAGS.parse(argv).golden
    files = sorted(golden.glob("published_*_align[01].npz"))
    if not files:
        raise BadData(f"{golden}: no published_<network>_align<0 or 1>.npz in it")
    worst: tuple[float, str] = (0.0, "")
    for file in files:
        rows = compare(file)
        print(table(file.stem, rows), flush=True)
        row = max(rows, key=lambda row: row.share)
        worst = max(worst, (row.share, f"{file}: {row.quantity} of {row.where}"))
    if worst[0] > 1:
        raise BadData(f"{worst[1]} is off by {worst[0]:.3g} times its tolerance")
    print(f"all within tolerance; the worst: {worst[1]}, {worst[0]:.2f} of it")
    return 0


def compare(file: Path) -> list[Row]:
    """Returns a row for each quantity: our network against the arrays of `file`.

    Raises `BadData` naming the file and a missing array.
    """
    from attunet_jax.model import torch_weights as published
    from attunet_jax.model.torch_weights import read_npz

    golden = read_npz(file)
    state = published.read_state_dict(file)
    variables, fields, num_classes = published.from_published(state, str(file))
    network = _network(fields, num_classes, "align1" in file.stem)
    try:
        ours = run(network, variables, golden)
        return _rows(ours, golden)
    except KeyError as error:
        raise BadData(f"{file}: array {error.args[0]} is missing") from error


def run(network: Any, variables: Any, golden: Arrays) -> dict[str, Any]:
    """Returns the golden file's arrays as our network computes them, by name."""
    import jax
    import jax.numpy as jnp

    from attunet_jax.model import torch_weights as published
    from attunet_jax.train.loss import soft_dice_loss

    image = jnp.asarray(published.channels_last(golden["input"]), jnp.float32)
    label = jnp.asarray(published.channels_last(golden["label"])[..., 0], jnp.int32)

    def evaluate(variables: Any) -> Any:
        return network.apply(variables, image, train=False, mutable=["intermediates"])

    def objective(params: Any) -> Any:
        logits, updates = network.apply(
            {**variables, "params": params}, image, train=True, mutable=["batch_stats"]
        )
        loss = soft_dice_loss(
            label,
            logits,
            classes=tuple(range(logits.shape[-1])),
            smoothing=0.01,
            smoothing_inside_factor=True,
            include_background=True,
            averaged_over=logits.shape[-1],
        )
        return loss, (logits, updates["batch_stats"])

    logits, sown = jax.jit(evaluate)(variables)
    (loss, (train_logits, statistics)), gradients = jax.jit(
        jax.value_and_grad(objective, has_aux=True)
    )(variables["params"])

    ours = {
        "eval_logits": published.channels_last(np.asarray(logits)),
        "train_logits": published.channels_last(np.asarray(train_logits)),
        "train_dice_loss": np.asarray(loss),
    }
    for gate, sub_gates in sown.get("intermediates", {}).items():
        for sub_gate, leaf in sub_gates.items():
            name = f"alpha:attentionblock{gate[-1]}.gate_block_{sub_gate[-1]}"
            ours[name] = published.channels_last(np.asarray(leaf["alpha"][0]))
    for prefix, tree in (
        ("grad:", {"params": gradients}),
        ("after:", {"batch_stats": statistics}),
    ):
        for name, tensor in published.published_tensors(tree).items():
            ours[prefix + name] = tensor
    return ours


def _network(fields: Any, num_classes: int, align_corners: bool) -> Any:
    import jax

    from attunet_jax.model import build_network

    return build_network(
        {
            **fields,
            "align_corners": align_corners,
            "compute_dtype": "float32",
            "remat": False,
            "convolution": "auto",
        },
        num_classes=num_classes,
        backend=jax.default_backend(),
        device_count=1,
    )


def _rows(ours: Arrays, golden: Arrays) -> list[Row]:
    def worst(
        quantity: str,
        names: list[str],
        error: Callable[[np.ndarray, np.ndarray], float],
    ) -> list[Row]:
        errors = [(error(ours[n], golden[n].astype(float)), n) for n in names]
        return [Row(quantity, *max(errors))] if errors else []

    def starting(prefix: str) -> list[str]:
        return [name for name in golden if name.startswith(prefix)]

    gradients = starting("grad:")
    zero = [n for n in gradients if np.linalg.norm(golden[n]) < ZERO]
    return [
        *worst("eval logits", ["eval_logits"], _relative),
        *[r for n in starting("alpha:") for r in worst("alpha", [n], _relative)],
        *worst("train logits", ["train_logits"], _relative),
        *worst("loss", ["train_dice_loss"], _relative),
        *worst("gradient", [n for n in gradients if n not in zero], _relative_norm),
        *worst("zero gradient", zero, lambda a, b: float(np.abs(a - b).max())),
        *worst("running statistics", starting("after:"), _relative),
    ]


def _relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def _relative_norm(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def table(title: str, rows: list[Row]) -> str:
    lines = [title, f"  {'quantity':19} {'error':>9} {'allowed':>8}  worst at"]
    for row in rows:
        mark = "" if row.share <= 1 else "  TOO LARGE"
        lines.append(
            f"  {row.quantity:19} {row.error:9.2e} {row.tolerance:8.0e}  "
            f"{re.sub('^(alpha|grad|after):', '', row.where)}{mark}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(exit_status(main))
