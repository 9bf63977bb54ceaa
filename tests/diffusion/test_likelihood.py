"""Bounds and ODE likelihoods against exact log-densities, and the terms of a discrete bound against the reference."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent import rng
from latent.diffusion import likelihood, predictions, sampling, schedules
from latent.diffusion.grids import GRIDS
from latent.diffusion.predictions import PREDICTIONS
from latent.errors import UserError
from tests.diffusion import exact
from tests.harness import thinned

PATHS = {name: exact.every_path()[name] for name in ("linear", "continuous_linear", "edm", "rectified_flow")}
X = exact.draw(exact.MIXTURE, 5)


def run(sampler, path, x, repeat=1):
    """The sampler's result for x, each example `repeat` times with keys of its own."""
    denoise = exact.denoiser(exact.MIXTURE, path)
    x = jnp.repeat(jnp.asarray(x), repeat, axis=0)
    keys = rng.sample_keys(0, jnp.arange(len(x)))
    found = sampling.runner(sampler, lambda inputs, x, t: denoise(x, t))((), x, keys)
    return jax.tree.map(lambda value: np.asarray(value).reshape(-1, repeat), found)


def fine(path, steps, end=1e-3):
    """Levels with sigma / alpha from that of t = 1, or 200 where it is infinite, down to `end`."""
    start = 1.0 if not path.zero_terminal_snr else float(path.time(jnp.asarray(-2 * np.log(200.0))))
    low = float(path.time(jnp.asarray(-2 * np.log(end))))
    return GRIDS["log_snr"](path, steps, start=start, end=low, to_data=False)


@pytest.mark.parametrize("name", thinned(PATHS, {"edm", "rectified_flow"}))
def test_the_ode_gives_the_exact_log_density(name):
    with jax.enable_x64(True):
        path = PATHS[name]
        times = fine(path, 60)
        found = run(likelihood.ode(path, times), path, X)[:, 0]
        # What is left is the prior: at the noisy end the mixture's own law has a mean of alpha / sigma.
        slack = 0.03 if name == "edm" else 5e-3
        np.testing.assert_allclose(found, exact.log_density(exact.MIXTURE, jnp.asarray(X)), atol=slack)


@pytest.mark.parametrize("name", thinned(["continuous_linear", "rectified_flow"], {"rectified_flow"}))
def test_a_grid_that_ends_early_gives_the_density_of_what_it_makes(name):
    """That of x_t / alpha at the last level: still a density of x, and known."""
    with jax.enable_x64(True):
        path = PATHS[name]
        times = fine(path, 40, end=0.5)
        alpha, sigma = path.alpha(times[-1]), path.sigma(times[-1])
        found = run(likelihood.ode(path, times), path, X)[:, 0]
        expected = exact.log_density(exact.MIXTURE, alpha * jnp.asarray(X), alpha, sigma) + 2 * jnp.log(alpha)
        np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.parametrize(("method", "order"), [pytest.param("heun", 2, marks=pytest.mark.slow), ("rk4", 4)])
def test_the_ode_converges_at_its_order(method, order):
    with jax.enable_x64(True):
        path = PATHS["continuous_linear"]
        values = [
            run(likelihood.ode(path, fine(path, n, end=0.05), method=method), path, X)[:, 0] for n in (40, 80, 320)
        ]
        errors = [np.abs(value - values[-1]).max() for value in values[:-1]]
        assert order - 0.4 < np.log2(errors[0] / errors[1]) < order + 1.2, errors


def test_random_probes_are_unbiased():
    path = PATHS["continuous_linear"]
    times = fine(path, 20, end=0.01)
    x = np.float32(X[:2])
    whole = run(likelihood.ode(path, times), path, x)
    probed = run(likelihood.ode(path, times, divergence="hutchinson"), path, x, repeat=500)
    error = probed.std(axis=1) / np.sqrt(500)
    assert (error > 0).all()
    np.testing.assert_array_less(np.abs(probed.mean(axis=1) - whole[:, 0]), 4 * error + 1e-4)


