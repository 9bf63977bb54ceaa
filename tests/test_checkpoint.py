"""Checkpoints: exact and typed, damaged ones told and skipped, the best kept (law 4)."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

from latent import checkpoint
from latent.checkpoint import Checkpoints, DamagedCheckpoint
from latent.errors import UserError
from tests import harness, toys
from tests.harness import thinned

MODEL, ADAM = toys.adversarial(2), optax.scale_by_adam()
SHARDING = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def state_at(steps):
    state, _ = harness.train(MODEL, steps, transform=ADAM, averages=(0.9,))
    return state


def target(state):
    return checkpoint.abstract(state, SHARDING)


def saved(workdir, steps=(2, 4, 6), **options):
    store = Checkpoints(workdir, **options)
    states = {step: state_at(step) for step in steps}
    for step in steps:
        store.save(states[step], {"step": step}, {"elbo": float(-step)})
    store.close()
    return states


def damage(path, how):
    """Damages every file that holds arrays: Orbax may keep more than one copy and reads only one of them."""
    files = [file for file in path.rglob("*") if file.is_file() and (how == "empty" or "/d/" in str(file))]
    largest = max(file.stat().st_size for file in files)
    for file in files:
        data = bytearray(file.read_bytes())
        if how == "empty":
            file.unlink()
        elif how == "truncate":
            file.write_bytes(data[: len(data) // 3])
        elif len(data) > largest // 2:
            middle = len(data) // 2
            data[middle : middle + 8] = bytes(255 - byte for byte in data[middle : middle + 8])
            file.write_bytes(data)


@pytest.fixture(params=[True, False], ids=["packed", "apart"])
def form(request, monkeypatch):
    """Small states are packed, large ones are not."""
    if not request.param:
        monkeypatch.setattr(checkpoint, "PACKED_BELOW", 0)
    return request.param


def test_round_trip_is_exact_and_typed(tmp_path, form):
    states = saved(tmp_path, steps=(3,))
    assert (tmp_path / "checkpoints" / "3" / checkpoint.PACKED).is_dir() == form
    found, meta = Checkpoints(tmp_path).restore(3, target(states[3]))
    assert meta["step"] == 3
    assert jax.tree.structure(found) == jax.tree.structure(states[3])
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(states[3]), strict=True):
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("how", thinned(["flip", "truncate", "empty"], {"flip"}))
def test_a_damaged_newest_checkpoint_is_skipped_and_set_aside(tmp_path, how, caplog, form):
    states = saved(tmp_path)
    damage(tmp_path / "checkpoints" / "6", how)
    store = Checkpoints(tmp_path)
    found, _ = store.restore_newest(target(states[4]), repair=True)
    assert int(found.step) == 4
    assert checkpoint.digest(found) == checkpoint.digest(states[4])
    assert "checkpoint 6" in caplog.text
    assert (tmp_path / "checkpoints" / "damaged.6").exists()
    store.save(states[6], {"step": 6}, {})  # the step can be saved again
    store.close()
    again, _ = Checkpoints(tmp_path).restore_newest(target(states[6]))
    assert checkpoint.digest(again) == checkpoint.digest(states[6])


@pytest.mark.slow
def test_the_same_step_can_be_damaged_twice(tmp_path):
    states = saved(tmp_path)
    for number in range(2):
        damage(tmp_path / "checkpoints" / "6", "truncate")
        store = Checkpoints(tmp_path)
        store.restore_newest(target(states[4]), repair=True)
        store.save(states[6], {}, {})
        store.close()
        assert (tmp_path / "checkpoints" / ("damaged.6" if number == 0 else "damaged.6.1")).exists()


@pytest.mark.slow
def test_a_metric_asked_for_later_judges_only_later_checkpoints(tmp_path):
    saved(tmp_path, steps=(2, 4), best_metric="elbo", best_mode="max")
    store = Checkpoints(tmp_path, best_metric="iwae", best_mode="max")
    store.save(state_at(6), {}, {"iwae": -50.0})
    store.close()
    assert Checkpoints(tmp_path, best_metric="iwae", best_mode="max").best_step() == 6


def test_changed_values_are_told(tmp_path, form):
    """Orbax returns flipped bytes of a large array as wrong numbers, without an error: hence the digest."""
    weights = np.random.default_rng(0).integers(0, 2**31, (300, 300), np.int32)
    state = state_at(2)._replace(params={"big": weights})
    store = Checkpoints(tmp_path)
    store.save(state, {}, {})
    store.close()
    damage(tmp_path / "checkpoints" / "2", "flip")
    with pytest.raises(DamagedCheckpoint, match="not those that were saved"):
        Checkpoints(tmp_path).restore(2, target(state))


def test_what_was_packed_is_for_its_own_structure_alone(tmp_path):
    state = saved(tmp_path, steps=(2,))[2]
    other = target(state._replace(params={"one": np.zeros(3, np.float32), **state.params}))
    with pytest.raises(DamagedCheckpoint):
        Checkpoints(tmp_path).restore(2, other)
    swapped = target(state._replace(params=dict(zip(reversed(list(state.params)), state.params.values(), strict=True))))
    with pytest.raises(DamagedCheckpoint):
        Checkpoints(tmp_path).restore(2, swapped)


def test_packing_keeps_bits_types_and_shapes():
    tree = {"a": np.float32([np.nan, -0.0]), "b": np.int32(3), "c": np.zeros((0, 2), np.float32), "d": np.array([True])}
    tree["e"] = np.asarray(jax.numpy.arange(3, dtype=jax.numpy.bfloat16))
    place = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=SHARDING)  # noqa: E731
    found = checkpoint.unpack(checkpoint.pack(tree), jax.tree.map(place, tree))
    assert checkpoint.digest(found) == checkpoint.digest(tree)


def test_reading_does_not_write(tmp_path):
    store = Checkpoints(tmp_path)
    assert store.steps() == [] and store.restore_newest(target(state_at(0))) is None
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_when_nothing_can_be_read_the_run_does_not_start_again(tmp_path):
    states = saved(tmp_path)
    for step in Checkpoints(tmp_path).steps():
        damage(tmp_path / "checkpoints" / str(step), "truncate")
    with pytest.raises(UserError, match="no checkpoint can be read"):
        Checkpoints(tmp_path).restore_newest(target(states[6]), repair=True)


def test_newest_and_best_are_kept(tmp_path):
    options = {"keep": 2, "best_metric": "elbo", "best_mode": "max"}
    saved(tmp_path, steps=(2, 4, 6, 8), **options)
    store = Checkpoints(tmp_path, **options)
    assert store.steps() == [2, 6, 8] and store.best_step() == 2
    lowest = Checkpoints(tmp_path, best_metric="elbo", best_mode="min")
    assert lowest.best_step() == 8


def test_a_checkpoint_without_the_metric_is_never_the_best(tmp_path):
    options = {"keep": 2, "best_metric": "elbo", "best_mode": "max"}
    store = Checkpoints(tmp_path, **options)
    store.save(state_at(2), {}, {"elbo": -5.0})
    store.save(state_at(4), {}, {})
    store.close()
    again = Checkpoints(tmp_path, **options)
    assert again.steps() == [2, 4] and again.best_step() == 2


def test_unknown_steps_and_modes_are_refused(tmp_path):
    states = saved(tmp_path, steps=(2,))
    with pytest.raises(UserError, match=r"--step=7.*\[2\]"):
        Checkpoints(tmp_path).restore(7, target(states[2]))
    with pytest.raises(UserError, match="best_mode='most'"):
        Checkpoints(tmp_path, best_metric="elbo", best_mode="most")
    with pytest.raises(UserError, match="keep=1"):
        Checkpoints(tmp_path, keep=1)
