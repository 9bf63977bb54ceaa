"""Annealed importance sampling against a linear-Gaussian model whose likelihood and posterior are known."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.stats import multivariate_normal

from latent import config, evaluation_data, loops, rng
from latent.data.arrays import Split
from latent.errors import UserError
from latent.metrics import ais, annealing, bdmc
from latent.models import vae
from latent.types import DataSpec, State

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "exact_forms.npz")
REF = {name.split("__")[1]: np.float32(REFERENCE[name]) for name in REFERENCE.files if "ppca__" in name}
OPTIONS = {"distributions": 200, "chains": 16, "leapfrog": 10, "start": "posterior", "limit": 0, "batch": 7}


@pytest.fixture(scope="module")
def linear():
    """A VAE with the reference's decoder x = W z + b + noise; its encoder is the best diagonal one, half as wide
    again."""
    values = config.load("configs/vae.py:digits").model.unlock()
    scale = float(np.sqrt(REF["noise_var"]))
    changes = {"latent_dim": 3, "likelihood": "gaussian", "observation_scale": scale, "net.hidden": ()}
    values.update_from_flattened_dict(changes)
    spec = DataSpec("toy", (10,), 0, 16, np.zeros(10, np.float32), "real")
    model = vae.build(config.Section(ConfigDict(values).to_dict()), spec)
    params, extra = jax.jit(model.init)(jax.random.key(0), {"x": jnp.zeros((1, 10))})
    params["decoder"]["net"]["output"] = {"kernel": jnp.asarray(REF["W"].T), "bias": jnp.asarray(REF["b"])}
    precision = np.eye(3) + REF["W"].T @ REF["W"] / REF["noise_var"]
    gain = np.linalg.solve(precision, REF["W"].T / REF["noise_var"])
    params["encoder"] = {
        "mean": {"kernel": jnp.asarray(gain.T), "bias": jnp.asarray(-gain @ REF["b"])},
        "log_scale": {"kernel": jnp.zeros((10, 3)), "bias": jnp.log(1.5 * jnp.sqrt(REF["best_diag_var"]))},
    }
    state = State(jnp.int32(0), params, extra, {}, {}, {}, jnp.int32(-1))
    split = Split(REF["x"], np.zeros(16, np.int32))
    protocol = {"split": "test", "data": "toy"}
    return (
        model,
        state,
        lambda size: evaluation_data.EvaluationData(model, split, lambda *a: a[0], protocol, seed=0, batch_size=size),
    )


def test_the_joint_is_prior_and_likelihood(linear):
    model, state, _ = linear
    z = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    found = jax.jit(model.log_joint)(state.params, state.extra, jnp.asarray(REF["x"]), jnp.asarray(z))
    error = REF["x"] - z @ REF["W"].T - REF["b"]
    expected = -0.5 * np.sum(z**2, axis=1) - 0.5 * np.sum(error**2, axis=1) / REF["noise_var"]
    expected -= 1.5 * np.log(2 * np.pi) + 5 * np.log(2 * np.pi * REF["noise_var"])
    np.testing.assert_allclose(found, expected, rtol=2e-5)


@pytest.mark.parametrize(
    ("start", "distributions"), [("posterior", 60), pytest.param("standard_normal", 2000, marks=pytest.mark.slow)]
)
def test_equals_the_exact_likelihood(linear, start, distributions):
    """Within 0.05 nats from either start; the encoder's takes a shorter path."""
    model, state, data = linear
    options = {**OPTIONS, "start": start, "distributions": distributions, "batch": 16}
    bound, rate = ais.run(model, state, data(16), config.Section(options))
    assert bound.value == pytest.approx(float(REF["loglik"].mean()), abs=0.05)
    assert 0.5 < rate.value < 0.8
    assert bound.protocol["chains"] == 16 and bound.protocol["N"] == 16 and bound.standard_error > 0


BDMC = {**OPTIONS, "num_samples": 12, "batch": 12, "distributions": 60}
BDMC.pop("limit")


def log_likelihood(x):
    """log p(x) of the reference model in closed form."""
    covariance = REF["W"] @ REF["W"].T + REF["noise_var"] * np.eye(10)
    return multivariate_normal(REF["b"], covariance).logpdf(x)


@pytest.mark.slow
def test_simulated_data_are_enclosed_from_both_sides(linear):
    """A short path from far away leaves a wide gap around the exact value, a longer one from the encoder a tiny."""
    model, state, data = linear
    far = {**BDMC, "start": "standard_normal", "distributions": 8, "chains": 4}
    wide, narrow = (bdmc.run(model, state, data(16), config.Section(options)) for options in (far, BDMC))
    x, _ = jax.jit(model.simulate)(state.params, state.extra, rng.evaluation_stream(0, np.arange(12))("simulate"))
    exact = float(np.mean(log_likelihood(np.asarray(x))))
    assert wide[0].value < exact - 0.3 and exact + 0.3 < wide[1].value
    for lower, upper, gap in (wide, narrow):
        assert gap.value == pytest.approx(upper.value - lower.value, abs=1e-4)
    assert abs(narrow[2].value) < 0.2 and exact == pytest.approx(narrow[0].value, abs=0.2)
    assert [result.name for result in narrow] == ["bdmc_lower_60", "bdmc_upper_60", "bdmc_gap_60"]
    assert narrow[0].protocol["split"] == "simulated" and narrow[0].protocol["N"] == 12


