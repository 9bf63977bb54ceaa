"""Every sampler on every path: exact maps, exact moments, its order of convergence, and the loop that runs it.

A new file in `latent/diffusion/samplers` is picked up by itself.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent import config, rng
from latent.diffusion import learned_schedule, predictions, sampling, schedules
from latent.diffusion.grids import GRIDS
from latent.diffusion.predictions import PREDICTIONS
from latent.diffusion.samplers import ddpm, unipc
from latent.errors import UserError
from tests.diffusion import exact
from tests.harness import thinned

PACKAGE = "latent.diffusion.samplers"
NAMES = config.names(PACKAGE)
BUILD = {name: config.select(PACKAGE, name, "sampler", "sampler") for name in NAMES}
RANDOM = ("ddpm", "dpmpp_2m_sde")
ORDERS = {"ddim": 1, "euler": 1, "heun": 2, "dpmpp_2m": 2, "unipc": 3}
PATHS = exact.every_path()


def final(name, path, mixture, x, times, options=(), noise=None):
    return exact.walk(BUILD[name](path, times, **dict(options)), exact.denoiser(mixture, path), x, noise)[-1]


@functools.cache
def through_every(path, rows):
    """Row k of x goes through prediction k."""

    @jax.jit
    def denoise(x, t):
        alpha, sigma = path.alpha(t), path.sigma(t)
        found = exact.denoise(exact.MIXTURE, x, alpha, sigma)
        each = []
        for row, prediction in enumerate(rows):
            output = predictions.target(prediction, found.x0, found.eps, alpha, sigma)
            estimate = predictions.denoised(prediction, output, x, alpha, sigma)
            each.append((estimate.x0[row], estimate.eps[row]))
        return predictions.Denoised(*(jnp.stack(values) for values in zip(*each, strict=True)))

    return denoise


@pytest.mark.parametrize("path", thinned(PATHS, {"linear_zero_terminal_snr"}))
@pytest.mark.parametrize("name", NAMES)
def test_every_prediction_gives_finite_samples_that_end_in_x0(name, path):
    """On every path, to both ends: pure noise at the start, the data at the end. Each row is another prediction."""
    path = PATHS[path]
    times = GRIDS["trailing"](path, 4)
    sampler = BUILD[name](path, times)
    rows = [each for each in PREDICTIONS.values() if each.at_pure_noise or not path.zero_terminal_snr]
    denoise = through_every(path, tuple(rows))
    same = lambda value: jnp.broadcast_to(value, (len(rows), 2))  # noqa: E731
    x = same(schedules.prior_scale(path, times[0]) * jnp.asarray([0.4, -1.1]))
    noise = [same(z) for z in jax.random.normal(jax.random.key(1), (4, 2))]
    found = exact.walk(sampler, denoise, x, noise)
    assert found.shape == (5, len(rows), 2) and np.isfinite(found).all()
    np.testing.assert_allclose(found[-1], same(found[-1, 0]), atol=5e-3)
    if name != "unipc":  # which corrects its last point before it denoises
        np.testing.assert_allclose(found[-1], denoise(jnp.asarray(found[-2]), times[-2]).x0, atol=1e-4)
    assert sampler.num_steps == 4 and sampler.calls_per_step == (2 if name == "heun" else 1)


@pytest.mark.parametrize(
    "path", thinned(["continuous_linear", "edm", "rectified_flow", "continuous_cosine"], {"rectified_flow"})
)
@pytest.mark.parametrize("name", ORDERS)
def test_order_of_convergence_to_the_exact_map(name, path):
    """On one Gaussian the probability-flow ODE is known in closed form, between any two levels."""
    path = PATHS[path]
    with jax.enable_x64(True):
        x = jnp.asarray(exact.SAMPLERS["gauss8d_x_T"])
        ends = path.time(jnp.asarray([-5.0, 4.0]))
        levels = [(float(path.alpha(t)), float(path.sigma(t))) for t in ends]
        target = exact.flow_map(exact.GAUSSIAN, x, *levels)
        errors = []
        for steps in (40, 80):
            times = GRIDS["log_snr"](path, steps, start=float(ends[0]), end=float(ends[1]), to_data=False)
            options = {"lower_order_final": False} if name in ("dpmpp_2m", "unipc") else {}
            found = final(name, path, exact.GAUSSIAN, x, times, tuple(options.items()))
            errors.append(np.abs(found - target).max())
        order = np.log2(errors[0] / errors[1])
        assert ORDERS[name] - 0.25 < order < ORDERS[name] + 0.6, (order, errors)


@pytest.mark.parametrize("name", thinned(["ddim", "heun", "dpmpp_2m", "unipc"], {"heun", "dpmpp_2m"}))
def test_the_exact_map_of_the_mixture_is_reached(name):
    """From the reference's start to the data; 1 / n in the last step is what remains of first order."""
    path = PATHS["linear"]
    with jax.enable_x64(True):
        x = jnp.asarray(exact.SAMPLERS["exact_pfode_x_start_vp"])
        errors = []
        for steps in (40, 160):
            times = GRIDS["karras"](path, steps)
            errors.append(np.abs(final(name, path, exact.MIXTURE, x, times) - exact.SAMPLERS["exact_pfode_x0"]).max())
        assert errors[1] < (0.02 if name == "ddim" else 2e-3) and errors[1] < 0.4 * errors[0], errors


