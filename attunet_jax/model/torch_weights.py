"""Tensors of the authors' PyTorch networks in, our variables out, and back.

Covers `unet_CT_dsv_3D`, `unet_CT_single_att_dsv_3D` and `unet_CT_multi_att_dsv_3D` of
ozan-oktay/Attention-Gated-Networks (commit eee4881), any widths, classes, sub-gates.

Axes: the published code computes on `[B, C, X, Y, Z]`, the axes of a NIfTI file, Z the
axial slice. Ours is `[B, D, H, W, C]` with D = Z, H = Y, W = X, so an activation turns
by `channels_last` and a kernel `[out, in, kx, ky, kz]` by reversing all its axes. X ran
right to left and Z feet to head there as W and D do here. Y was mirrored for one of its
data sets (CT-82: `sitk.Flip` along y); its training mirrors X and Y with probability
0.5 each, so nothing is mirrored here.

A file of PyTorch weights (.pth, or .npz) in, its tensors by name out.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from attunet_jax.config_fields import as_typed
from attunet_jax.errors import BadArguments, BadData, one_line
from attunet_jax.model.unet import AttentionUNet3D, UNet3D

__all__ = [
    "channels_last",
    "from_published",
    "published_tensors",
    "read_state_dict",
    "to_published",
]

# Our module -> the published one; the parts of Sequential are numbered 0 (convolution)
# and 1 (BatchNorm) there.
_MODULES = (
    (r"encoder_(\d+)/conv_(\d)", r"conv\1.conv\2.0"),
    (r"encoder_(\d+)/norm_(\d)", r"conv\1.conv\2.1"),
    (r"bottleneck/conv_(\d)", r"center.conv\1.0"),
    (r"bottleneck/norm_(\d)", r"center.conv\1.1"),
    (r"gating_signal/conv", r"gating.conv1.0"),
    (r"gating_signal/norm", r"gating.conv1.1"),
    (r"gate_(\d+)/sub_gate_(\d+)/W_x", r"attentionblock\1.gate_block_\2.theta"),
    (r"gate_(\d+)/sub_gate_(\d+)/W_g", r"attentionblock\1.gate_block_\2.phi"),
    (r"gate_(\d+)/sub_gate_(\d+)/psi", r"attentionblock\1.gate_block_\2.psi"),
    (r"gate_(\d+)/sub_gate_(\d+)/W", r"attentionblock\1.gate_block_\2.W.0"),
    (r"gate_(\d+)/sub_gate_(\d+)/norm", r"attentionblock\1.gate_block_\2.W.1"),
    (r"gate_(\d+)/combine/conv", r"attentionblock\1.combine_gates.0"),
    (r"gate_(\d+)/combine/norm", r"attentionblock\1.combine_gates.1"),
    (r"decoder_(\d+)/conv_(\d)", r"up_concat\1.conv.conv\2.0"),
    (r"decoder_(\d+)/norm_(\d)", r"up_concat\1.conv.conv\2.1"),
    (r"supervision_1", r"dsv1"),
    (r"supervision_(\d+)", r"dsv\1.dsv.0"),
    (r"fusion", r"final"),
)
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_COUNTER = "num_batches_tracked"  # of BatchNorm, without influence on any result

# What is not told by the shapes because the published networks do not vary it.
_FIXED_FIELDS = {
    "gate_source": "decoder",
    "gate_kernel": 2,
    "gate_reduction": 1,
    "gate_output_transform": True,
    "attention_coefficients": "scalar",
    "gate_initialisation": "kaiming",
    "deep_supervision": "fused",
}


def from_published(
    state: Mapping[str, np.ndarray], source: str
) -> tuple[dict[str, Any], dict[str, Any], int]:
    """(variables, fields, class count) of a state dict, name -> array.

    `variables` are `{params, batch_stats}` in float32; `fields` those of
    `config.model` that the weights decide. Raises `BadData` that begins with `source`
    and names a tensor that is missing, surplus or misshapen.
    """
    tensors = {k: np.asarray(v) for k, v in state.items() if not _is_counter(k)}
    fault = _fault(tensors)
    if fault:
        raise BadData(
            f"{source}: {fault}; expected the state dict of unet_CT_dsv_3D, "
            "unet_CT_single_att_dsv_3D or unet_CT_multi_att_dsv_3D"
        )
    fields, num_classes = _fields(tensors)
    leaves = {}
    for path in _expected(fields, num_classes):
        tensor = tensors[_published_name(path)]
        if not np.issubdtype(tensor.dtype, np.floating):
            raise BadData(f"{source}: {_published_name(path)} is {tensor.dtype}")
        if not np.isfinite(tensor).all():
            raise BadData(f"{source}: {_published_name(path)} holds NaN or infinity")
        # A copy: the caller's arrays may change, or be a view of a file.
        leaves[path] = np.array(_turned(tensor), np.float32, order="C")
    return unflatten_dict(leaves, sep="/"), fields, num_classes


def load_torch_weights(
    path: str | Path,
) -> tuple[AttentionUNet3D, dict[str, Any]]:
    """Returns (network, variables) of the authors' weights in a .pth or .npz file.

    `variables` are `{params, batch_stats}`. Reading .pth needs PyTorch. Raises
    `BadData` naming the file where it does not hold such weights.
    """
    variables, fields, num_classes = from_published(
        read_state_dict(Path(path)), str(path)
    )
    network = AttentionUNet3D if fields["sub_gates"] else UNet3D
    return network(num_classes=num_classes, **fields), variables


def to_published(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The inverse of `from_published`: a complete state dict in float32.

    Raises `BadArguments` for a network that the published code cannot build.
    """
    tensors = published_tensors(variables)
    fault = _fault(tensors)
    if fault:
        raise BadArguments(
            f"the published code has no such network: {fault} (its networks have "
            + ", ".join(
                f"--config.model.{k}={as_typed(v)}" for k, v in _FIXED_FIELDS.items()
            )
            + ")"
        )
    for name in [name for name in tensors if name.endswith(".running_mean")]:
        counter = name.removesuffix("running_mean") + _COUNTER
        tensors[counter] = np.zeros((), np.int64)
    return tensors