@pytest.mark.slow
def test_simulated_batches_change_nothing(linear):
    model, state, data = linear
    few = {**BDMC, "distributions": 8, "chains": 3}
    one, two = (bdmc.run(model, state, data(16), config.Section({**few, "batch": size})) for size in (12, 5))
    for a, b in zip(one, two, strict=True):
        assert a.value == pytest.approx(b.value, abs=2e-3) and a.protocol == b.protocol


def test_simulated_data_follow_the_joint(linear):
    """The law of (x, z) that log_joint is the density of: mean and covariance of both together."""
    model, state, _ = linear
    x, z = jax.jit(model.simulate)(state.params, state.extra, rng.sample_keys(0, np.arange(20_000)))
    found = np.cov(np.concatenate([x, z], axis=1).T)
    noise = REF["noise_var"] * np.eye(10)
    expected = np.block([[REF["W"] @ REF["W"].T + noise, REF["W"]], [REF["W"].T, np.eye(3)]])
    np.testing.assert_allclose(found, expected, atol=0.15)
    np.testing.assert_allclose(np.mean(x, axis=0), REF["b"], atol=0.1)
    residual = np.asarray(x) - np.asarray(z) @ REF["W"].T - REF["b"]
    assert np.var(residual) == pytest.approx(float(REF["noise_var"]), rel=0.02)


@pytest.mark.slow
def test_batches_change_nothing(linear):
    model, state, data = linear
    few = {**OPTIONS, "distributions": 20, "chains": 3, "limit": 9}
    one, two = (ais.run(model, state, data(16), config.Section({**few, "batch": size}))[0] for size in (4, 9))
    assert one.value == pytest.approx(two.value, abs=1e-3) and one.protocol == two.protocol


def posterior_target(arguments, u):
    """log p(x, z) of the reference model at z = u."""
    error = arguments["x"][:, None] - u @ REF["W"].T - REF["b"]
    joint = -0.5 * jnp.sum(u**2, axis=-1) - 0.5 * jnp.sum(error**2, axis=-1) / REF["noise_var"]
    return joint - 1.5 * jnp.log(2 * jnp.pi) - 5 * jnp.log(2 * jnp.pi * REF["noise_var"])


def chain_keys(chains, seed):
    return ais.chain_keys(seed, np.arange(16), chains)


@pytest.mark.slow
def test_both_sides_enclose_the_exact_likelihood():
    """Simulated data have a known posterior draw: forward weights bound log p(x) from below, backward ones from above
    (Grosse et al. 2015), each an unbiased estimate once exponentiated."""
    arguments, betas = {"x": jnp.asarray(REF["x"])}, annealing.temperatures(600)
    keys, exact = chain_keys(32, 1), REF["loglik"].mean()
    normal = lambda folded: rng.normal(folded.reshape(-1), 3).reshape(16, 32, 3)  # noqa: E731
    root = np.linalg.cholesky(REF["posterior_cov"])
    draws = REF["posterior_mean"][:, None] + normal(chain_keys(32, 2)) @ root.T
    sizes = annealing.anneal(posterior_target, arguments, normal(chain_keys(32, 3)), chain_keys(32, 4), betas).sizes
    forward = annealing.anneal(posterior_target, arguments, normal(keys), keys, betas, sizes=sizes)
    backward = annealing.anneal(posterior_target, arguments, draws, keys, betas[::-1], sizes=sizes[::-1])
    lower, upper = float(forward.log_weights.mean()), -float(backward.log_weights.mean())
    assert lower < exact < upper and upper - lower < 0.3
    average = lambda found: jax.nn.logsumexp(found, axis=1) - jnp.log(32)  # noqa: E731
    assert float(average(forward.log_weights).mean()) == pytest.approx(exact, abs=0.06)
    assert -float(average(backward.log_weights).mean()) == pytest.approx(exact, abs=0.06)


@pytest.mark.slow
def test_chains_end_in_the_posterior():
    arguments, betas = {"x": jnp.asarray(REF["x"])}, annealing.temperatures(400)
    start = rng.normal(chain_keys(200, 5).reshape(-1), 3).reshape(16, 200, 3)
    found = annealing.anneal(posterior_target, arguments, start, chain_keys(200, 6), betas)
    np.testing.assert_allclose(found.u.mean(axis=1), REF["posterior_mean"], atol=0.12)
    covariance = np.mean([np.cov(chains.T) for chains in np.asarray(found.u)], axis=0)
    np.testing.assert_allclose(covariance, REF["posterior_cov"], atol=0.02)
    np.testing.assert_allclose(found.acceptance, annealing.ACCEPTANCE, atol=0.1)


@pytest.mark.slow
def test_compiled_loops_and_single_steps_agree(monkeypatch):
    arguments, betas, keys = {"x": jnp.asarray(REF["x"])}, annealing.temperatures(6), chain_keys(3, 7)
    start = rng.normal(keys.reshape(-1), 3).reshape(16, 3, 3)
    rolled = annealing.anneal(posterior_target, arguments, start, keys, betas)
    monkeypatch.setattr(loops, "rollable", lambda *_: False)
    single = annealing.anneal(posterior_target, arguments, start, keys, betas)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-3), rolled, single)


def test_temperatures_rise_from_0_to_1_slowest_at_the_ends():
    betas = annealing.temperatures(11)
    steps = np.diff(betas)
    assert betas[0] == 0.0 and betas[-1] == 1.0 and np.all(steps > 0)
    assert steps[0] < steps[5] and np.allclose(steps, steps[::-1])


@pytest.mark.parametrize(("option", "value"), [("start", "prior"), ("chains", 0), ("distributions", 1)])
def test_options_are_checked(option, value):
    with pytest.raises(UserError, match=rf"ais\.{option}="):
        ais.names(config.Section({**OPTIONS, option: value}))
