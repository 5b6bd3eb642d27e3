"""Compares our networks with arrays computed by the authors' PyTorch code.

    python -m launch.parity --golden=DIR

DIR holds files published_<network>_align<0 or 1>.npz: weights, an input, and what the
published network computes from it (logits, attention coefficients, loss, gradients,
running statistics). Prints a table for each file. The exit status is 0 when every error
in float64 is within its tolerance, else 3 with a message that names the worst. Errors
in float32, the type of a training, are printed for information: near the kinks of ReLU
and max pooling, rounding alone moves gradients by a percent.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from attunet_jax import interrupts
from attunet_jax.errors import BadData, exit_status
from launch import cli
from launch.devices import check_devices

if TYPE_CHECKING:
    from attunet_jax.model import AttentionUNet3D

FLAGS = cli.Flags(__doc__)
FLAGS.add("golden", Path, None, "Folder of the golden files.", required=True)

# Largest allowed |ours - theirs| / largest |theirs| in float64; of gradients by
# Euclidean norm. The files hold float32.
TOLERANCES = {
    "eval logits": 1e-5,
    "alpha": 1e-5,
    "train logits": 1e-4,
    "loss": 1e-6,
    "gradient": 1e-4,
    "zero gradient": 1e-6,  # absolute
    "running statistics": 1e-5,
}
# BatchNorm subtracts any constant added before it, so the true gradient of such a bias
# is zero: it is 1e-17 in the float64 of the golden files and 1e-8 in float32, and their
# ratio means nothing. All other gradients of these files are above 1e-6.
ZERO = 1e-12

Arrays = Mapping[str, np.ndarray]


class Error(NamedTuple):
    quantity: str
    where: str
    error: float


@dataclass(frozen=True)
class Row:
    """The worst error of one quantity, and the name of the array that has it."""

    quantity: str
    where: str
    error: float  # in float64
    float32_error: float

    @property
    def tolerance(self) -> float:
        return TOLERANCES[self.quantity]

    @property
    def share(self) -> float:
        """Returns the error in units of the tolerance."""
        return self.error / self.tolerance


def main(argv: list[str] | None = None) -> int:
    golden = FLAGS.parse(argv).golden
    files = sorted(golden.glob("published_*_align[01].npz"))
    if not files:
        raise BadData(f"{golden}: no published_<network>_align<0 or 1>.npz in it")
    check_devices()
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
    """Returns a row for each quantity, with its errors in float64 and in float32.

    Raises `BadData` naming the file and a missing array.
    """
    float64, float32 = errors(file, "float64"), errors(file, "float32")
    return [
        Row(*wide, narrow.error) for wide, narrow in zip(float64, float32, strict=True)
    ]


def errors(file: Path, dtype: str) -> list[Error]:
    """Returns the worst error of each quantity, computed in "float64" or "float32".

    Raises `BadData` naming the file and a missing array.
    """
    import jax

    from attunet_jax.model import AttentionUNet3D
    from attunet_jax.model import torch_weights as published

    golden = published.read_npz(file)
    state = published.read_state_dict(file)
    variables, fields, num_classes = published.from_published(state, str(file))
    network = AttentionUNet3D(
        num_classes=num_classes,
        align_corners="align1" in file.stem,
        dtype=dtype,
        **fields,
    )
    try:
        with jax.enable_x64(dtype == "float64"):
            return worst_errors(run(network, variables, golden, dtype), golden)
    except KeyError as error:
        raise BadData(f"{file}: array {error.args[0]} is missing") from error


def run(
    network: "AttentionUNet3D", variables: Any, golden: Arrays, dtype: str
) -> dict[str, np.ndarray]:
    """Returns the golden file's arrays as our network computes them, by name."""
    import jax
    import jax.numpy as jnp

    from attunet_jax.model import torch_weights as published
    from attunet_jax.train.loss import soft_dice_loss

    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), variables)
    image = jnp.asarray(published.channels_last(golden["input"]), dtype)
    label = jnp.asarray(published.channels_last(golden["label"])[..., 0], jnp.int32)

    def evaluate(variables: Any) -> Any:
        return network.apply(variables, image, train=False, mutable=["intermediates"])

    def objective(params: Any) -> Any:
        logits, updates = network.apply(
            {**variables, "params": params}, image, train=True, mutable=["batch_stats"]
        )
        loss = soft_dice_loss(label, logits, smoothing_inside_factor=True)
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


def worst_errors(ours: Arrays, golden: Arrays) -> list[Error]:
    """Returns the worst error of each quantity; for alpha, of each sub-gate."""

    def worst(
        quantity: str,
        names: list[str],
        error: Callable[[np.ndarray, np.ndarray], float],
    ) -> list[Error]:
        errors = {name: error(ours[name], golden[name].astype(float)) for name in names}
        # NaN is not larger than anything: it would be overlooked.
        errors = {n: e if e == e else float("inf") for n, e in errors.items()}
        if not errors:
            return []
        where = max(errors, key=lambda name: errors[name])
        return [Error(quantity, where, errors[where])]

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
    """Formats the rows of one file."""
    lines = [
        title,
        f"  {'quantity':19} {'float64':>9} {'allowed':>8} {'float32':>9}  worst at",
    ]
    for row in rows:
        mark = "" if row.share <= 1 else "  TOO LARGE"
        lines.append(
            f"  {row.quantity:19} {row.error:9.2e} {row.tolerance:8.0e} "
            f"{row.float32_error:9.2e}  "
            f"{re.sub('^(alpha|grad|after):', '', row.where)}{mark}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    interrupts.listen("nothing is kept; start it again")
    interrupts.leave(exit_status(main))
