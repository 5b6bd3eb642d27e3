"""The devices to compile for: their name on the command line, and their compiler."""

import importlib.util
import math
import os
import re
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from attunet_jax.errors import BadArguments, one_line
from launch.compile_for.cards import Card, described, read_card

# The names of these generations count cores, two a chip; those of the others chips.
_TWO_CORES_A_CHIP = ("v2", "v3", "v4", "v5p")


@dataclass(frozen=True)
class Topology:
    """The devices to compile for."""

    name: str
    platform: str  # "cpu", a TPU's generation, or the name of a GPU's description
    sizes: tuple[int, ...]

    @property
    def count(self) -> int:
        return math.prod(self.sizes)

    @property
    def card(self) -> Card | None:
        """The GPU; None for CPUs and TPUs."""
        return read_card(self.platform) if self.platform in described() else None

    @property
    def hosts(self) -> int:
        """How many hosts of GPUs there are."""
        return self.sizes[0] if len(self.sizes) == 2 else 1


def parse_topology(name: str) -> Topology:
    """Raises `BadArguments` for a name of no devices that can be compiled for."""
    match = re.fullmatch(r"([a-z]\w*):(\d+(?:x\d+)*)", name.lower())
    if match is not None:
        platform, sizes = match[1], tuple(map(int, match[2].split("x")))
        if platform == "cpu":
            allowed = (2,)
        elif platform in described():
            allowed = (1, 2)
        else:
            allowed = (1, 2, 3) if re.fullmatch(r"v\d[a-z]*", platform) else ()
        if len(sizes) in allowed and min(sizes) >= 1:
            return Topology(name, platform, sizes)
    raise BadArguments(
        f"--topology={name} is neither cpu:DATAxSPATIAL, such as cpu:1x8, nor a "
        "TPU's, such as v5e:2x4 or v5p:2x2x1, nor CARD:GPUS or CARD:HOSTSxGPUS, such "
        f"as h100:8 or h100:4x8; described are the cards {', '.join(described())}"
    )


def environment_of(topology: Topology) -> dict[str, str]:
    """Returns the variables to set before JAX is imported."""
    # A program from the cache reports less memory; a TPU's cannot be read from it.
    own = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    if topology.platform == "cpu":
        count = f"--xla_force_host_platform_device_count={topology.count}"
        return own | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {count}".strip()}
    if topology.card:
        # XLA warns of what it would do otherwise with a driver.
        return own | {
            "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2")
        }
    generation, count = topology.platform, topology.count
    if generation in _TWO_CORES_A_CHIP:
        count *= 2
    kind = {"v5e": "v5litepod"}.get(generation, generation)
    return own | {
        # This machine is no TPU: there is no metadata server to ask which.
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": f"{kind}-{count}",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }


def check_compiler(topology: Topology) -> None:
    """Raises `BadArguments` where the devices' compiler is not installed."""
    if topology.card:
        _check_compiler_of_gpus(f"--topology={topology.name}")
    elif topology.platform != "cpu" and importlib.util.find_spec("libtpu") is None:
        raise BadArguments(
            f"--topology={topology.name} needs the TPU compiler: "
            "pip install -e '.[tpu]'"
        )


def _check_compiler_of_gpus(flag: str) -> None:
    jaxlib = version("jaxlib")
    extra = (
        f"{flag} needs XLA's compiler for GPUs: pip install -e '.[compile_gpu]', in an "
        "environment of its own"
    )
    installed = {cuda: _version(f"jax-{cuda}-plugin") for cuda in ("cuda13", "cuda12")}
    cuda = next((cuda for cuda, found in installed.items() if found), None)
    if cuda is None:
        raise BadArguments(extra)
    for package in (f"jax-{cuda}-plugin", f"jax-{cuda}-pjrt"):
        if (found := _version(package)) != jaxlib:
            raise BadArguments(
                f"{flag}: {package} is {found or 'missing'}, but jaxlib {jaxlib}: "
                f"pip install jax-{cuda}-plugin=={jaxlib} jax-{cuda}-pjrt=={jaxlib}"
            )
    assembler = "nvidia-cuda-nvcc" + ("-cu12" if cuda == "cuda12" else "")
    if not (_version(assembler) or shutil.which("ptxas")):
        raise BadArguments(extra)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def devices_of(topology: Topology) -> Any:
    """Returns the devices; accelerators among them can only be compiled for.

    Imports JAX. Raises `BadArguments` for what the compiler does not know.
    """
    import jax

    if topology.platform == "cpu":
        return jax.devices()
    from jax.experimental import topologies

    wanted: dict[str, Any] = {"platform": "tpu", "topology_name": topology.name}
    if topology.card:
        a_host = topology.count // topology.hosts
        wanted = {
            "platform": "cuda",
            "target_config": topology.card.target,
            "topology": f"1x{topology.hosts}x{a_host}",
        }
    try:
        return topologies.get_topology_desc(**wanted).devices
    except Exception as error:  # noqa: BLE001 - libtpu raises several kinds
        raise BadArguments(
            f"--topology={topology.name}: {one_line(error)[:300]}"
        ) from None
