"""Penalties against the reference values and against closed forms."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent import rng
from latent.autoencoding import penalties
from latent.autoencoding.contract import Code
from latent.autoencoding.priors.standard_normal import prior
from latent.config import Section
from latent.types import Context

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "exact_forms.npz")
SECTION = {
    "bottleneck": "gaussian",
    "penalties": (),
    "total_correlation_estimator": "stratified",
    "mmd_kernel": "rbf",
    "mmd_bandwidth": 1.0,
}


def ref(name):
    return jnp.float32(REFERENCE[name])


def scope(mean, log_scale=None, z=None, decode=None, params=None, size=500, seed=0, prior_draws=None):
    same = lambda tree: tree  # noqa: E731
    count = len(mean)
    context = Context(rng.evaluation_stream(seed, np.arange(count)), jnp.int32(0), {}, True, same, same)
    z = mean if z is None else z
    code = Code(mean, z[:, None], log_scale, {}, {})
    given = prior(None, mean.shape[1:], None, None)
    if prior_draws is not None:
        given = given._replace(sample=lambda params, keys: prior_draws)
    batch = {"position": jnp.arange(count, dtype=jnp.int32)}
    return penalties.Scope(params or {}, batch, code, decode, given, context, size)


def measure(name, *args, changes=None, **options):
    section = Section({**SECTION, "penalties": (name,), **(changes or {})})
    (penalty,) = penalties.make(section, has_density=True)
    return jax.jit(lambda: penalty(scope(*args, **options)))()


@pytest.mark.parametrize(("estimator", "name"), [("stratified", "mss_paper"), ("weighted", "mws")])
def test_total_correlation_equals_the_reference(estimator, name):
    changes = {"total_correlation_estimator": estimator}
    found = measure("total_correlation", ref("tc__mu"), ref("tc__logvar") / 2, ref("tc__z"), changes=changes)
    exact = REFERENCE[f"tc__{name}__logqz"] - REFERENCE[f"tc__{name}__logprod_qz"]
    np.testing.assert_allclose(found["total_correlation"], exact, rtol=1e-4, atol=1e-4)


def test_stratified_weights_are_the_papers_and_sum_to_one():
    own = jnp.eye(24, dtype=bool)
    found = np.exp(penalties.stratified_weights(own, 500))
    np.testing.assert_allclose(found, REFERENCE["tc__mss_weights_paper"], rtol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
@pytest.mark.parametrize("bandwidth", [0.5, 1.0])
def test_mmd_and_its_gradient_equal_the_reference(kernel, bandwidth):
    section = Section({**SECTION, "penalties": ("mmd",), "mmd_kernel": kernel, "mmd_bandwidth": bandwidth})
    (penalty,) = penalties.make(section, has_density=False)
    value = lambda z: jnp.mean(penalty(scope(z, prior_draws=ref("mmd__z_prior")))["mmd"])  # noqa: E731
    found, gradient = jax.jit(jax.value_and_grad(value))(ref("mmd__z"))
    np.testing.assert_allclose(found, REFERENCE[f"mmd__{kernel}_bw{bandwidth}"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gradient, REFERENCE[f"mmd__{kernel}_bw{bandwidth}__grad_z"], rtol=1e-3, atol=1e-6)


def test_dip_measures_the_covariance_against_the_identity():
    generator = np.random.default_rng(0)
    mean = jnp.float32(generator.normal(size=(200, 3)) @ generator.normal(size=(3, 3)))
    log_scale = jnp.float32(generator.normal(size=(200, 3)) * 0.3)
    of_means = np.cov(mean, rowvar=False, bias=True)
    of_z = of_means + np.diag(np.exp(2 * log_scale).mean(axis=0))
    for name, covariance in (("dip_i", of_means), ("dip_ii", of_z)):
        found = measure(name, mean, log_scale)
        off = covariance - np.diag(np.diag(covariance))
        np.testing.assert_allclose(found["dip_off_diagonal"], np.sum(off**2), rtol=1e-4)
        np.testing.assert_allclose(found["dip_diagonal"], np.sum((np.diag(covariance) - 1) ** 2), rtol=1e-4)


def test_gradient_penalty_of_a_linear_decoder_is_its_squared_norm():
    """The estimate is unbiased: its mean over 4000 draws meets |W|_F^2 within four standard errors."""
    weights = jnp.float32(np.random.default_rng(1).normal(size=(3, 7)))
    found = measure("gradient_penalty", jnp.ones((4000, 3)), decode=lambda z: z @ weights)["gradient_penalty"]
    exact = float(jnp.sum(weights**2))
    error = float(np.std(found) / np.sqrt(len(found)))
    assert error < 0.05 * exact
    assert abs(float(np.mean(found)) - exact) < 4 * error


def test_norms_are_sums_of_squares():
    z = jnp.float32(np.random.default_rng(2).normal(size=(5, 2, 3)))
    np.testing.assert_allclose(measure("latent_norm", z)["latent_norm"], 0.5 * (z**2).sum(axis=(1, 2)), rtol=1e-5)
    net = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([[3.0]])}
    params = {"decoder": {"net": net, "log_scale": jnp.array(7.0)}}
    np.testing.assert_allclose(measure("decoder_norm", z, params=params)["decoder_norm"], 14.0)
