"""Which part of training a kernel's arrays belong to, by the names of operations.

The names are those of Flax's modules, of the named scopes in `train/step.py` and
`ops/resize.py`, and of JAX's primitives.
"""

import re
from collections.abc import Iterable

from launch.compile_for.kernels import Kernel

CONVOLUTIONS = "convolutions"
OTHER = "other"
PARTS = (  # the first that matches the name
    ("optimizer", r"/optimizer\b|^state\."),
    ("augmentation", r"/augmentation\b"),
    ("loss", r"\bloss\b"),
    ("attention gates", r"/gate_\d+\b|gating_signal"),
    ("deep supervision", r"supervis|/fusion\b"),
    ("resizing", r"/(resize|max_pool)\b"),
    (CONVOLUTIONS, r"conv_general_dilated"),
    (
        "normalisation and ReLU",
        r"/(encoder_\d+|decoder_\d+|bottleneck)\b",
    ),
)
MESSAGES = "between devices"
_MESSAGE = re.compile(
    r"all-reduce|reduce-scatter|all-gather|all-to-all|collective|async-start"
)


def part_of(kernel: Kernel, source: str) -> str:
    """Returns the part of one array that `kernel` moves for the operation `source`."""
    if _MESSAGE.match(kernel.kind):
        return MESSAGES
    for name, pattern in PARTS:
        if re.search(pattern, source):
            return name
    return CONVOLUTIONS if kernel.kind.startswith("__cudnn$conv") else OTHER


def by_part(kernels: Iterable[Kernel]) -> dict[str, tuple[int, int]]:
    """Returns part -> (kernels, bytes), most bytes first.

    A kernel counts where its result belongs, each of its arrays where that belongs.
    """
    launches: dict[str, int] = {}
    moved: dict[str, int] = {}
    for kernel in kernels:
        own = part_of(kernel, kernel.source)
        launches[own] = launches.get(own, 0) + kernel.times
        for source, size in kernel.moved:
            part = part_of(kernel, source)
            moved[part] = moved.get(part, 0) + size * kernel.times
    parts = sorted({*launches, *moved}, key=lambda part: -moved.get(part, 0))
    return {part: (launches.get(part, 0), moved.get(part, 0)) for part in parts}
