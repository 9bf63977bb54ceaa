"""The learned path: what its loss trains and what it cannot, and everything that walks it, on exact denoisers."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latent import loops, rng
from latent.diffusion import (
    densities,
    edits,
    grids,
    learned_schedule,
    paths,
    predictions,
    schedules,
    spaces,
    weightings,
)
from latent.diffusion.denoiser import Denoiser, Guides
from latent.diffusion.generation import Generator, sampler
from latent.diffusion.paths import PATH
from latent.diffusion.predictions import PREDICTIONS
from latent.errors import UserError
from latent.types import DataSpec
from tests.diffusion import exact

ENDS = {"log_snr_max": 9.0, "log_snr_min": -6.0}
SPREAD = 0.6
SCHEDULE = paths.learned(hidden=16, **ENDS)
TIMES = (jnp.arange(4096) + 0.5) / 4096


def bent(seed=0, scale=1.0):
    """Parameters of a path far from a straight one: most of log-SNR lies in a part of [0, 1]."""
    params = learned_schedule.init(jax.random.key(seed), hidden=16)
    inner = {"weight": params["inner"]["weight"] + 12.0, "bias": -4.0 - 4.0 * scale + params["inner"]["bias"]}
    return params | {"inner": inner, "outer": params["outer"] + 4.0}


def error(level):
    """The mean squared error in eps of the exact denoiser of N(0, SPREAD^2)."""
    return 1.0 / (1.0 + jnp.exp(-level) / SPREAD**2)


def losses(params, t=TIMES):
    path = learned_schedule.learned(params, **ENDS)
    return 0.5 * weightings.rate(path, t) * error(path.log_snr(t))


def norm(tree):
    return float(optax.tree.norm(tree))


def test_the_bound_does_not_depend_on_what_lies_between_the_ends_and_its_variance_does():
    """Half the integral of the error over log-SNR, in closed form."""
    inside = lambda level: math.log1p(SPREAD**2 * math.exp(level))  # noqa: E731
    expected = 0.5 * (inside(ENDS["log_snr_max"]) - inside(ENDS["log_snr_min"]))
    spreads = []
    for params in (learned_schedule.init(jax.random.key(1), hidden=16), bent(), bent(1, 2.0)):
        found = np.asarray(jax.jit(losses)(params))
        assert found.mean() == pytest.approx(expected, rel=2e-3)
        spreads.append(found.std())
    assert max(spreads) > 1.3 * min(spreads), spreads


def test_the_loss_has_no_gradient_between_the_ends_and_its_square_has():
    params = bent()
    plain = jax.jit(jax.grad(lambda params: jnp.mean(losses(params))))(params)
    squared = jax.jit(jax.grad(lambda params: jnp.mean(losses(params) ** 2)))(params)
    assert norm(plain) < 0.01 * norm(squared) and norm(squared) > 0.1
    # From the first time that training draws to the last, a path has the ends that it was given.
    path = SCHEDULE.at(params)
    ends = path.log_snr(jnp.asarray([path.min_time, 1.0]))
    np.testing.assert_allclose(ends, [ENDS["log_snr_max"], ENDS["log_snr_min"]], atol=1e-3)


def judged(path, weights, t, data):
    """A denoiser of N(0, SPREAD^2) that is exact where its one weight is 1."""
    z, eps = data
    x = schedules.perturb(path, z, eps, t)
    alpha, sigma = (schedules.expand(level(t), x) for level in (path.alpha, path.sigma))
    found = weights * sigma * x / ((alpha * SPREAD) ** 2 + sigma**2) + 0.1 * schedules.expand(path.clock(t), x)
    plain = jnp.mean((found - eps) ** 2, axis=1)
    return weightings.elbo()(path, PREDICTIONS["eps"], t) * plain, {"error": plain}


def drawn(size, key):
    """t, and the data of `judged`."""
    first, second, third = jax.random.split(key, 3)
    z, eps = SPREAD * jax.random.normal(first, (size, 3)), jax.random.normal(second, (size, 3))
    return jax.random.uniform(third, (size,), minval=1e-3), (z, eps)


def test_one_backward_pass_gives_the_weights_their_gradient_and_the_path_that_of_the_square():
    span = ENDS["log_snr_max"] - ENDS["log_snr_min"]
    t, data = drawn(64, jax.random.key(0))

    def trained(weights, params):
        found, told = SCHEDULE.errors(judged, SCHEDULE.of({PATH: params}), weights, t, data)
        return jnp.mean(found), (found, told)

    def plain(weights, params):
        found, _ = judged(learned_schedule.learned(params, **ENDS), weights, t, data)
        return jnp.stack([jnp.mean(found), jnp.mean(found**2) / span]), found

    @jax.jit
    def both(*where):
        one = jax.grad(trained, argnums=(0, 1), has_aux=True)(*where)
        return one, jax.jacrev(plain, argnums=(0, 1), has_aux=True)(*where)

    ((own, squared), (found, told)), ((slopes, paths), expected) = both(jnp.asarray(0.7), bent())
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert set(told) == {"error"}
    np.testing.assert_allclose(own, slopes[0], rtol=1e-3)
    of_square = jax.tree.map(lambda leaf: leaf[1], paths)
    near = functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=1e-4 * norm(of_square))
    jax.tree.map(near, squared, of_square)
    assert norm(of_square) > 0.01 and norm(jax.tree.map(lambda leaf: leaf[0], paths)) > 0.01


def test_training_makes_the_loss_alike_at_all_times_and_leaves_its_mean():
    optimiser, params = optax.adam(0.03), bent()

    def update(carry, key):
        params, state = carry
        t, data = drawn(256, key)
        loss = lambda params: jnp.mean(SCHEDULE.errors(exactly, SCHEDULE.at(params), None, t, data)[0])  # noqa: E731
        updates, state = optimiser.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    exactly = lambda path, weights, t, data: (  # noqa: E731
        weightings.elbo()(path, PREDICTIONS["eps"], t) * error(path.log_snr(t)),
        None,
    )
    keys = jax.random.split(jax.random.key(2), 300)
    (trained, _), _ = jax.jit(lambda carry: jax.lax.scan(update, carry, keys))((params, optimiser.init(params)))
    before, after = np.asarray(losses(params)), np.asarray(losses(trained))
    assert after.mean() == pytest.approx(before.mean(), rel=5e-3)
    assert after.std() < 0.4 * before.std(), (before.std(), after.std())


class ExactNet:
    """The denoiser of the mixture as a net that predicts v. It knows no path: the clock tells it the level."""

    def apply(self, variables, x, clock, condition, previous):
        level = ENDS["log_snr_max"] - (ENDS["log_snr_max"] - ENDS["log_snr_min"]) * clock[0]
        alpha, sigma = jnp.sqrt(jax.nn.sigmoid(level)), jnp.sqrt(jax.nn.sigmoid(-level))
        found = exact.denoise(exact.MIXTURE, x, alpha, sigma)
        return predictions.target(PREDICTIONS["v"], found.x0, found.eps, alpha, sigma)


DEFAULTS = {"sampler": "ddim", "steps": 40, "grid": "log_snr", "guidance": 1.0, "options": {}} | {
    "guidance_interval": (), "guidance_rescale": 0.0, "autoguidance": 1.0, "classifier_scale": 0.0
}  # fmt: skip
SPEC = DataSpec("toy", (2,), 0, 64, np.zeros(2, np.float32), "real")
GENERATOR = Generator(
    Denoiser(ExactNet(), SCHEDULE, PREDICTIONS["v"], False, False, False), Guides(), spaces.pixels(SPEC), 0, DEFAULTS
)
BENT = {name: {"denoiser": {}, PATH: params} for name, params in (("early", bent()), ("late", bent(1, 2.0)))}


@pytest.mark.parametrize("name", grids.GRIDS)
def test_grids_of_a_learned_path_descend_to_the_data(name):
    path = SCHEDULE.of(BENT["early"])
    if name == "leading":
        with pytest.raises(UserError, match="leading"):
            grids.GRIDS[name](path, 5)
        return
    for steps in (1, 2, 7):
        times = np.asarray(grids.GRIDS[name](path, steps))
        assert times.shape == (steps + 1,) and times[-1] == 0 and times[-2] >= path.min_time
        assert (np.diff(times) < 0).all() and times[0] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("name", "grid"), [("ddpm", "log_snr"), ("dpmpp_2m", "karras")])
def test_samples_on_a_trained_path_have_the_moments_of_the_data(name, grid):
    """At two parameters, with one program: whatever walks must ask for the path of the parameters that it is given."""
    draw, keys = sampler(GENERATOR), rng.sample_keys(0, jnp.arange(4000))
    mean, cov = exact.moments(exact.MIXTURE)
    drawn = [np.asarray(draw(params, {}, keys, sampler=name, grid=grid)) for params in BENT.values()]
    for found in drawn:
        np.testing.assert_allclose(found.mean(0), mean, atol=5 * np.sqrt(cov.max() / 4000) + 0.03)
        np.testing.assert_allclose(np.cov(found.T), cov, atol=0.12 * cov.max())


def test_the_loop_and_single_steps_give_the_same_samples_which_follow_the_parameters(monkeypatch):
    found = []
    for scan in (True, False):
        monkeypatch.setattr(loops, "rollable", lambda *_, scan=scan: scan)
        draw, keys = sampler(GENERATOR), rng.sample_keys(0, jnp.arange(4))
        found.append(np.stack([draw(params, {}, keys, grid="trailing", steps=4) for params in BENT.values()]))
    np.testing.assert_allclose(*found, atol=2e-5)
    assert np.abs(found[0][0] - found[0][1]).max() > 0.02


@pytest.mark.slow
def test_likelihoods_on_a_trained_path_are_those_of_the_data():
    x = exact.draw(exact.MIXTURE, 60)
    expected = -np.asarray(exact.log_density(exact.MIXTURE, jnp.asarray(x, jnp.float32))) / 2 / math.log(2)
    batch = {"x": jnp.asarray(x, jnp.float32), "label": jnp.zeros(60, jnp.int32)}
    keys = rng.sample_keys(0, jnp.arange(60))
    functions = densities.likelihoods(GENERATOR, "real", False)
    found = functions["ode"](BENT["late"], {}, batch, keys, steps=150, divergence="exact")
    np.testing.assert_allclose(found, expected, atol=0.1)
    bound = np.asarray(functions["vlb"](BENT["late"], {}, batch, keys, steps=300, grid="log_snr"))
    assert expected.mean() - 0.1 < bound.mean() < expected.mean() + 0.3


@pytest.mark.slow
def test_edits_walk_the_trained_path():
    x, keys = jnp.asarray(exact.draw(exact.MIXTURE, 5), jnp.float32), rng.sample_keys(0, jnp.arange(5))
    made = edits.edits(GENERATOR)
    for params in BENT.values():
        back = made["invert"](params, {}, keys, x, None, sampler="heun", steps=60)
        np.testing.assert_allclose(back["x"], x, atol=0.05)
    # Half of the steps are not half of the noise: where that level lies is the path's.
    early, late = (made["img2img"](params, {}, keys, x, None, grid="trailing")["x"] for params in BENT.values())
    assert np.isfinite(early).all() and np.abs(late - early).max() > 0.02


@pytest.mark.parametrize(
    ("options", "words"), [({"log_snr_max": -6.0}, "log_snr_min=-5.0"), ({"hidden": 0}, "hidden=0")]
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        paths.learned(**options)