@pytest.mark.parametrize(
    "path", thinned(["linear_zero_terminal_snr", "edm", "rectified_flow_shifted"], {"linear_zero_terminal_snr"})
)
@pytest.mark.parametrize("name", NAMES)
def test_samples_have_the_moments_of_the_data(name, path):
    """The random ones too. The mixture has unit-order moments, and its prior is met to rounding."""
    path = PATHS[path]
    size, steps = 4000, 60
    keys = rng.sample_keys(0, jnp.arange(size))
    grid = "trailing" if path.zero_terminal_snr else "linear"
    times = GRIDS[grid](path, steps)
    x = sampling.start(keys, (2,), schedules.prior_scale(path, times[0]))
    denoise = exact.denoiser(exact.MIXTURE, path)
    run = sampling.runner(BUILD[name](path, times), lambda inputs, x, t: denoise(x, t))
    found = np.asarray(run((), x, keys))
    mean, cov = exact.moments(exact.MIXTURE)
    np.testing.assert_allclose(found.mean(0), mean, atol=5 * np.sqrt(cov.max() / size) + 0.02)
    np.testing.assert_allclose(np.cov(found.T), cov, atol=0.12 * cov.max())


@pytest.mark.parametrize("path", ["cosine", "edm", "rectified_flow"])
def test_ddim_with_eta_one_is_ddpm_with_the_small_variance(path):
    path = PATHS[path]
    with jax.enable_x64(True):
        times = GRIDS["linear"](path, 7)
        x = jnp.asarray(exact.SAMPLERS["x_T"])
        noise = jnp.asarray(exact.SAMPLERS["noise"][:7])
        ancestral = final("ddpm", path, exact.MIXTURE, x, times, (("variance", "fixed_small"),), noise)
        np.testing.assert_allclose(final("ddim", path, exact.MIXTURE, x, times, (("eta", 1.0),), noise), ancestral)
        euler = final("euler", path, exact.MIXTURE, x, times)
        np.testing.assert_allclose(final("ddim", path, exact.MIXTURE, x, times), euler, rtol=1e-6)


