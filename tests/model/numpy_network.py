"""The network once more, in plain NumPy and float64: what the tests compare with.

Written from equations 1 and 2 of the paper and from the tables of its published code;
nothing is imported from the package. Only the names of the parameters are ours.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np


def convolve_3x3x3(x: np.ndarray, kernel: np.ndarray) -> Any:
    """Zero padding, stride 1; `x [B, D, H, W, C]`, `kernel [3, 3, 3, C, O]`."""
    _, depth, height, width, _ = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
    return sum(
        padded[:, i : i + depth, j : j + height, k : k + width] @ kernel[i, j, k]
        for i, j, k in np.ndindex(3, 3, 3)
    )


def convolve_blocks(x: np.ndarray, kernel: np.ndarray) -> Any:
    """Kernel and stride 2, no padding."""
    return sum(
        x[:, i::2, j::2, k::2] @ kernel[i, j, k] for i, j, k in np.ndindex(2, 2, 2)
    )


def pool(x: np.ndarray) -> np.ndarray:
    eight = [x[:, i::2, j::2, k::2] for i, j, k in np.ndindex(2, 2, 2)]
    return np.max(eight, axis=0)


def resize(x: np.ndarray, factor: int, align_corners: bool) -> np.ndarray:
    """Trilinear, axis after axis; `x [B, D, H, W, C]`."""
    for axis in (1, 2, 3):
        size = x.shape[axis]
        target = np.arange(size * factor)
        if align_corners:
            at = target * (size - 1) / max(size * factor - 1, 1)
        else:
            at = (target + 0.5) / factor - 0.5
        weights = [np.interp(at, np.arange(size), unit) for unit in np.eye(size)]
        x = np.moveaxis(np.tensordot(np.array(weights), x, (0, axis)), 0, axis)
    return x


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


class NumpyNetwork:
    """One forward pass; afterwards `alpha`, `statistics` and `auxiliary` are filled."""

    def __init__(
        self, variables: Mapping[str, Any], fields: Mapping[str, Any], train: bool
    ) -> None:
        self.params = variables["params"]
        self.stored = variables["batch_stats"]
        self.fields = fields
        self.train = train
        self.alpha: dict[str, np.ndarray] = {}
        self.statistics: dict[str, np.ndarray] = {}
        self.auxiliary: list[np.ndarray] = []

    def __call__(self, image: np.ndarray) -> np.ndarray:
        fields = self.fields
        scales = len(fields["widths"])
        skips, x = {}, image
        for scale in range(1, scales):
            skips[scale] = self.twice(f"encoder_{scale}", x)
            x = pool(skips[scale])
        centre = self.twice("bottleneck", x)
        signal = centre
        if fields["sub_gates"] and fields["gating_channels"]:
            signal = self.pointwise("gating_signal", centre)

        coarser, decoded = centre, {}
        for scale in range(scales - 1, 0, -1):
            skip = skips[scale]
            if fields["sub_gates"] and scale != 1:
                gates_with = coarser
                if scale == scales - 1 or fields["gate_source"] == "bottleneck":
                    gates_with = signal
                skip = self.gates(f"gate_{scale}", skip, gates_with)
            up = resize(coarser, 2, fields["align_corners"])
            both = np.concatenate([skip, up], axis=-1)
            coarser = decoded[scale] = self.twice(f"decoder_{scale}", both)

        if fields["deep_supervision"] == "none":
            return self.conv("supervision_1", decoded[1])
        logits = [
            resize(
                self.conv(f"supervision_{scale}", decoded[scale]),
                2 ** (scale - 1),
                fields["align_corners"],
            )
            for scale in range(1, scales)
        ]
        if fields["deep_supervision"] == "auxiliary":
            self.auxiliary = logits[1:]
            return logits[0]
        return self.conv("fusion", np.concatenate(logits, axis=-1))

    def gates(self, name: str, x: np.ndarray, g: np.ndarray) -> np.ndarray:
        gated = [
            self.gate(f"{name}/sub_gate_{i + 1}", x, g)
            for i in range(self.fields["sub_gates"])
        ]
        if len(gated) == 1 and not self.fields["gate_output_transform"]:
            return gated[0]  # nothing to fuse: the paper's alpha x
        return self.pointwise(f"{name}/combine", np.concatenate(gated, axis=-1))

    def gate(self, name: str, x: np.ndarray, g: np.ndarray) -> np.ndarray:
        align_corners = self.fields["align_corners"]
        strided = x if self.fields["gate_kernel"] == 2 else x[:, ::2, ::2, ::2]
        theta = self.conv(f"{name}/W_x", strided)
        phi = self.conv(f"{name}/W_g", g)
        phi = resize(phi, theta.shape[1] // phi.shape[1], align_corners)
        q = self.conv(f"{name}/psi", relu(theta + phi))  # equation 1
        alpha = resize(sigmoid(q), 2, align_corners)  # equation 2
        self.alpha[name] = alpha
        if not self.fields["gate_output_transform"]:
            return alpha * x
        return self.norm(f"{name}/norm", self.conv(f"{name}/W", alpha * x))

    def twice(self, name: str, x: np.ndarray) -> np.ndarray:
        for i in (1, 2):
            x = relu(self.norm(f"{name}/norm_{i}", self.conv(f"{name}/conv_{i}", x)))
        return x

    def pointwise(self, name: str, x: np.ndarray) -> np.ndarray:
        return relu(self.norm(f"{name}/norm", self.conv(f"{name}/conv", x)))

    def conv(self, name: str, x: np.ndarray) -> np.ndarray:
        leaves = _at(self.params, name)
        kernel = leaves["kernel"]
        if kernel.shape[0] == 1:
            y = x @ kernel[0, 0, 0]
        else:
            y = (convolve_blocks if len(kernel) == 2 else convolve_3x3x3)(x, kernel)
        return y + leaves["bias"] if "bias" in leaves else y

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        leaves, stored = _at(self.params, name), _at(self.stored, name)
        mean, var = stored["mean"], stored["var"]
        if self.train:
            channels = x.reshape(-1, x.shape[-1])
            mean, var = channels.mean(0), channels.var(0)
            # PyTorch, momentum 0.1; what is stored is the unbiased variance.
            self.statistics[f"{name}/mean"] = 0.9 * stored["mean"] + 0.1 * mean
            self.statistics[f"{name}/var"] = 0.9 * stored["var"] + 0.1 * channels.var(
                0, ddof=1
            )
        return (x - mean) / np.sqrt(var + 1e-5) * leaves["scale"] + leaves["bias"]


def _at(tree: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    for part in name.split("/"):
        tree = tree[part]
    return tree


def random_variables(shapes: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Values for a tree of shapes that excite everything: no zero, no equal statistic.

    Float64 numbers that float32 holds exactly, so that both sides see the same.
    """
    rng = np.random.default_rng(seed)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name == "kernel":
            values = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
        elif name in ("scale", "var"):
            values = rng.uniform(0.5, 1.5, shape)
        else:
            values = rng.normal(0, 0.3, shape)
        return values.astype(np.float32).astype(np.float64)

    def fill(tree: Mapping[str, Any]) -> dict[str, Any]:
        return {
            k: fill(v) if isinstance(v, Mapping) else draw(k, v.shape)
            for k, v in tree.items()
        }

    return {kind: fill(shapes[kind]) for kind in ("params", "batch_stats")}