@pytest.mark.parametrize("name", thinned(["continuous_linear", "edm", "rectified_flow"], {"rectified_flow"}))
def test_bounds_rise_to_the_exact_log_density(name):
    """More steps, a tighter bound; infinitely many with the exact denoiser, no gap. All below log p(x)."""
    with jax.enable_x64(True):
        path = PATHS[name]
        truth = np.asarray(exact.log_density(exact.MIXTURE, jnp.asarray(X)))
        size = 1500
        found, errors = [], []
        for steps in (8, 32, 128):
            bound = run(likelihood.vlb(path, fine(path, steps, end=0.01)), path, X, size)
            bound = -sum(bound)
            found.append(bound.mean(axis=1))
            errors.append(bound.std(axis=1) / np.sqrt(size))
        limit = float(path.time(jnp.asarray(-2 * np.log(200.0)))) if path.zero_terminal_snr else 1.0
        end = float(path.time(jnp.asarray(-2 * np.log(0.01))))
        bound = run(likelihood.continuous_vlb(path, 200, start=limit, end=end), path, X, size)
        bound = -sum(bound)
        found.append(bound.mean(axis=1))
        errors.append(bound.std(axis=1) / np.sqrt(size))
        assert (found[0] + 0.3 < found[1]).all() and (found[1] < found[2] + 4 * errors[2]).all(), found
        assert (found[2] < found[3] + 4 * errors[3]).all(), found
        np.testing.assert_array_less(found[3] - truth, 4 * errors[3] + 2e-3)
        np.testing.assert_array_less(np.abs(found[3] - truth), 4 * errors[3] + 0.01)


def test_the_bound_does_not_depend_on_the_path_between_its_ends():
    """Equal noise at equal log-SNR: the two paths agree number by number."""
    with jax.enable_x64(True):
        values = []
        for name in ("continuous_linear", "edm"):
            path = PATHS[name]
            start, end = (float(path.time(jnp.asarray(level))) for level in (-8.0, 8.0))
            values.append(run(likelihood.continuous_vlb(path, 50, start, end), path, X, 3).diffusion)
        np.testing.assert_allclose(values[0], values[1], rtol=1e-8)


def test_steps_of_the_bound_are_the_gaussian_divergences():
    """The closed form of a step equals the divergence of its two normal distributions."""
    path = PATHS["linear"]
    with jax.enable_x64(True):
        t, s = jnp.asarray(0.4), jnp.asarray(0.35)
        x, x0 = jnp.asarray([[0.3, -1.0]]), jnp.asarray([[0.5, 0.2]])
        snr = [jnp.exp(path.log_snr(time)) for time in (t, s)]
        ratio = snr[0] / snr[1]
        # Means of q(x_s | x_t, x) and of the model differ by alpha_s (1 - SNR_t / SNR_s) (x - x0).
        variance = path.sigma(s) ** 2 * (1 - ratio)
        mean = path.alpha(s) * (1 - ratio)
        expected = likelihood.normal_kl(mean * x, jnp.log(variance), mean * x0, jnp.log(variance)).sum()
        np.testing.assert_allclose(likelihood.step_kl(*snr, x, x0)[0], expected, rtol=1e-9)


def test_terms_equal_the_reference():
    """Guided diffusion's divergences, prior and learned-variance steps; the exact bins, not its tanh approximation."""
    values = exact.SCHEDULE_VALUES
    path = PATHS["linear"]
    with jax.enable_x64(True):
        found = jnp.stack(
            [likelihood.normal_kl(*column) for column in jnp.asarray(values["normal_kl__in"]).swapaxes(0, 1)]
        )
        np.testing.assert_allclose(found, values["normal_kl__out"], rtol=1e-8, atol=1e-12)
        x0 = jnp.asarray(values["gd__x0"])
        size = x0[0].size
        prior = likelihood.prior_kl(path, x0) / size / np.log(2)
        np.testing.assert_allclose(prior, values["gd__prior_bpd"], rtol=1e-6)
        for row, index in enumerate(values["gd__t"]):
            if index == 0:
                continue
            # KL(q || p) with the model's own variance, from our posterior mean and bounds.
            kl = likelihood.normal_kl(
                jnp.asarray(values["gd__q_posterior_mean"][row]),
                jnp.asarray(values["gd__posterior_log_variance_clipped"][index]),
                jnp.asarray(values["gd__p_mean"][row]),
                jnp.asarray(values["gd__p_log_variance"][row]),
            )
            np.testing.assert_allclose(kl.mean() / np.log(2), values["gd__vb_bpd"][row], rtol=1e-8)
        bins = likelihood.bin_log_prob(
            jnp.asarray(values["dgl__x"]),
            jnp.asarray(values["dgl__means"]),
            jnp.asarray(values["dgl__log_scales"]),
            1 / 255,
            -1.0,
            1.0,
        )
        # The reference is floored at 1e-12; ours keeps its digits further out.
        floored = jnp.maximum(bins, np.log(1e-12))
        np.testing.assert_allclose(floored, values["dgl__loglik_exact_cdf"], rtol=1e-6, atol=1e-9)


