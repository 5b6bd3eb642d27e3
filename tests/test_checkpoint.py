"""Checkpoints: which are kept, what a damaged one does, where a state comes back."""

import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attunet_jax.checkpoint import Checkpoints, open_existing, with_sharding
from attunet_jax.distributed.mesh import make_mesh, replicated
from attunet_jax.errors import BadData


# One array: where the first of several cannot be read, Orbax leaves the others' reads
# to fail later, in whatever test runs then.
def state(value: float) -> dict[str, Any]:
    return {"params": {"w": jnp.full((4, 3), float(value))}}


def value_of(state: Any) -> float:
    return float(state["params"]["w"][0, 0])


ABSTRACT = jax.eval_shape(lambda: state(0))


@pytest.fixture
def workdir(tmp_path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def opened(workdir):
    """Opens the run's checkpoints for training; closed at the end of the test."""
    still_open = []

    def open_(keep_latest=1, keep_best=1, keep_steps=()):
        checkpoints = Checkpoints(
            workdir / "checkpoints",
            keep_latest=keep_latest,
            keep_best=keep_best,
            keep_steps=keep_steps,
            clean_up=True,
        )
        still_open.append(checkpoints)
        return checkpoints

    yield open_
    for checkpoints in still_open:
        checkpoints.close()


def save(checkpoints: Checkpoints, step: int, dice: float | None = None) -> None:
    checkpoints.save(
        step,
        state(step),
        position={"step": step, "manifest_sha256": "abc"},
        run={"format": 1, "saved_at": step},
        metrics=None if dice is None else {"dice": dice},
    )
    checkpoints.wait()


def cut_short(workdir: Path, step: int) -> None:
    """Leaves 20 bytes of every data file of a state, as a full disk might."""
    files = [f for f in (workdir / "checkpoints" / str(step)).rglob("d/*")]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[:20])


def test_a_state_comes_back_bit_for_bit_with_its_position_and_run(opened):
    checkpoints = opened()
    save(checkpoints, 3)
    got, position = checkpoints.restore(3, ABSTRACT)
    jax.tree.map(np.testing.assert_array_equal, got, state(3))
    assert got["params"]["w"].dtype == jnp.float32
    assert position == {"step": 3, "manifest_sha256": "abc"}
    assert checkpoints.run(3) == {"format": 1, "saved_at": 3}


def test_a_state_that_is_not_finite_and_was_saved_before_is_passed_over(
    opened, monkeypatch, caplog
):
    checkpoints = opened(keep_latest=3)
    save(checkpoints, 1)
    with monkeypatch.context() as before:
        before.setattr("attunet_jax.checkpoint.is_finite", lambda tree: True)
        checkpoints.save(
            2,
            state(np.nan),
            position={"step": 2, "manifest_sha256": "abc"},
            run={},
            metrics=None,
        )
        checkpoints.wait()
    with caplog.at_level(logging.WARNING):
        restored = checkpoints.restore_newest(ABSTRACT)
    assert restored is not None and restored[1]["step"] == 1
    assert value_of(restored[0]) == 1
    assert "params/w is not finite" in caplog.text
    assert checkpoints.steps() == [1]


def test_a_dice_on_organs_goes_before_one_of_the_middles_of_scans(opened):
    checkpoints = opened(keep_latest=1, keep_best=1)
    save(checkpoints, 1, 0.9)
    for step, dice in ((2, 0.3), (3, 0.2)):
        checkpoints.save(
            step,
            state(step),
            position={},
            run={},
            metrics={"dice": dice, "centred_on_organs": 1.0},
        )
        checkpoints.wait()
    assert checkpoints.best() == 2
    assert checkpoints.steps() == [2, 3]


def test_the_newest_and_the_best_are_kept_even_where_the_newest_is_worst(opened):
    checkpoints = opened(keep_latest=2, keep_best=1)
    for step, dice in ((1, 0.5), (2, 0.9), (3, 0.7), (4, None), (5, 0.6), (6, 0.1)):
        save(checkpoints, step, dice)
    assert checkpoints.steps() == [2, 5, 6]
    assert checkpoints.best() == 2
    save(checkpoints, 7, 0.95)
    assert checkpoints.steps() == [6, 7]
    assert checkpoints.best() == 7


