"""Conversions between what nets predict, weightings and laws of t: exact, for every prediction and path."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent.diffusion import likelihood, predictions, weightings
from latent.diffusion.predictions import PREDICTIONS
from latent.diffusion.times import TIMES
from latent.diffusion.weightings import WEIGHTINGS
from latent.errors import UserError
from tests.diffusion import exact
from tests.harness import thinned

PATHS = exact.every_path()
GENERATOR = np.random.default_rng(0)
X0, EPS = (jnp.asarray(GENERATOR.normal(size=(9, 3)), jnp.float32) for _ in range(2))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", PREDICTIONS)
def test_conversions_round_trip(name, path):
    prediction, path = PREDICTIONS[name], PATHS[path]
    with jax.enable_x64(True):
        t = jnp.linspace(path.min_time, 1.0, 9)
        if path.zero_terminal_snr and not prediction.at_pure_noise:
            t = t.at[-1].set(0.999)
        alpha, sigma = path.alpha(t), path.sigma(t)
        x0, eps = X0.astype(float), EPS.astype(float)
        x = alpha[:, None] * x0 + sigma[:, None] * eps
        output = predictions.target(prediction, x0, eps, alpha, sigma)
        found = predictions.denoised(prediction, output, x, alpha, sigma)
        np.testing.assert_allclose(found.x0, x0, atol=1e-6)
        np.testing.assert_allclose(found.eps, eps, atol=1e-6)


@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.parametrize("end", ["data", "noise"])
def test_the_ends_are_defined_where_the_prediction_says(name, end):
    """At alpha = 0 x0 follows or the prediction says it does not; at sigma = 0 x0 always follows, from x itself."""
    prediction = PREDICTIONS[name]
    alpha, sigma = (jnp.ones(()), jnp.zeros(())) if end == "data" else (jnp.zeros(()), jnp.ones(()))
    x = alpha * X0 + sigma * EPS
    output = {"x0": X0, "eps": EPS, "v": alpha * EPS - sigma * X0, "velocity": EPS - X0, "score": -EPS}[name]
    found = predictions.denoised(prediction, output, x, alpha, sigma)
    if end == "data":
        np.testing.assert_allclose(found.x0, X0, atol=1e-6)
    elif prediction.at_pure_noise:
        np.testing.assert_allclose(found.x0, X0, atol=1e-6)
        np.testing.assert_allclose(found.eps, EPS, atol=1e-6)
    else:
        assert not np.isfinite(found.x0).any()
        with pytest.raises(UserError, match="zero terminal SNR"):
            predictions.find(name, PATHS["rectified_flow"])


@pytest.mark.parametrize("name", PREDICTIONS)
def test_error_scale_is_how_errors_grow(name):
    prediction = PREDICTIONS[name]
    alpha, sigma = jnp.asarray(0.6), jnp.asarray(0.7)
    x = alpha * X0 + sigma * EPS
    wrong = X0 + 0.1
    output = predictions.target(prediction, wrong, (x - alpha * wrong) / sigma, alpha, sigma)
    error = jnp.abs(output - predictions.target(prediction, X0, EPS, alpha, sigma)) / 0.1
    np.testing.assert_allclose(error, jnp.broadcast_to(prediction.error_scale(alpha, sigma), error.shape), rtol=1e-4)


def test_v_on_an_exploding_path_is_edms_preconditioning():
    """c_skip, c_out, c_in and the weight of Karras et al. 2022, table 1, at sigma_data = 1, with F = -v."""
    sigma = jnp.asarray(np.geomspace(0.002, 80.0, 9), jnp.float32)
    alpha = jnp.ones_like(sigma)
    x = X0 + sigma[:, None] * EPS
    output = predictions.target(PREDICTIONS["v"], X0, EPS, alpha, sigma)
    skip, out = 1 / (sigma**2 + 1), sigma / jnp.sqrt(sigma**2 + 1)
    x0 = skip[:, None] * x + out[:, None] * -output
    np.testing.assert_allclose(predictions.denoised(PREDICTIONS["v"], output, x, alpha, sigma).x0, x0, atol=1e-5)
    np.testing.assert_allclose(x0, X0, atol=1e-4)
    np.testing.assert_allclose(predictions.input_scale(alpha, sigma), 1 / jnp.sqrt(sigma**2 + 1), rtol=1e-6)
    path = PATHS["edm"]
    np.testing.assert_allclose(
        WEIGHTINGS["edm"]()(path, PREDICTIONS["v"], path.time(-2 * jnp.log(sigma))), 1, rtol=1e-5
    )


def test_scores_and_posterior_means_equal_the_reference():
    """Exact forms of the mixtures: our conversions lead from each of them to the others."""
    forms = exact.FORMS
    with jax.enable_x64(True):
        for data in ("gmm2d", "gmm5d"):
            for kind in ("vp0", "vp1", "vp2", "vp3", "ve0", "ve3", "flow0", "flow3"):
                at = f"{data}__{kind}__"
                alpha, sigma = jnp.asarray(forms[at + "alpha_sigma"])
                x = jnp.asarray(forms[at + "x"])
                outputs = {"x0": "E_x0", "eps": "eps", "score": "score", "v": "v", "velocity": "velocity"}
                for name, key in outputs.items():
                    if at + key in forms:
                        output = jnp.asarray(forms[at + key])
                        found = predictions.denoised(PREDICTIONS[name], output, x, alpha, sigma)
                        np.testing.assert_allclose(found.x0, forms[at + "E_x0"], atol=1e-8)
                        np.testing.assert_allclose(found.eps, forms[at + "eps"], atol=1e-8)
                mixture = exact.Mixture(*(forms[f"{data}__{part}"] for part in ("weights", "means", "covs")))
                np.testing.assert_allclose(exact.denoise(mixture, x, alpha, sigma).x0, forms[at + "E_x0"], atol=1e-9)
                np.testing.assert_allclose(exact.log_density(mixture, x, alpha, sigma), forms[at + "logp"], atol=1e-9)


def test_the_noise_beside_a_clipped_x0_is_consistent_with_it():
    alpha, sigma = jnp.full(9, 0.6), jnp.full(9, 0.8)
    x = 0.6 * X0 + 0.8 * EPS
    found = predictions.from_x0(jnp.clip(X0, -0.5, 0.5), x, alpha, sigma)
    assert np.abs(found.x0).max() <= 0.5
    np.testing.assert_allclose(0.6 * found.x0 + 0.8 * found.eps, x, atol=1e-6)


@pytest.mark.parametrize("path", thinned(PATHS, {"linear", "cosine", "edm", "rectified_flow"}))
@pytest.mark.parametrize("name", [name for name in WEIGHTINGS if name != "uniform"])
def test_the_weighted_loss_does_not_depend_on_the_prediction(name, path):
    path = PATHS[path]
    t = jnp.linspace(path.min_time, 0.98, 7)
    alpha, sigma = path.alpha(t), path.sigma(t)
    losses = [
        WEIGHTINGS[name]()(path, prediction, t) * prediction.error_scale(alpha, sigma) ** 2
        for prediction in PREDICTIONS.values()
    ]
    for loss in losses:
        assert np.isfinite(loss).all() and (loss > 0).all()
        np.testing.assert_allclose(loss, losses[0], rtol=1e-4)


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_weights_are_finite_up_to_pure_noise(name):
    for path in PATHS.values():
        for prediction in PREDICTIONS.values():
            if prediction.at_pure_noise or not path.zero_terminal_snr:
                weight = WEIGHTINGS[name]()(path, prediction, jnp.asarray([path.min_time, 1.0]))
                assert np.isfinite(weight).all() and (weight >= 0).all()


@pytest.mark.parametrize("name", [name for name in PATHS if PATHS[name].num_timesteps])
def test_the_elbo_weights_of_a_table_are_the_bound_of_its_steps(name):
    """What every step costs where x0 is off by 1 (Kingma et al. 2021, eq. 13), and with it their sum: SNR / 2 of the
    first point for its own step and once more for all others."""
    path, x0 = PATHS[name], PREDICTIONS["x0"]
    with jax.enable_x64(True):
        size = path.num_timesteps
        t = jnp.arange(1, size + 1) / size
        snr = jnp.exp(path.log_snr(t))
        weights = np.asarray(WEIGHTINGS["elbo"]()(path, x0, t))
        steps = likelihood.step_kl(snr[1:], snr[:-1], jnp.ones((size - 1, 1)), jnp.zeros((size - 1, 1)))
        np.testing.assert_allclose(weights[1:] / size, steps, rtol=1e-6)
        np.testing.assert_allclose(weights.sum() / size, snr[0] - 0.5 * snr[-1], rtol=1e-9)


def test_min_snr_and_edm_weights_equal_the_reference():
    values = exact.SCHEDULE_VALUES
    path = PATHS["linear"]
    with jax.enable_x64(True):
        t = jnp.asarray(np.arange(1, 1001) / 1000)
        for name, key in {"eps": "eps", "v": "v", "x0": "x0"}.items():
            found = WEIGHTINGS["min_snr"](gamma=float(values["min_snr_gamma"]))(path, PREDICTIONS[name], t)
            np.testing.assert_allclose(found, values[f"linear__minsnr_weight_{key}"], rtol=1e-8)
        edm = PATHS["edm"]
        t = edm.time(-2 * jnp.log(jnp.asarray(values["edm_sigma"])))
        found = WEIGHTINGS["edm"](sigma_data=float(values["edm_sigma_data"]))(edm, PREDICTIONS["x0"], t)
        np.testing.assert_allclose(found, values["edm_loss_weight"], rtol=1e-8)
        np.testing.assert_allclose(
            WEIGHTINGS["p2"]()(edm, PREDICTIONS["eps"], t), edm.sigma(t) ** 2 / (1 + edm.sigma(t) ** 2), rtol=1e-8
        )


def keys(size):
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(1), jnp.arange(size))


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("path", ["linear", "edm", "rectified_flow"])
def test_times_follow_their_density(name, path):
    path, law = PATHS[path], TIMES[name]()
    size = 20_000
    t = np.asarray(jax.jit(lambda k: law.draw(path, k, jnp.arange(size), size))(keys(size)))
    assert t.min() >= path.min_time - 1e-6 and t.max() <= 1
    if path.num_timesteps:
        np.testing.assert_allclose(t * 1000, np.round(t * 1000), atol=1e-3)
    edges = np.linspace(path.min_time, 1.0, 11)
    fine = jnp.linspace(path.min_time + 1e-5, 1 - 1e-5, 10_001)
    density = np.asarray(law.density(path, fine))
    total = np.interp(edges, fine, np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(fine))]))
    found = np.histogram(t, edges)[0] / size
    # What lies beyond the path's own range is put on its ends; grid points may fall on an edge.
    slack = 5 * np.sqrt(0.25 / size) + (0.006 if path.num_timesteps else 0.002)
    np.testing.assert_allclose(found[1:-1], np.diff(total)[1:-1], atol=slack)


def test_strata_depend_on_the_place_in_the_global_batch_alone():
    law, path = TIMES["low_discrepancy"](), PATHS["continuous_linear"]
    whole = law.draw(path, keys(8), jnp.arange(8), 8)
    half = law.draw(path, keys(8)[4:], jnp.arange(4, 8), 8)
    np.testing.assert_array_equal(whole[4:], half)
    places = (whole - path.min_time) / (1 - path.min_time) * 8
    np.testing.assert_array_equal(np.floor(places), np.arange(8))


def test_strata_lower_the_variance_of_a_mean():
    path = PATHS["continuous_linear"]

    def spread(law):
        draw = lambda n: law.draw(path, keys(64 * 64)[64 * n : 64 * n + 64], jnp.arange(64), 64)  # noqa: E731
        return np.std([np.mean(draw(n) ** 2) for n in range(20)])

    assert spread(TIMES["low_discrepancy"]()) < 0.1 * spread(TIMES["uniform"]())


def test_the_bound_does_not_depend_on_where_one_trains():
    """E_q[elbo weight / density * error] is one integral, whatever q: here of |eps error|^2 = 1 over log-SNR."""
    path = PATHS["continuous_linear"]
    size = 4000
    for name in ("uniform", "logit_normal"):
        law = TIMES[name](stratified=True)
        t = law.draw(path, keys(size), jnp.arange(size), size)
        t = jnp.clip(t, 0.01, 0.99)
        weight = weightings.elbo()(path, PREDICTIONS["eps"], t) / law.density(path, t)
        inside = (t > 0.05) & (t < 0.95)
        span = path.log_snr(jnp.asarray(0.05)) - path.log_snr(jnp.asarray(0.95))
        np.testing.assert_allclose(jnp.mean(weight * inside), 0.5 * span, rtol=0.01)
