"""A disk that is full when a checkpoint is written in the background."""

import re
import resource
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attunet_jax.checkpoint import Checkpoints
from attunet_jax.errors import BadData

KEPT = [10, 20, 40]  # chosen, best, newest


@pytest.fixture
def disk(tmp_path):
    """(folder, fill, empty): a file system of 2 MB; without root a limit of files."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    mounted = (
        shutil.which("mount") is not None
        and subprocess.run(mount, capture_output=True).returncode == 0
    )
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        if not mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
            return
        with pytest.raises(OSError, match="No space left"):
            with (place / "filler").open("wb", buffering=0) as filler:
                while True:
                    filler.write(b"0" * 4096)

    def empty():
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        (place / "filler").unlink(missing_ok=True)

    yield place, fill, empty
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    if mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_every_step_before_a_save_that_found_no_room_stays_listed_and_whole(disk):
    place, fill, empty = disk
    numbers = np.random.default_rng(0).normal(size=(100, 100)).astype(np.float32)

    def state(step):
        return {"params": {"w": jnp.asarray(numbers + step)}}

    def opened():
        return Checkpoints(
            place / "checkpoints",
            keep_latest=1,
            keep_best=1,
            keep_steps=(10,),
            clean_up=True,
        )

    def save(checkpoints, step, dice):
        checkpoints.save(
            step, state(step), position={"step": step}, run={}, metrics={"dice": dice}
        )
        checkpoints.wait()

    checkpoints = opened()
    for step, dice in ((10, 0.1), (20, 0.9), (30, 0.5), (40, 0.6)):
        save(checkpoints, step, dice)
    assert checkpoints.steps() == KEPT
    fill()
    # Were it written, it would take the place of step 40.
    with pytest.raises(BadData, match="could not be written .*make room") as raised:
        save(checkpoints, 50, 0.7)
    assert re.search("No space left|File too large", str(raised.value))
    assert checkpoints.steps() == KEPT and checkpoints.best() == 20

    with opened() as again:
        assert again.steps() == KEPT and again.best() == 20
        shapes = jax.eval_shape(lambda: state(0))
        for step in KEPT:
            found, position = again.restore(step, shapes)
            assert position == {"step": step}
            np.testing.assert_array_equal(found["params"]["w"], numbers + step)
        restored = again.restore_newest(shapes)
        assert restored is not None and restored[1] == {"step": 40}
        empty()
        save(again, 50, 0.7)
        assert again.steps() == [10, 20, 50]
    checkpoints.__exit__(BadData, None, None)
