"""Every path: its two ends, monotone, an exact inverse, derivatives; the tables against the reference."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent.diffusion import learned_schedule, predictions, schedules, weightings
from latent.errors import UserError
from tests.diffusion import exact
from tests.harness import thinned

PATHS = exact.every_path()
PATHS["learned"] = learned_schedule.learned(learned_schedule.init(jax.random.key(0), hidden=16))
TABLES = ("linear", "scaled_linear", "cosine")
QUICK = {"linear", "cosine", "continuous_cosine", "sigmoid", "edm", "rectified_flow_shifted", "learned"}
each_path = pytest.mark.parametrize("name", thinned(PATHS, QUICK))


@each_path
def test_a_path_leads_from_data_to_noise(name):
    path = PATHS[name]
    t = np.linspace(0.0, 1.0, 201)
    alpha, sigma, level = jax.device_get(jax.jit(lambda t: tuple(f(t) for f in path[:3]))(t))
    assert (np.diff(sigma / np.hypot(alpha, sigma)) > -1e-6).all() and (np.diff(level) < 0).all()
    assert np.isfinite(alpha).all() and np.isfinite(sigma).all() and np.isfinite(level[1:-1]).all()
    np.testing.assert_allclose(level[1:-1], 2 * np.log(alpha[1:-1] / sigma[1:-1]), rtol=1e-4, atol=1e-4)
    assert (alpha[-1] == 0) == path.zero_terminal_snr
    assert alpha[0] == 1 and sigma[0] == 0 and level[0] == np.inf
    assert 0 < path.min_time < 1


@each_path
def test_the_inverse_is_exact_and_differentiable(name):
    path = PATHS[name]
    with jax.enable_x64(True):
        if name == "learned":
            path = learned_schedule.learned(learned_schedule.init(jax.random.key(0), hidden=16))
        t, step = np.linspace(0.0, 1.0, 40)[1:-1], 1e-6

        @jax.jit
        def found(t):
            level, slope = jax.jvp(path.log_snr, (t,), (jnp.ones_like(t),))
            back, inverse = jax.jvp(path.time, (level,), (jnp.ones_like(t),))
            difference = (path.log_snr(t + step) - path.log_snr(t - step)) / (2 * step)
            return back, slope * inverse, weightings.rate(path, t), difference

        back, one, rate, difference = found(t)
        np.testing.assert_allclose(back, t, atol=1e-9)
        np.testing.assert_allclose(one, np.ones(38), rtol=1e-6)
        # What the weightings use is the derivative.
        np.testing.assert_allclose(-np.asarray(rate), difference, rtol=1e-2 if path.num_timesteps else 1e-6)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize("name", TABLES)
def test_tables_equal_the_reference_at_their_points(name, zero_terminal_snr):
    path = schedules.SCHEDULES[name](zero_terminal_snr=zero_terminal_snr)
    closed = exact.SCHEDULE_VALUES[
        f"{name}_zerosnr__alphas_cumprod_closed" if zero_terminal_snr else f"{name}__alphas_cumprod"
    ]
    points = np.arange(1, 1001) / 1000
    single = np.asarray(path.alpha(jnp.asarray(points, jnp.float32)), float) ** 2
    np.testing.assert_allclose(single, closed, rtol=2e-5, atol=1e-6 if zero_terminal_snr else 0.0)
    with jax.enable_x64(True):
        found = path.alpha(jnp.asarray(points))
        np.testing.assert_allclose(found**2, closed, rtol=1e-9, atol=1e-18)
        np.testing.assert_allclose(found**2 + path.sigma(jnp.asarray(points)) ** 2, np.ones(1000), rtol=1e-12)


def test_discrete_and_continuous_linear_agree_in_the_limit():
    """T betas of size beta(t) / T approach the SDE as 1 / T."""
    with jax.enable_x64(True):
        t = jnp.linspace(0.05, 0.95, 10)
        continuous = schedules.SCHEDULES["continuous_linear"]().log_snr(t)
        errors = []
        for size in (1000, 4000):
            table = schedules.SCHEDULES["linear"](size, 0.1 / size, 20.0 / size)
            errors.append(float(jnp.abs(table.log_snr(t) - continuous).max()))
        assert 3.5 < errors[0] / errors[1] < 4.5 and errors[1] < 0.02


def test_sigmoid_has_the_published_form():
    path = schedules.SCHEDULES["sigmoid"](num_timesteps=10)
    squash = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    t = np.arange(1, 10) / 10
    expected = (squash(3) - squash(6 * t - 3)) / (squash(3) - squash(-3))
    np.testing.assert_allclose(path.alpha(jnp.asarray(t, jnp.float32)) ** 2, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["rectified_flow", "continuous_cosine"])
def test_a_shift_moves_log_snr_by_twice_its_logarithm(name):
    t = jnp.linspace(0.1, 0.9, 5)
    plain, shifted = schedules.SCHEDULES[name](), schedules.SCHEDULES[name](shift=3.0)
    np.testing.assert_allclose(shifted.log_snr(t), plain.log_snr(t) - 2 * np.log(3.0), rtol=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [10, 20, 50])
def test_the_flow_shift_acts_once(shift, steps):
    path = schedules.SCHEDULES["rectified_flow"](shift=shift)
    sigma = path.sigma(jnp.linspace(1.0, 0.0, steps + 1))
    np.testing.assert_allclose(sigma, exact.SCHEDULE_VALUES[f"flow_sigmas_single_shift{shift}__{steps}"], atol=1e-6)


def test_edm_spaces_its_levels_by_their_seventh_root():
    path = schedules.SCHEDULES["edm"]()
    t = jnp.linspace(1.0, path.min_time, 20)
    np.testing.assert_allclose(path.sigma(t), exact.SCHEDULE_VALUES["karras_sigmas__20"][:-1], rtol=2e-5)


def test_the_variance_exploding_path_has_the_range_it_is_given():
    path = schedules.SCHEDULES["variance_exploding"](0.01, 50.0)
    np.testing.assert_allclose(path.sigma(jnp.asarray([path.min_time, 1.0])), [0.01, 50.0], rtol=1e-5)


def test_the_learned_path_gives_gradients_to_its_parameters():
    params = learned_schedule.init(jax.random.key(0), hidden=8)
    path = learned_schedule.learned(params, log_snr_max=9.0, log_snr_min=-4.0)
    np.testing.assert_allclose(path.log_snr(jnp.asarray([path.min_time, 1.0])), [9.0, -4.0], rtol=1e-5)

    def inverse(params):
        return learned_schedule.learned(params).time(jnp.asarray(1.0))

    gradient = jax.jit(jax.grad(inverse))(params)
    moved = lambda step: params | {"slope": params["slope"] + step}  # noqa: E731
    difference = (jax.jit(inverse)(moved(0.1)) - jax.jit(inverse)(moved(-0.1))) / 0.2
    np.testing.assert_allclose(gradient["slope"], difference, rtol=0.05)
    assert jax.tree.all(jax.tree.map(lambda g: jnp.abs(g).max() > 0, gradient))


def test_samples_of_the_path_have_its_moments():
    path = PATHS["linear"]
    x0, eps = jnp.asarray([[2.0, 0.0], [0.0, 1.0]]), jnp.asarray([[0.0, 1.0], [1.0, 1.0]])
    t = jnp.asarray([0.2, 0.7])
    expected = path.alpha(t)[:, None] * x0 + path.sigma(t)[:, None] * eps
    np.testing.assert_allclose(schedules.perturb(path, x0, eps, t), expected, rtol=1e-6)
    np.testing.assert_allclose(schedules.prior_scale(PATHS["edm"]), np.hypot(1, 80), rtol=1e-6)


@pytest.mark.parametrize(
    "build",
    [
        lambda: schedules.SCHEDULES["edm"](sigma_min=2.0, sigma_max=1.0),
        lambda: schedules.SCHEDULES["rectified_flow"](shift=0.0),
        lambda: schedules.SCHEDULES["linear"](num_timesteps=1),
        lambda: predictions.find("eps", PATHS["rectified_flow"]),
        lambda: predictions.find("noise", PATHS["linear"]),
    ],
)
def test_bad_input_is_refused(build):
    with pytest.raises(UserError):
        build()