def published_tensors(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Leaves by their published names and in the published layout, unchecked.

    `variables` may hold any collections shaped as ours: a tree of gradients as
    `params`, say.
    """
    leaves = flatten_dict(variables, sep="/")
    return {_published_name(k): _turned(np.asarray(v)) for k, v in leaves.items()}


def channels_last(x: np.ndarray) -> np.ndarray:
    """`[B, C, X, Y, Z]` to `[B, D = Z, H = Y, W = X, C]`; its own inverse."""
    return x.transpose(0, 4, 3, 2, 1)


def _turned(tensor: np.ndarray) -> np.ndarray:
    """Kernels `[out, in, kx, ky, kz]` <-> `[kz, ky, kx, in, out]`; vectors as is."""
    return tensor.transpose()


def _published_name(path: str) -> str:
    """`params/encoder_1/conv_2/kernel` -> `conv1.conv2.0.weight`."""
    module, leaf = path.split("/", 1)[1].rsplit("/", 1)
    for pattern, published in _MODULES:
        match = re.fullmatch(pattern, module)
        if match:
            return f"{match.expand(published)}.{_LEAVES[leaf]}"
    return path  # has no counterpart: a surplus tensor, named as ours


def _fault(tensors: Mapping[str, np.ndarray]) -> str | None:
    """What keeps `tensors` from being a published network, in one phrase."""
    try:
        fields, num_classes = _fields(tensors)
    except KeyError as error:
        return f"tensor {error.args[0]} is missing"
    except ValueError as error:
        return str(error)
    shapes = {
        _published_name(path): tuple(reversed(shape))
        for path, shape in _expected(fields, num_classes).items()
    }
    for what, names in (
        ("missing", shapes.keys() - tensors.keys()),
        ("surplus", tensors.keys() - shapes.keys()),
    ):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            return f"tensor {min(names)} is {what}{more}"
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            return f"tensor {name} has shape {tensors[name].shape}, expected {shape}"
    return None


def _fields(tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], int]:
    """(fields of `config.model`, class count).

    KeyError names a tensor that is missing, ValueError one that is empty.
    """

    def outputs(name: str) -> int:
        shape = tensors[name].shape
        if not shape or not shape[0]:
            raise ValueError(f"tensor {name} has shape {shape}, expected channels")
        return shape[0]

    def count(pattern: str) -> int:
        return len({m[0] for m in map(re.compile(pattern).match, tensors) if m})

    encoders = max(count(r"conv\d+\."), 1)
    widths = [outputs(f"conv{i}.conv1.0.weight") for i in range(1, encoders + 1)]
    widths.append(outputs("center.conv1.0.weight"))
    sub_gates = count(r"attentionblock2\.gate_block_\d+\.")
    gating = outputs("gating.conv1.0.weight") if sub_gates else widths[-1]
    fields = {
        "widths": tuple(widths),
        "sub_gates": sub_gates,
        "gating_channels": gating,
        **_FIXED_FIELDS,
    }
    return fields, outputs("final.weight")


def _expected(fields: Mapping[str, Any], num_classes: int) -> dict[str, tuple]:
    """Shape of every leaf of the network with these fields, by its path."""
    network = AttentionUNet3D(num_classes=num_classes, **fields)
    size = 2 ** (len(fields["widths"]) - 1)
    image = jax.ShapeDtypeStruct((1, size, size, size, 1), np.float32)
    shapes = jax.eval_shape(
        lambda x: network.init(jax.random.key(0), x, train=False), image
    )
    kept = {name: shapes[name] for name in ("params", "batch_stats")}
    leaves: dict[str, Any] = flatten_dict(kept, sep="/")
    return {path: leaf.shape for path, leaf in leaves.items()}


def _is_counter(name: str) -> bool:
    return name.endswith("." + _COUNTER)


PREFIX = "w:"  # of parameters among other arrays of an .npz


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """`name -> array`. Nothing in the file is executed.

    An .npz holds an array for each name; where some names begin with "w:", these are
    the tensors and the rest is left out. A .pth is what `torch.save(net.state_dict())`
    wrote and needs torch: `pip install torch`. Raises `BadData` naming
    the file, `BadArguments` without torch.
    """
    if not path.is_file():
        raise BadData(f"{path}: no such file")
    if path.suffix == ".npz":
        arrays = read_npz(path)
        chosen = {k[len(PREFIX) :]: v for k, v in arrays.items() if k[:2] == PREFIX}
        return chosen or arrays
    return _read_torch(path)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz. Raises `BadData` naming the file."""
    try:
        # Opened here: np.load does not close a file that it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds
        raise BadData(
            f"{path}: cannot be read as .npz ({one_line(error)[:150]})"
        ) from error


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise BadArguments(
            f"{path}: reading it needs PyTorch: pip install torch"
        ) from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        raise BadData(
            f"{path}: cannot be read as PyTorch weights ({one_line(error)[:150]})"
        ) from error
    if not isinstance(state, dict) or not state:
        raise BadData(f"{path}: holds a {type(state).__name__}, not a state dict")
    foreign = [k for k, v in state.items() if not isinstance(v, torch.Tensor)]
    if foreign:
        raise BadData(f"{path}: {foreign[0]!r} is no tensor; save net.state_dict()")
    return {str(k): v.detach().numpy() for k, v in state.items()}