def test_reverse_steps_equal_guided_diffusion():
    """Posterior tables of one-step reverse transitions, and the mean and log-variance of a learned range."""
    values = exact.SCHEDULE_VALUES
    path = PATHS["linear"]
    with jax.enable_x64(True):
        t = jnp.asarray(np.arange(2, 1001) / 1000)
        small, _ = ddpm.log_variance_bounds(
            path.alpha(t - 1e-3), path.sigma(t - 1e-3), path.log_snr(t), path.log_snr(t - 1e-3)
        )
        np.testing.assert_allclose(small, values["gd__posterior_log_variance_clipped"][1:], atol=1e-8)
        np.testing.assert_allclose(jnp.exp(small), values["gd__posterior_variance"][1:], rtol=1e-8)
        for row, index in enumerate(values["gd__t"]):
            if index == 0:
                continue
            times = jnp.asarray([(index + 1) / 1000, index / 1000])
            sampler = ddpm.sampler(path, times, variance="learned")
            x = jnp.asarray(values["gd__x_t"][row][None])
            eps, share = jnp.split(jnp.asarray(values["gd__model_output"][row][None]), 2, axis=1)
            found = predictions.denoised(PREDICTIONS["eps"], eps, x, path.alpha(times[0]), path.sigma(times[0]), share)
            mean = sampler.step(lambda x, t: found, x, 0, jnp.zeros_like(x))  # noqa: B023
            np.testing.assert_allclose(mean[0], values["gd__p_mean"][row], atol=1e-9)
            moved = sampler.step(lambda x, t: found, x, 0, jnp.ones_like(x))  # noqa: B023
            np.testing.assert_allclose((moved - mean)[0] ** 2, values["gd__p_variance"][row], rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_loop_and_single_steps_give_the_same_numbers(name):
    path = PATHS["scaled_linear"]
    times = GRIDS["trailing"](path, 5)
    keys = rng.sample_keys(3, jnp.arange(6))
    x = sampling.start(keys, (2,))

    def denoise(scale, x, t):
        return exact.denoise(exact.MIXTURE, scale * x, path.alpha(t), path.sigma(t))

    one = sampling.runner(BUILD[name](path, times), denoise, scan=True)(jnp.asarray(1.0), x, keys)
    single = sampling.runner(BUILD[name](path, times), denoise, scan=False)
    scale, one = jnp.asarray(1.0), np.asarray(one)
    np.testing.assert_allclose(single(scale, x, keys), one, atol=2e-6)
    # A sample is its key's, not its batch's: others beside it start elsewhere (in the same shape, nothing to compile).
    np.testing.assert_allclose(single(scale, x.at[:4].multiply(3.0), keys)[4:], one[4:], atol=2e-6)
    if name in RANDOM:
        assert np.abs(np.asarray(single(scale, x, keys[::-1])) - one).max() > 0.01


def test_noise_of_a_step_depends_on_sample_and_step_alone():
    seen = []
    grid = GRIDS["trailing"](PATHS["linear"], 3)

    def step(denoise, carry, i, noise):
        return carry.at[i].set(noise)

    recorder = sampling.Sampler(lambda x: jnp.zeros((3, *x.shape)), step, jnp.asarray, grid.shape[0] - 1)
    keys = rng.sample_keys(0, jnp.arange(4))
    x = sampling.start(keys, (5,))
    whole = sampling.runner(recorder, lambda inputs, x, t: None)((), x, keys)
    part = sampling.runner(recorder, lambda inputs, x, t: None)((), x[2:], keys[2:])
    np.testing.assert_array_equal(whole[:, 2:], part)
    rows = np.concatenate([np.asarray(whole).reshape(12, 5), np.asarray(x)])
    assert len(np.unique(rows, axis=0)) == 16, seen


def test_inversion_leads_back_to_the_noise():
    """DDIM along increasing times is the ODE from data to noise: there and back is the identity, to first order."""
    path = PATHS["continuous_linear"]
    with jax.enable_x64(True):
        times = GRIDS["log_snr"](path, 150, end=0.02, to_data=False)
        x = jnp.asarray(exact.SAMPLERS["x_T"])
        sample = final("ddim", path, exact.MIXTURE, x, times)
        for name, limit in (("ddim", 0.12), ("heun", 0.08)):
            back = final(name, path, exact.MIXTURE, jnp.asarray(sample), jnp.flip(times))
            np.testing.assert_allclose(back, x, atol=limit)


def test_self_conditioning_tells_the_previous_estimate():
    path = PATHS["linear"]
    times = GRIDS["trailing"](path, 3)
    told = []

    def denoise(x, t, previous):
        told.append(np.asarray(previous))
        estimate = exact.denoise(exact.MIXTURE, x, path.alpha(t), path.sigma(t))
        told.append(np.asarray(estimate.x0))
        return estimate

    for name in ("ddim", "heun"):
        told.clear()
        sampler = sampling.self_conditioned(BUILD[name](path, times))
        carry = sampler.init(jnp.ones((2, 2)))
        for i in range(3):
            carry = sampler.step(denoise, carry, i, jnp.zeros((2, 2)))
        assert sampler.finish(carry).shape == (2, 2)
        assert (told[0] == 0).all()
        for estimate, later in zip(told[1:-1:2], told[2::2], strict=True):
            np.testing.assert_array_equal(later, estimate)


def test_self_conditioning_runs_in_either_loop():
    path = PATHS["linear"]
    sampler = sampling.self_conditioned(BUILD["ddim"](path, GRIDS["trailing"](path, 4)))
    keys = rng.sample_keys(0, jnp.arange(3))
    x = sampling.start(keys, (2,))

    def denoise(share, x, t, previous):
        estimate = exact.denoise(exact.MIXTURE, x, path.alpha(t), path.sigma(t))
        return estimate._replace(x0=(1 - share) * estimate.x0 + share * previous)

    told, untold = (sampling.runner(sampler, denoise)(jnp.asarray(share), x, keys) for share in (0.3, 0.0))
    np.testing.assert_allclose(
        sampling.runner(sampler, denoise, scan=False)(jnp.asarray(0.3), x, keys), told, atol=1e-6
    )
    assert np.abs(told - untold).max() > 0.01


def test_a_learned_path_can_be_sampled_inside_a_compiled_function():
    params = learned_schedule.init(jax.random.key(0), hidden=8)
    x = jax.random.normal(jax.random.key(1), (4, 2))

    @jax.jit
    def sample(params, x):
        path = learned_schedule.learned(params)
        sampler = BUILD["dpmpp_2m"](path, GRIDS["log_snr"](path, 6))
        denoise = exact.denoiser(exact.MIXTURE, path)
        return sampling.runner(sampler, lambda inputs, x, t: denoise(x, t))(
            (), x, jax.random.split(jax.random.key(2), 4)
        )

    assert np.isfinite(sample(params, x)).all()


@pytest.mark.parametrize(
    ("name", "path", "options", "key"),
    [
        ("ddim", "linear", {"eta": 1.5}, "eta"),
        ("ddpm", "linear", {"variance": "small"}, "variance"),
        ("heun", "rectified_flow", {"variance_exploding": True}, "variance_exploding"),
        ("heun", "edm", {"churn": -1.0}, "churn"),
        ("unipc", "linear", {"order": 4}, "order"),
        ("dpmpp_2m_sde", "linear", {"eta": -0.1}, "eta"),
    ],
)
def test_bad_options_are_refused(name, path, options, key):
    with pytest.raises(UserError, match=key):
        BUILD[name](PATHS[path], GRIDS["trailing"](PATHS[path], 4), **options)


def test_learned_variance_is_refused_without_a_net_that_learns_it():
    path = PATHS["linear"]
    sampler = ddpm.sampler(path, GRIDS["trailing"](path, 4), variance="learned")
    with pytest.raises(UserError, match="learned"):
        sampler.step(exact.denoiser(exact.MIXTURE, path), jnp.ones((2, 2)), 0, jnp.ones((2, 2)))


def test_unipcs_weights_keep_their_digits_over_short_steps():
    def weights():
        path = PATHS["cosine"]
        return unipc.tables(sampling.levels(path, GRIDS["trailing"](path, 1000)), 3, True)

    single = weights()
    with jax.enable_x64(True):
        double = weights()
    for found, exactly in zip(single, double, strict=True):
        np.testing.assert_allclose(found, exactly, atol=1e-3)