def test_bins_are_a_distribution():
    levels = jnp.linspace(-1.0, 1.0, 256)[:, None]
    for mean, sigma in ((0.1, 0.05), (-1.4, 0.5), (0.999, 0.003)):
        decoder = likelihood.discretised_gaussian()
        estimate = predictions.Denoised(jnp.full((256, 1), mean), jnp.zeros((256, 1)))
        found = decoder(levels, levels, estimate, jnp.ones(()), jnp.asarray(sigma))
        np.testing.assert_allclose(jnp.exp(found).sum(), 1.0, rtol=1e-4)


def test_an_image_decoder_takes_the_place_of_the_density():
    path = PATHS["linear"]
    x = jnp.asarray(np.round(np.clip(X, -1, 1) * 127.5 + 127.5) / 127.5 - 1, jnp.float32)
    times = GRIDS["linear"](path, 10, to_data=False)
    found = run(likelihood.vlb(path, times, likelihood.discretised_gaussian()), path, x)
    assert (found.reconstruction > 0).all() and all(np.isfinite(term).all() for term in found)


def test_bits_per_dim_equal_the_reference():
    forms = exact.FORMS
    shape = tuple(int(n) for n in forms["bpd__shape"])
    log_prob = -jnp.asarray(forms["bpd__nll_nats"], jnp.float32)
    for key, width in {
        "discrete": 1,
        "cont_x_over_256": 1 / 256,
        "cont_2x_over_256_minus_1": 2 / 256,
        "cont_x_over_127p5_minus_1": 1 / 127.5,
    }.items():
        np.testing.assert_allclose(likelihood.bits_per_dim(log_prob, shape, width), forms[f"bpd__{key}"], rtol=1e-5)


@pytest.mark.parametrize("scan", [True, False])
def test_likelihoods_run_in_either_loop(scan):
    path = PATHS["rectified_flow"]
    denoise = exact.denoiser(exact.MIXTURE, path)
    x = jnp.asarray(X, jnp.float32)
    keys = rng.sample_keys(0, jnp.arange(5))
    for sampler in (likelihood.ode(path, fine(path, 6, end=0.1)), likelihood.vlb(path, fine(path, 6, end=0.1))):
        found = sampling.runner(sampler, lambda inputs, x, t: denoise(x, t), scan)((), x, keys)
        again = sampling.runner(sampler, lambda inputs, x, t: denoise(x, t), not scan)((), x, keys)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, again)
    np.testing.assert_allclose(found.log_prob, -(found.prior + found.diffusion + found.reconstruction), rtol=1e-5)


def test_velocity_in_the_angle_is_v():
    """dy / d phi = v is the ODE of every path: here against the derivative of an exact trajectory."""
    with jax.enable_x64(True):
        path = PATHS["rectified_flow"]
        x = jnp.asarray(exact.SAMPLERS["gauss8d_x_T"])
        phi = jnp.asarray([0.7, 0.7 + 1e-5, 0.7 - 1e-5])
        levels = [(float(a), float(b)) for a, b in zip(jnp.cos(phi), jnp.sin(phi), strict=True)]
        after, before = (exact.flow_map(exact.GAUSSIAN, x, levels[0], levels[k]) for k in (1, 2))
        found = exact.denoise(exact.GAUSSIAN, x, jnp.cos(phi[0]), jnp.sin(phi[0]))
        v = predictions.target(PREDICTIONS["v"], found.x0, found.eps, jnp.cos(phi[0]), jnp.sin(phi[0]))
        np.testing.assert_allclose((after - before) / 2e-5, v, rtol=1e-6, atol=1e-8)
        assert schedules.prior_scale(path) == 1.0


@pytest.mark.parametrize(
    "build",
    [
        lambda path: likelihood.vlb(path, GRIDS["linear"](path, 4)),
        lambda path: likelihood.ode(path, GRIDS["linear"](path, 4)),
        lambda path: likelihood.ode(path, fine(path, 4), divergence="trace"),
        lambda path: likelihood.ode(path, fine(path, 4), method="euler"),
        lambda path: likelihood.continuous_vlb(path, 0),
    ],
)
def test_bad_input_is_refused(build):
    with pytest.raises(UserError):
        build(PATHS["continuous_linear"])
