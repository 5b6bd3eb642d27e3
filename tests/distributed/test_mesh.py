"""Meshes that fit and meshes that do not; batches that land where they belong."""

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from attunet_jax.distributed.mesh import (
    _is_block,
    data_shard,
    gather_from_processes,
    make_mesh,
    to_global,
)
from attunet_jax.errors import BadArguments


def test_minus_one_takes_the_devices_that_spatial_leaves():
    assert make_mesh(-1, 2).devices.shape == (4, 2)


@pytest.mark.parametrize(
    "data, spatial, words",
    [
        (-1, 3, "spatial=3: does not divide the 8"),
        (8, 2, "needs 16 devices; there are 8"),
    ],
)
def test_a_mesh_that_does_not_fit_names_both_numbers(data, spatial, words):
    with pytest.raises(BadArguments, match=words):
        make_mesh(data, spatial)


def cards(hosts: int, each: int, **fields: Any) -> list[Any]:
    """GPUs as JAX shows them: each host is a slice; in no order."""
    return [
        SimpleNamespace(
            process_index=host,
            slice_index=host,
            id=host * each + i,
            platform="gpu",
            device_kind="NVIDIA H100",
            **fields,
        )
        for i in range(each)
        for host in range(hosts)
    ]


def slices_of(mesh: Any) -> list[list[int]]:
    return [[device.slice_index for device in row] for row in mesh.devices]


def test_slices_lie_along_the_batch_and_depth_stays_inside_one(plain_meshes):
    for spatial in (1, 2, 4):
        mesh = make_mesh(-1, spatial, cards(hosts=2, each=4))
        assert mesh.devices.shape == (8 // spatial, spatial)
        expected = np.repeat([0, 1], 4).reshape(-1, spatial)
        np.testing.assert_array_equal(slices_of(mesh), expected)
        assert sorted(device.id for device in mesh.devices.flat) == list(range(8))


def test_depth_across_slices_needs_the_flag(plain_meshes):
    with pytest.raises(BadArguments, match="spatial_across_slices=True") as error:
        make_mesh(1, 8, cards(hosts=2, each=4))
    assert "2 slices or hosts of 4 devices" in str(error.value)
    assert "\n" not in str(error.value)
    mesh = make_mesh(1, 8, cards(hosts=2, each=4), spatial_across_slices=True)
    assert slices_of(mesh) == [[0, 0, 0, 0, 1, 1, 1, 1]]


def test_chips_of_two_tpu_slices_are_neighbours_where_depth_is_split(plain_meshes):
    chips = [
        SimpleNamespace(
            process_index=2 * part + y // 2,
            slice_index=part,
            id=part * 8 + 2 * y + x,
            coords=[x, y, 0],
            core_on_chip=0,
            platform="tpu",
            device_kind="TPU v4",
        )
        for y in range(4)
        for x in range(2)
        for part in range(2)
    ]
    mesh = make_mesh(-1, 4, chips)
    assert slices_of(mesh) == [[0] * 4, [0] * 4, [1] * 4, [1] * 4]
    for row in mesh.devices:
        for one, following in zip(row, row[1:], strict=False):
            steps = np.abs(np.subtract(one.coords, following.coords))
            assert steps.sum() == 1  # a link of the torus


@pytest.fixture
def plain_meshes(monkeypatch):
    """`Mesh` takes JAX's own devices alone; here anything with `devices`."""
    monkeypatch.setattr(
        "attunet_jax.distributed.mesh.Mesh",
        lambda devices, axes, axis_types: SimpleNamespace(devices=devices),
    )


def of(owners: list[list[int]]) -> Any:
    """A mesh of devices of these processes."""
    devices = [[SimpleNamespace(process_index=i) for i in row] for row in owners]
    return SimpleNamespace(devices=np.array(devices, object))


@pytest.mark.parametrize(
    "owners, blocks",
    [
        ([[0], [0], [1], [1]], True),
        ([[0, 0, 1, 1]], True),
        ([[0, 1], [0, 1]], True),
        ([[0, 0], [1, 1], [2, 2]], True),
        ([[0], [1], [0], [1]], False),  # rows of a process with another's between
        ([[0, 1], [1, 0]], False),
        ([[1], [0], [0], [1]], False),
        ([[1, 0, 0, 2]], False),  # contiguous, but no aligned share
    ],
)
def test_a_process_must_own_a_rectangle_at_a_multiple_of_its_size(owners, blocks):
    processes = range(1 + max(map(max, owners)))
    assert all(_is_block(of(owners), p) for p in processes) == blocks


def test_numbers_of_every_process_come_to_all():
    mesh = make_mesh(4, 2)
    got = gather_from_processes(np.array([3.0, 0.5], np.float32), mesh)
    np.testing.assert_array_equal(got, [[3.0, 0.5]])  # this one process


def test_each_device_holds_its_rows_and_slices():
    mesh = make_mesh(2, 4)
    batch = {
        "image_hu": np.arange(4 * 8 * 2 * 2).reshape(4, 8, 2, 2),
        "std_hu": np.arange(4.0),
    }
    got = to_global(batch, mesh)
    for shard in got["image_hu"].addressable_shards:
        assert shard.data.shape == (2, 2, 2, 2)
        np.testing.assert_array_equal(shard.data, batch["image_hu"][shard.index])
        row, column = np.argwhere(mesh.devices == shard.device)[0]
        assert shard.index[0].indices(4)[0] == 2 * row
        assert shard.index[1].indices(8)[0] == 2 * column
    assert got["std_hu"].sharding.shard_shape((4,)) == (2,)
    assert data_shard(mesh) == (0, 1)  # one process reads every row
    assert isinstance(got["image_hu"], jax.Array)
