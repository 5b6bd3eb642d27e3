"""3D Attention U-Net for CT segmentation: scans in, label maps and tables out.

    import attunet_jax as aj

    network = aj.AttentionUNet3D(num_classes=4)        # or aj.UNet3D: without gates
    predictor = aj.load("RUN")                         # a trained run's folder
    labels = predictor(aj.read_scan("scan.nii.gz"))

Read the folders as the story: volume (a scan and its geometry), data (records and
batches), augment, ops and model (the network), distributed, train, predict, evaluate.
docs/python.md shows each public name with an example.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attunet_jax.data.dataset import Dataset, open_dataset
    from attunet_jax.evaluate.metrics import measure_case
    from attunet_jax.model.torch_weights import load_torch_weights
    from attunet_jax.model.unet import AttentionUNet3D, UNet3D
    from attunet_jax.predict.predictor import Predictor
    from attunet_jax.predict.predictor import load_predictor as load
    from attunet_jax.train.loss import soft_dice_loss
    from attunet_jax.volume.scan import read_scan
    from attunet_jax.volume.volume import Volume

    __version__: str

# Public name -> (module, name there). Imported at first use: `--help` needs no JAX.
_PUBLIC = {
    "AttentionUNet3D": ("attunet_jax.model.unet", "AttentionUNet3D"),
    "UNet3D": ("attunet_jax.model.unet", "UNet3D"),
    "soft_dice_loss": ("attunet_jax.train.loss", "soft_dice_loss"),
    "load_torch_weights": ("attunet_jax.model.torch_weights", "load_torch_weights"),
    "load": ("attunet_jax.predict.predictor", "load_predictor"),
    "Predictor": ("attunet_jax.predict.predictor", "Predictor"),
    "read_scan": ("attunet_jax.volume.scan", "read_scan"),
    "Volume": ("attunet_jax.volume.volume", "Volume"),
    "open_dataset": ("attunet_jax.data.dataset", "open_dataset"),
    "Dataset": ("attunet_jax.data.dataset", "Dataset"),
    "measure_case": ("attunet_jax.evaluate.metrics", "measure_case"),
}

__all__ = [
    "AttentionUNet3D",
    "Dataset",
    "Predictor",
    "UNet3D",
    "Volume",
    "__version__",
    "load",
    "load_torch_weights",
    "measure_case",
    "open_dataset",
    "read_scan",
    "soft_dice_loss",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("attunet_jax")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'attunet_jax' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