def test_steps_that_were_chosen_are_kept_and_are_no_better_for_it(opened):
    checkpoints = opened(keep_steps=(2, 3))
    for step, dice in ((1, 0.9), (2, None), (3, 0.1), (4, 0.2), (5, 0.3)):
        save(checkpoints, step, dice)
    assert checkpoints.steps() == [1, 2, 3, 5]
    assert checkpoints.best() == 1


def test_a_run_opened_again_keeps_by_the_same_policy(opened):
    first = opened()
    save(first, 1, 0.9)
    save(first, 2, 0.2)
    first.close()
    again = opened()
    assert again.steps() == [1, 2] and again.best() == 1
    save(again, 3, 0.3)
    assert again.steps() == [1, 3]


def test_without_any_figure_there_is_no_best(opened):
    checkpoints = opened(keep_latest=3)
    assert checkpoints.best() is None
    save(checkpoints, 1)
    save(checkpoints, 2)
    assert checkpoints.best() is None and checkpoints.steps() == [1, 2]


def test_a_step_that_is_there_stays_as_it_is(opened):
    checkpoints = opened()
    save(checkpoints, 1)
    checkpoints.save(1, state(9), position={"step": 9}, run={}, metrics=None)
    checkpoints.wait()
    assert value_of(checkpoints.restore(1, ABSTRACT)[0]) == 1


def test_nothing_saved_is_nothing_to_go_on_from(opened):
    assert opened().restore_newest(ABSTRACT) is None


def test_a_damaged_newest_step_is_named_and_the_one_before_taken(
    opened, workdir, caplog
):
    first = opened(keep_latest=3)
    for step in (10, 20, 30):
        save(first, step)
    first.close()
    cut_short(workdir, 30)
    with caplog.at_level(logging.WARNING, logger="root"):
        got, position = opened(keep_latest=3).restore_newest(ABSTRACT)
    assert (value_of(got), position["step"]) == (20, 20)
    named = [r.getMessage() for r in caplog.records if "trying the one" in r.msg]
    assert len(named) == 1
    assert str(workdir / "checkpoints" / "30") in named[0]


def test_damaged_metrics_are_named_in_one_line(opened, workdir):
    checkpoints = opened()
    save(checkpoints, 1, dice=0.5)
    checkpoints.close()
    file = workdir / "checkpoints" / "1" / "metrics" / "metrics"
    assert file.exists()
    file.write_text('{"dice": 0.')
    with pytest.raises(BadData, match="the metrics of a checkpoint are damaged") as e:
        opened()
    assert str(workdir) in str(e.value) and "\n" not in str(e.value)


def test_after_a_damaged_step_the_run_saves_again_on_its_way_there(opened, workdir):
    first = opened()
    save(first, 10, 0.5)
    save(first, 20)
    first.close()
    cut_short(workdir, 20)
    checkpoints = opened()
    assert checkpoints.restore_newest(ABSTRACT)[1]["step"] == 10
    save(checkpoints, 15)
    assert checkpoints.steps() == [10, 15]
    save(checkpoints, 20)
    assert value_of(checkpoints.restore(20, ABSTRACT)[0]) == 20


def test_where_every_step_is_damaged_the_newest_is_named_and_none_removed(
    opened, workdir
):
    first = opened(keep_latest=2)
    save(first, 10)
    save(first, 20)
    first.close()
    cut_short(workdir, 10)
    cut_short(workdir, 20)
    checkpoints = opened(keep_latest=2)
    with pytest.raises(BadData) as caught:
        checkpoints.restore_newest(ABSTRACT)
    assert str(caught.value).startswith(str(workdir / "checkpoints" / "20"))
    assert checkpoints.steps() == [10, 20]


OTHERS = {
    "another shape": {"w": jax.ShapeDtypeStruct((4, 5), jnp.float32)},
    "another name": {"v": jax.ShapeDtypeStruct((4, 3), jnp.float32)},
    "one more": {
        "w": jax.ShapeDtypeStruct((4, 3), jnp.float32),
        "v": jax.ShapeDtypeStruct((1,), jnp.float32),
    },
    "one fewer": {},
}


@pytest.mark.parametrize("params", OTHERS.values(), ids=OTHERS)
def test_a_state_of_another_network_is_refused_in_one_line(opened, workdir, params):
    checkpoints = opened()
    save(checkpoints, 1)
    with pytest.raises(BadData) as caught:
        checkpoints.restore(1, {"params": params})
    message = str(caught.value)
    assert message.startswith(f"{workdir / 'checkpoints' / '1'}: cannot be restored")
    assert "\n" not in message


