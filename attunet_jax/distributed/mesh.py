"""The device mesh ('data', 'spatial'), the shardings on it, and global batches.

The batch is split over `data`, the depth of every volume over `spatial`. This is the
only file that names mesh axes: the compiler derives the rest from the inputs.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from attunet_jax.errors import BadArguments

# Fields of a batch with a depth axis, [B, D, ...]; the others are [B].
VOLUMES = ("image_hu", "image", "label")


def make_mesh(
    data: int,
    spatial: int,
    devices: Sequence[Any] | None = None,
    *,
    spatial_across_slices: bool = False,
) -> Mesh:
    """Arranges all devices as `data x spatial`; `data` -1 takes what `spatial` leaves.

    A slice is what a fast interconnect joins: a TPU slice, a host of GPUs or an NVLink
    domain. Slices are laid along `data`, because every layer exchanges slices of a
    depth that is split, and a batch only its gradients. `devices` are those of the job
    by default; others can only be compiled for. Raises `BadArguments` if the numbers do
    not fit the devices.
    """
    if devices is None:
        devices = jax.devices()
    count = len(devices)
    processes = {device.process_index for device in devices}
    if spatial < 1 or count % spatial:
        raise BadArguments(
            f"--config.mesh.spatial={spatial}: does not divide the {count} devices"
        )
    if data == -1:
        data = count // spatial
    if data * spatial > count or data < 1:
        raise BadArguments(
            f"--config.mesh.data={data} x --config.mesh.spatial={spatial} needs "
            f"{data * spatial} devices; there are {count}"
        )
    if data * spatial < count and len(processes) > 1:
        raise BadArguments(
            f"--config.mesh.data={data} x --config.mesh.spatial={spatial} leaves some "
            f"of {count} devices idle; with several processes it must use all"
        )
    slices = Counter(map(_slice_of, devices))  # slice -> number of its devices
    if any(n % spatial for n in slices.values()) and not spatial_across_slices:
        raise BadArguments(
            f"--config.mesh.spatial={spatial}: would split a depth over the network "
            f"between {len(slices)} slices or hosts of {min(slices.values())} devices: "
            "use a divisor of these, or, slowly, "
            "--config.mesh.spatial_across_slices=True"
        )
    # Axes are pinned to Auto: under Explicit, Linen's layers fail (see docs/design.md).
    axes = ("data", "spatial")
    automatic = (AxisType.Auto, AxisType.Auto)
    for arranged in _arrangements(data, spatial, devices, slices):
        mesh = Mesh(arranged, axes, axis_types=automatic)
        if all(_is_block(mesh, process) for process in processes):
            return mesh
    raise BadArguments(
        f"--config.mesh.data={data} x --config.mesh.spatial={spatial} cuts across the "
        f"{count // len(processes)} devices of a process: use a --config.mesh.spatial "
        "that divides them or is a multiple of them"
    )


def _arrangements(
    data: int, spatial: int, devices: Sequence[Any], slices: Mapping[int, int]
) -> Iterator[np.ndarray]:
    """Yields the devices as `[data, spatial]`, the fastest arrangement first."""
    if len(slices) == 1:
        # JAX follows the shape of the interconnect.
        yield jax.make_mesh(
            (data, spatial),
            ("data", "spatial"),
            devices=list(devices)[: data * spatial],
        ).devices
    elif len(set(slices.values())) == 1 and data % len(slices) == 0:
        yield mesh_utils.create_hybrid_device_mesh(
            (data // len(slices), spatial),
            (len(slices), 1),
            devices,
            allow_split_physical_axes=True,
        )
    # If the first scatters a process's devices over the mesh, it cannot read contiguous
    # rows and slices; in this order it can.
    ordered = sorted(devices, key=lambda d: (_slice_of(d), d.process_index, d.id))
    yield np.array(ordered, object)[: data * spatial].reshape(data, spatial)


def _slice_of(device: Any) -> int:
    return getattr(device, "slice_index", 0) or 0


def _is_block(mesh: Mesh, process: int) -> bool:
    """Whether the process's devices are a rectangle of the mesh, aligned to its size.

    Then its rows are one of equal shards of the batch, which other processes may
    share.
    """
    owners = np.vectorize(lambda device: device.process_index)(mesh.devices)
    places = np.argwhere(owners == process)
    if not len(places):
        return True
    first = places.min(axis=0)
    size = places.max(axis=0) - first + 1
    return bool(size.prod() == len(places) and not (first % size).any())


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of parameters, statistics and metrics: whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_shardings(
    mesh: Mesh, fields: Mapping[str, object]
) -> dict[str, NamedSharding]:
    """The sharding of each field: `P('data', 'spatial')`, or `P('data')` if `[B]`."""
    volume = NamedSharding(mesh, PartitionSpec("data", "spatial"))
    scalar = NamedSharding(mesh, PartitionSpec("data"))
    return {name: volume if name in VOLUMES else scalar for name in fields}


def split_depth(mesh: Mesh) -> NamedSharding:
    """The sharding of one volume `[D, H, W]` in prediction."""
    return NamedSharding(mesh, PartitionSpec("spatial"))


def data_shard(mesh: Mesh) -> tuple[int, int]:
    """(index, count): which contiguous rows of each global batch this process reads.

    It follows from the mesh, not from the process index: where depth spans hosts,
    several processes need the same cases.
    """
    rows = {
        int(np.argwhere(mesh.devices == device)[0][0]) for device in mesh.local_devices
    }
    count = mesh.devices.shape[0] // len(rows)
    return min(rows) // len(rows), count


def to_global(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays `[B, ...]` of this process's rows `[b, ...]`."""
    _, count = data_shard(mesh)
    shardings = batch_shardings(mesh, batch)
    return {
        name: _place(np.asarray(rows), shardings[name], count)
        for name, rows in batch.items()
    }


def gather_from_processes(values: np.ndarray, mesh: Mesh) -> jax.Array:
    """Gathers `[n]` of each process to `[processes, n]` on every one, asynchronously.

    A collective: every process calls it as often as the others.
    """
    shape = (*mesh.devices.shape, *values.shape)
    sharding = NamedSharding(mesh, PartitionSpec("data", "spatial"))
    cells = jax.make_array_from_callback(shape, sharding, lambda _: values[None, None])
    return _one_row_per_process(mesh)(cells)


@lru_cache
def _one_row_per_process(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    owners = [device.process_index for device in mesh.devices.flat]
    chosen = np.array([owners.index(process) for process in sorted(set(owners))])
    return jax.jit(
        lambda cells: cells.reshape(len(owners), -1)[chosen],
        out_shardings=replicated(mesh),
    )


def _place(rows: np.ndarray, sharding: NamedSharding, count: int) -> jax.Array:
    shape = (rows.shape[0] * count, *rows.shape[1:])
    if rows.ndim > 1:
        # Where depth spans hosts, this one holds only its slices of it.
        spans = [
            i[1].indices(shape[1])
            for i in sharding.addressable_devices_indices_map(shape).values()
            if i
        ]
        rows = rows[:, min(s[0] for s in spans) : max(s[1] for s in spans)]
    return jax.make_array_from_process_local_data(sharding, rows, shape)
