"""The name of a size in, the shapes and numbers of everything that is measured out."""

from dataclasses import dataclass
from typing import Any

from attunet_jax.errors import BadArguments


@dataclass(frozen=True)
class Size:
    """Shapes are [D, H, W] in voxels."""

    name: str
    widths: tuple[int, ...]
    shape: tuple[int, int, int]  # what the network sees
    read_shape: tuple[int, int, int]  # what the host cuts out, as in training
    scan_shape: tuple[int, int, int]  # whole cases: pipeline, prediction, metrics
    scans: int  # made-up cases in the shards
    batch: int  # cases of a train step; a forward pass has one
    phantom: str  # --size of the phantoms that are prepared
    prepared_mm: float
    copy_mib: int  # array whose copy is timed
    matrix_size: int  # of the square matrices whose product is timed

    @property
    def text(self) -> str:
        """Width, height, depth: the paper's order."""
        return "×".join(map(str, reversed(self.shape)))


PUBLISHED_WIDTHS = (16, 32, 64, 128, 256)
SIZES = {
    size.name: size
    for size in (
        Size(
            name="paper",
            widths=PUBLISHED_WIDTHS,
            shape=(96, 160, 160),
            read_shape=(96, 208, 208),
            scan_shape=(200, 192, 192),  # a trunk of 40 cm at 2 mm
            scans=8,
            batch=2,
            phantom="full",
            prepared_mm=2.0,
            copy_mib=512,
            matrix_size=8192,
        ),
        Size(
            name="small",
            widths=PUBLISHED_WIDTHS,
            shape=(48, 64, 64),
            read_shape=(48, 84, 84),
            scan_shape=(64, 96, 96),
            scans=16,
            batch=2,
            phantom="small",
            prepared_mm=4.0,
            copy_mib=256,
            matrix_size=2048,
        ),
        Size(
            name="tiny",
            widths=(4, 6, 8),
            shape=(16, 16, 16),
            read_shape=(16, 20, 20),
            scan_shape=(20, 24, 24),
            scans=4,
            batch=2,
            phantom="small",
            prepared_mm=8.0,
            copy_mib=8,
            matrix_size=256,
        ),
    )
}
NETWORKS = ("unet", "attention_unet")


def find_size(name: str | None, *, backend: str) -> Size:
    """Without a name: small on a CPU, the paper's elsewhere."""
    name = name or ("small" if backend == "cpu" else "paper")
    if name not in SIZES:
        raise BadArguments(f"--size={name}: there are {', '.join(SIZES)}")
    return SIZES[name]


def config_of(
    network: str, size: Size, compute_dtype: str, convolution: str = "auto"
) -> Any:
    """The network's own config, as trained, in this size."""
    from configs import attention_unet, unet

    module = {"unet": unet, "attention_unet": attention_unet}[network]
    config = module.get_config()
    config.model.widths = size.widths
    config.model.compute_dtype = compute_dtype
    config.model.convolution = convolution
    config.data.crop_shape = size.shape
    config.data.read_shape = size.read_shape
    config.data.batch_size = size.batch
    return config