def test_what_a_step_is_cannot_be_read_where_it_is_gone(opened, workdir):
    checkpoints = opened()
    save(checkpoints, 1)
    (workdir / "checkpoints" / "1" / "run" / "metadata").unlink()
    with pytest.raises(BadData, match="1: its description cannot be read"):
        checkpoints.run(1)


def test_a_folder_without_checkpoints_or_without_a_whole_one_says_what_to_do(workdir):
    with pytest.raises(BadData) as caught:
        open_existing(workdir)
    assert str(caught.value) == (
        f"{workdir}: no checkpoints here; train with --workdir={workdir}"
    )
    (workdir / "checkpoints").mkdir(parents=True)
    with pytest.raises(BadData) as caught:
        open_existing(workdir)
    assert str(caught.value) == (
        f"{workdir / 'checkpoints'}: no complete checkpoint; train a little longer"
    )


def test_opening_to_read_deletes_nothing_not_even_a_save_under_way(opened, workdir):
    first = opened(keep_latest=3)
    for step in (1, 2, 3):
        save(first, step)
    first.close()
    under_way = workdir / "checkpoints" / "4.orbax-checkpoint-tmp"
    under_way.mkdir()
    with open_existing(workdir) as checkpoints:
        assert checkpoints.steps() == [1, 2, 3]
        assert value_of(checkpoints.restore(1, ABSTRACT)[0]) == 1
    assert under_way.is_dir()


def test_a_state_comes_back_on_the_mesh_it_is_asked_for_on(opened):
    checkpoints = opened()
    save(checkpoints, 1)  # on one device
    mesh = make_mesh(4, 2)
    everywhere = replicated(mesh)
    got, _ = checkpoints.restore(1, with_sharding(ABSTRACT, everywhere))
    for leaf in jax.tree.leaves(got):
        assert leaf.sharding == everywhere
        assert len(leaf.addressable_shards) == 8
        for shard in leaf.addressable_shards:
            np.testing.assert_array_equal(shard.data, leaf)
    jax.tree.map(np.testing.assert_array_equal, got, state(1))
    # and from the eight devices onto one again
    checkpoints.save(2, got, position={"step": 2}, run={}, metrics=None)
    checkpoints.wait()
    one = jax.sharding.SingleDeviceSharding(jax.devices()[3])
    back, _ = checkpoints.restore(2, with_sharding(ABSTRACT, one))
    assert {leaf.sharding for leaf in jax.tree.leaves(back)} == {one}
    jax.tree.map(np.testing.assert_array_equal, back, state(1))


def bytes_read() -> int:
    counters = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in counters)["rchar"])


def test_the_optimizers_arrays_are_not_read_where_they_are_not_asked_for(
    opened, workdir
):
    if not Path("/proc/self/io").exists():
        pytest.skip("this system does not count the bytes that a process reads")
    moments = jax.random.bits(jax.random.key(0), (2**22,))  # 16 MiB, incompressible
    full = state(1) | {"opt_state": {"mu": moments}}
    checkpoints = opened()
    checkpoints.save(1, full, position={}, run={}, metrics=None)
    checkpoints.wait()
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with open_existing(workdir) as reading:
        before = bytes_read()
        got = reading.restore_variables(1, with_sharding(ABSTRACT, one))
        between = bytes_read()
    checkpoints.restore(1, with_sharding(jax.eval_shape(lambda: full), one))
    assert bytes_read() - between > moments.nbytes  # the count does see them
    assert between - before < moments.nbytes / 8
    jax.tree.map(np.testing.assert_array_equal, got, state(1))


def test_arrays_that_a_checkpoint_lacks_or_has_besides_are_named(opened):
    checkpoints = opened()
    save(checkpoints, 1)
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    w = jax.ShapeDtypeStruct((4, 3), jnp.float32, sharding=one)
    for params, words in (
        ({"w": w, "v": w}, r"\['params'\]\['v'\] has shape None there, \(4, 3\) here"),
        ({}, r"\['w'\] has shape \(4, 3\) there, None here"),
    ):
        with pytest.raises(BadData, match=f"1: cannot be restored .*{words}"):
            checkpoints.restore_variables(1, {"params": params})
