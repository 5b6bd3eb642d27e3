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
