"""A file of PyTorch weights (.pth, or .npz) in, its tensors by name out."""

from pathlib import Path

import numpy as np

from attunet_jax.errors import BadArguments, BadData, one_line

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
