"""Laws 1, 2, 5 and 11 on toy models, through the real driver."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latent import rng
from latent.step import build_step, cycle_length, diagnose, init_state
from latent.types import Loss, Player
from tests import harness, toys

PAIR, FROZEN, ADAM = toys.adversarial(every=2), toys.frozen(), optax.scale_by_adam()


def assert_equal(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


def assert_close(one, two, atol):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol, rtol=0), one, two)


def test_both_ways_of_resolving_every_agree():
    model = PAIR
    by_phase, one = harness.train(model, 6, count=1)
    unrolled, two = harness.train(model, 6, count=2)
    by_cond, three = harness.train(model, 6, count=6, rolled=True)
    assert_close(by_phase, unrolled, 1e-6)
    assert_close(by_phase, by_cond, 1e-6)
    assert [sorted(metrics) for metrics in one] == [["critic"], ["critic", "generator"]] * 3
    assert all(metrics["generator"]["moved"] == 1 for metrics in two)
    assert_close(three[0], one[-1], 1e-5)


@pytest.mark.parametrize("rolled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_metrics_are_those_of_the_last_step_whatever_the_dispatch(rolled):
    model = PAIR
    _, single = harness.train(model, 5, count=1)
    _, together = harness.train(model, 5, count=5, rolled=rolled)
    assert_close(together[0]["critic"], single[-1]["critic"], 1e-5)
    # The generator does not move at the fifth step: absent when that is known at trace time, marked when not.
    assert "generator" not in single[-1]
    assert together[0].get("generator", {"moved": 0.0})["moved"] == 0.0


def test_an_update_that_overflows_is_not_kept():
    """Loss, gradient and rate are finite, their product is not."""
    before, _ = harness.train(FROZEN, 0)
    halted, history = harness.train(FROZEN, 2, rate=3e38)
    assert np.isfinite(history[0]["denoiser"]["loss"]) and np.isfinite(history[0]["denoiser"]["gradient_norm"])
    assert halted.halted == 0
    assert_equal(halted.params, before.params)


def test_a_player_changes_what_it_owns_and_nothing_else():
    model = PAIR
    before, _ = harness.train(model, 0)
    after_one, _ = harness.train(model, 1)
    assert_equal(before.params["generator"], after_one.params["generator"])
    assert_equal(before.opt["generator"], after_one.opt["generator"])
    assert not np.array_equal(before.params["critic"]["w"], after_one.params["critic"]["w"])
    # The generator's pass through the critic advances the critic's vector; of that nothing may remain.
    after_two, _ = harness.train(model, 2)
    assert after_two.extra["critic"]["seen"] == 2 * 2
    assert after_two.extra["critic"]["seen"].dtype == np.int32


def test_later_players_see_the_updates_of_earlier_ones():
    model = toys.adversarial(every=1)
    recipe = harness.recipe(model)
    x = toys.data(16)
    batch = {"x": x, "position": np.arange(16)}
    state = jax.jit(lambda: init_state(recipe, harness.hparams(model), 0, batch))()
    _, metrics = jax.jit(build_step(recipe))(state, np.uint32(0), batch)
    only_critic = recipe._replace(model=model._replace(players=model.players[:1]))
    moved, _ = jax.jit(build_step(only_critic))(state, np.uint32(0), batch)
    only_generator = recipe._replace(model=model._replace(players=model.players[1:]))
    _, expected = jax.jit(build_step(only_generator))(moved._replace(step=state.step), np.uint32(0), batch)
    np.testing.assert_allclose(metrics["generator"]["adversarial"], expected["generator"]["adversarial"], rtol=1e-6)


def test_a_frozen_part_never_moves_and_has_no_optimiser_memory():
    model = FROZEN
    before, _ = harness.train(model, 0, transform=ADAM, averages=(0.9,))
    after, _ = harness.train(model, 8, transform=ADAM, averages=(0.9,))
    assert_equal(before.params["first_stage"], after.params["first_stage"])
    assert_equal(before.extra, after.extra)
    assert not np.array_equal(before.params["denoiser"]["w"], after.params["denoiser"]["w"])
    shapes = {leaf.shape for leaf in jax.tree.leaves((after.opt, after.ema))}
    assert shapes <= {(), (3, 3)}


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_devices_agree(every):
    """Law 2: SGD with batch-coupled terms (moments over the global batch) on 1, 2, 4 and 8 devices."""
    model = PAIR if every == 2 else toys.adversarial(every)
    reference, losses = harness.train(model, 20, devices=1)
    short, _ = harness.train(model, 5, devices=1)
    for devices in (2, 4, 8):
        five, _ = harness.train(model, 5, devices=devices)
        assert_close(five.params, short.params, 1e-5)
        state, other = harness.train(model, 20, devices=devices)
        for one, two in zip(losses, other, strict=True):
            for player in one:
                for term in ("loss", "gradient_norm"):
                    np.testing.assert_allclose(two[player][term], one[player][term], rtol=1e-4)
        assert int(state.step) == int(reference.step) == 20


def test_dispatch_size_does_not_change_the_run():
    model = PAIR
    one, _ = harness.train(model, 12, count=2)
    two, _ = harness.train(model, 12, count=12, rolled=True)
    three, _ = harness.train(model, 12, count=4)
    assert_close(one, two, 1e-6)
    assert_close(one, three, 1e-6)


def test_microbatches_give_the_gradient_of_the_whole_batch():
    model = FROZEN  # no batch-coupled term: the mean over parts is the mean over the batch
    whole, _ = harness.train(model, 5)
    parts, _ = harness.train(model, 5, microbatches=4)
    both, _ = harness.train(model, 5, microbatches=2, devices=4)
    assert_close(whole.params, parts.params, 1e-6)
    assert_close(whole.params, both.params, 1e-6)


@pytest.mark.parametrize(("microbatches", "devices"), [(1, 1), (4, 1), (2, 4)])
def test_a_loss_is_told_how_many_examples_the_whole_step_has(microbatches, devices):
    (player,) = FROZEN.players

    def loss(params, extra, batch, context):
        found = player.loss(params, extra, batch, context)
        size = jnp.full(len(batch["x"]), context.batch_size, jnp.float32)
        return found._replace(terms={**found.terms, "batch_size": size})

    model = FROZEN._replace(players=(player._replace(loss=loss),))
    _, history = harness.train(model, 1, batch_size=16, microbatches=microbatches, devices=devices)
    assert history[0]["denoiser"]["batch_size"] == 16


def test_average_follows_its_recursion():
    model = FROZEN
    expected, _ = harness.train(model, 0)
    average = expected.params["denoiser"]["w"]
    for steps in range(1, 4):
        state, _ = harness.train(model, steps, averages=(0.7,))
        average = 0.7 * average + 0.3 * state.params["denoiser"]["w"]
        np.testing.assert_allclose(state.ema["0.7"]["params"]["denoiser"]["w"], average, atol=1e-6)


def test_schedules_read_the_step():
    """Update = -schedule(step) * rate * gradient, whatever the optimiser counted."""
    model = FROZEN
    schedule = lambda step: jnp.where(step == 2, 1.0, 0.0)  # noqa: E731
    still = optax.identity()
    start, _ = harness.train(model, 0)
    two, _ = harness.train(model, 2, learning_rate_schedule=schedule, transform=still)
    three, history = harness.train(model, 3, learning_rate_schedule=schedule, transform=still)
    assert_equal(start.params, two.params)
    change = three.params["denoiser"]["w"] - start.params["denoiser"]["w"]
    np.testing.assert_allclose(np.linalg.norm(change), 0.05 * history[-1]["denoiser"]["gradient_norm"], rtol=1e-4)


def poisoned(step: int, player: str = "generator", part: str = "value"):
    """The adversarial toy with one player whose loss (or only its gradient) is not finite from `step` on."""
    model = toys.adversarial(every=1)

    def wrap(original):
        def loss(params, extra, batch, context):
            found = original(params, extra, batch, context)
            bad = context.step >= step
            size = optax.tree.norm(params[player], squared=True)
            if part == "value":
                return found._replace(objective=jnp.where(bad, jnp.nan, found.objective))
            # sqrt(0) has an infinite derivative and the finite value 0.
            return found._replace(objective=found.objective + jnp.sqrt(jnp.where(bad, 0.0, 1.0) * size))

        return loss

    players = tuple(p._replace(loss=wrap(p.loss)) if p.name == player else p for p in model.players)
    return model._replace(players=players)


QUICK = {("critic", "value", False), ("generator", "gradient", True)}  # between them each choice once


@pytest.mark.parametrize(
    ("player", "part", "rolled"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
        for case in itertools.product(["critic", "generator"], ["value", "gradient"], [False, True])
    ],
)
def test_the_first_non_finite_step_keeps_the_old_state(player, part, rolled):
    model = poisoned(3, player, part)
    good, _ = harness.train(model, 3, averages=(0.9,))
    halted, _ = harness.train(model, 8, count=4, rolled=rolled, averages=(0.9,))
    assert halted.halted == 3 and halted.step == 3
    assert good.halted == -1
    assert_close(good._replace(halted=halted.halted), halted, 1e-6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(halted))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_element_anywhere_makes_an_array_not_finite(bad):
    model, batch = toys.adversarial(every=1), {"x": toys.data(16), "position": np.arange(16), "index": np.arange(16)}
    recipe = harness.recipe(model)
    state = jax.jit(lambda: init_state(recipe, harness.hparams(model, 0.1), np.uint32(0), batch))()
    examine = jax.jit(
        lambda extra: diagnose(recipe, state._replace(extra={**state.extra, **extra}), np.uint32(0), batch, 0)
    )
    large = np.random.default_rng(0).choice([-1e30, 1e30], (7, 1000)).astype(np.float32)
    for place in (0, 3210, 6999):
        broken = large.copy()
        broken.flat[place] = bad
        broken.flat[(place + 17) % 7000] = -bad  # of two infinities the sum is no number
        found = examine({"large": large, "broken": broken})
        assert found["extra/large"] and not found["extra/broken"]


@pytest.mark.slow
def test_diagnosis_names_the_first_bad_part():
    batch = {"x": toys.data(16), "position": np.arange(16), "index": np.arange(16)}
    for part, expected in (("value", "critic/loss"), ("gradient", "critic/gradient/critic")):
        model = poisoned(3, "critic", part)
        halted, _ = harness.train(model, 4)
        examine = functools.partial(diagnose, harness.recipe(model), seed=np.uint32(0), raw_batch=batch, phase=0)
        found = jax.jit(lambda state, examine=examine: examine(state=state))(halted)
        bad = {name for name, good in found.items() if not good}
        assert expected in bad
        assert not any(name.startswith(("params", "extra", "opt", "hparams", "batch")) for name in bad)
        assert ("critic/loss" in bad) == (part == "value")


def test_one_compilation():
    """One training program a run: four dispatches compile exactly what one does."""
    compiled = []
    listener = lambda event, *_, **__: compiled.append(event)  # noqa: E731

    def compilations(steps):
        compiled.clear()
        harness.train(toys.adversarial(every=2), steps, devices=2, count=2)
        return sum("backend_compile" in event for event in compiled)

    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        compilations(2)  # the small programs of the surroundings are compiled once a process
        one = compilations(2)
        assert compilations(8) == one >= 1
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)


def test_cycle_is_the_least_common_multiple():
    model = toys.adversarial()
    loss = lambda *_: Loss(jnp.float32(0), {}, {})  # noqa: E731
    players = tuple(Player(str(every), (), loss, every) for every in (2, 3, 4))
    assert cycle_length(model._replace(players=players)) == 12


def test_streams_are_independent_and_stable():
    positions = np.arange(4)
    one = jax.random.key_data(rng.training_stream(0, 5, "critic", positions)("noise"))
    others = [
        rng.training_stream(1, 5, "critic", positions)("noise"),
        rng.training_stream(0, 6, "critic", positions)("noise"),
        rng.training_stream(0, 5, "generator", positions)("noise"),
        rng.training_stream(0, 5, "critic", positions)("other"),
        rng.training_stream(0, 5, "critic", positions + 4)("noise"),
        rng.evaluation_stream(0, positions)("noise"),
        rng.sample_keys(0, positions),
    ]
    every = np.concatenate([one, *(jax.random.key_data(keys) for keys in others)])
    assert len({tuple(row) for row in every}) == len(every)
    again = jax.random.key_data(rng.training_stream(np.uint32(0), np.int32(5), "critic", positions[2:])("noise"))
    np.testing.assert_array_equal(one[2:], again)
