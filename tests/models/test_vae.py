"""The VAE against closed forms: a linear-Gaussian model whose likelihood, ELBO and optimum are known."""

from __future__ import annotations

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from ml_collections import ConfigDict
from sklearn.decomposition import PCA

from latent import config, rng
from latent.autoencoding import autoencoder, gaussian, likelihoods
from latent.autoencoding.bottlenecks import gaussian_full
from latent.autoencoding.bottlenecks.gaussian import bottleneck
from latent.autoencoding.contract import Code
from latent.autoencoding.priors.standard_normal import prior
from latent.errors import UserError
from latent.models import vae
from latent.nets import mlp
from latent.types import Context, DataSpec
from tests import harness

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "exact_forms.npz")


def section(**changes):
    values = config.load("configs/vae.py:digits").model.unlock()
    values.update_from_flattened_dict(changes)
    return config.Section(ConfigDict(values).to_dict())


def spec(shape, support="real", mean=0.0):
    return DataSpec("toy", shape, 0, 100, np.full(shape, mean, np.float32), support)


def context(count, seed=0, step=0, **hparams):
    same = lambda tree: tree  # noqa: E731
    values = {"reconstruction": 1.0, "beta": 1.0, "free_bits": 0.1, "capacity": 25.0} | hparams
    values = {name: jnp.float32(value) for name, value in values.items()}
    streams = rng.evaluation_stream(seed, np.arange(count))
    return Context(streams, jnp.int32(step), {"autoencoder": values}, True, same, same)


class Fixed(nn.Module):
    """An encoder that ignores x and returns a given posterior."""

    mean: jnp.ndarray
    log_scale: jnp.ndarray

    def __call__(self, x):
        return {"mean": self.mean, "log_scale": self.log_scale}


def linear_gaussian():
    """The reference's linear-Gaussian model with its given posterior q, as nets and params."""
    ref = {name.split("__")[1]: jnp.float32(REFERENCE[name]) for name in REFERENCE.files if "ppca__" in name}
    _, latent_dim = ref["W"].shape
    chosen = section(**{"likelihood": "gaussian", "observation_scale": float(np.sqrt(ref["noise_var"]))})
    net = section(**{"net.hidden": ()}).net
    likelihood = likelihoods.make(chosen, spec((10,)))
    decoder = mlp.decoder(net, (10,), np.zeros(10))
    shape = (latent_dim,)
    between = bottleneck(None, shape), prior(None, shape, None, None)
    nets = autoencoder.Autoencoder(Fixed(ref["q_mu"], ref["q_logvar"] / 2), decoder, *between, likelihood, shape)
    params = {"encoder": {}, "decoder": {"net": {"output": {"kernel": ref["W"].T, "bias": ref["b"]}}}}
    return nets, params, ref


def log_weights_of(nets, params, x, seed, k):
    code = nets.encode(params, {}, x, context(len(x), seed).keys("posterior"), k)
    return nets.weigh(params, x, code).T


def test_importance_weights_equal_the_reference():
    nets, params, ref = linear_gaussian()
    noise = jnp.float32(REFERENCE["iwae__noise"])
    mean, log_scale = ref["q_mu"], ref["q_logvar"] / 2
    code = Code(mean, mean[:, None] + np.exp(log_scale)[:, None] * noise, log_scale, {}, {})
    found = jax.jit(lambda: nets.weigh(params, ref["x"], code))()
    np.testing.assert_allclose(found, REFERENCE["iwae__log_w"], rtol=1e-4, atol=1e-3)


def test_elbo_equals_its_closed_form():
    """Averaged over 200 x 50 draws, within four standard errors of the exact value; the KL exactly."""
    nets, params, ref = linear_gaussian()

    @jax.jit
    def run(seed):
        code = nets.encode(params, {}, ref["x"], context(16, seed).keys("posterior"), 50)
        return nets.terms(params, ref["x"], code)[0]

    draws = [run(np.uint32(seed)) for seed in range(200)]
    np.testing.assert_allclose(draws[0]["kl"], ref["kl_q"], rtol=1e-5)
    values = np.array([draw["elbo"] for draw in draws])
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    assert np.all(np.abs(values.mean(axis=0) - ref["elbo_q"]) < 4 * error)
    assert np.all(error < 0.2)


def test_bounds_rise_with_k_towards_the_exact_likelihood():
    """With the best diagonal posterior: ELBO < IWAE-5 < IWAE-50 < IWAE-2000, the last within 0.02 nats of log p(x)."""
    nets, params, ref = linear_gaussian()
    log_scale = jnp.broadcast_to(jnp.log(ref["best_diag_var"]) / 2, ref["posterior_mean"].shape)
    nets = nets._replace(encoder=Fixed(ref["posterior_mean"], log_scale))
    means = []
    for k in (1, 5, 50, 2000):
        log_weights = jax.jit(lambda seed, k=k: log_weights_of(nets, params, ref["x"], seed, k))
        bounds = [jax.nn.logsumexp(log_weights(np.uint32(s)), axis=0) - np.log(k) for s in range(max(4, 400 // k))]
        means.append(float(np.mean(bounds)))
    assert means[0] < means[1] < means[2] < means[3]
    assert means[0] == pytest.approx(float(ref["elbo_best_diag"].mean()), abs=0.05)
    assert means[3] == pytest.approx(float(ref["loglik"].mean()), abs=0.02)


def test_every_weight_of_the_true_posterior_is_the_exact_likelihood():
    """If q is the posterior, log w does not depend on z. With orthogonal columns of W the posterior is diagonal."""
    nets, params, ref = linear_gaussian()
    orthogonal = np.linalg.qr(ref["W"])[0] * np.array([2.0, 1.0, 0.5])
    noise = float(ref["noise_var"])
    precision = 1 + (orthogonal**2).sum(axis=0) / noise
    mean = (ref["x"] - ref["b"]) @ orthogonal / noise / precision
    log_scale = np.broadcast_to(-0.5 * np.log(precision), mean.shape)
    nets = nets._replace(encoder=Fixed(jnp.float32(mean), jnp.float32(log_scale)))
    params["decoder"]["net"]["output"]["kernel"] = np.float32(orthogonal.T)
    found = jax.jit(lambda: log_weights_of(nets, params, ref["x"], 0, 7))()
    covariance = orthogonal @ orthogonal.T + noise * np.eye(10)
    exact = scipy.stats.multivariate_normal(ref["b"], covariance).logpdf(ref["x"])
    np.testing.assert_allclose(found, np.broadcast_to(exact, (7, 16)), atol=2e-4)


def test_with_the_full_posterior_the_bound_of_probabilistic_pca_is_its_likelihood():
    """Its exact posterior is a full Gaussian: every importance weight is p(x), and so the ELBO is exactly log p(x)."""
    nets, params, ref = linear_gaussian()
    loadings, noise = np.asarray(ref["W"], np.float64), float(ref["noise_var"])
    covariance = np.linalg.inv(np.eye(3) + loadings.T @ loadings / noise)
    mean = np.asarray(ref["x"] - ref["b"], np.float64) @ loadings @ covariance / noise
    cholesky = np.linalg.cholesky(covariance)
    heads = {
        "mean": jnp.float32(mean),
        "log_scale": jnp.float32(np.broadcast_to(np.log(np.diag(cholesky)), mean.shape)),
        "off_diagonal": jnp.float32(np.broadcast_to(cholesky[np.tril_indices(3, -1)], mean.shape)),
    }
    full = gaussian_full.bottleneck(section(bottleneck="gaussian_full"), (3,))
    code = full.encode({}, {}, heads, context(16).keys("posterior"), 7)
    weights, kl = jax.jit(lambda: (nets.weigh(params, ref["x"], code), nets.kl(params, code)[0]))()
    np.testing.assert_allclose(weights, np.broadcast_to(ref["loglik"][:, None], (16, 7)), atol=5e-4)
    trace, distance = np.trace(covariance), (mean**2).sum(axis=1)
    exact = 0.5 * (trace + distance - 3 - np.linalg.slogdet(covariance)[1])
    np.testing.assert_allclose(kl, exact, rtol=1e-4)
    # The diagonal posterior of the same marginals is not exact: the bound is below, by what it leaves out.
    assert float(ref["elbo_best_diag"].mean()) < float(ref["loglik"].mean()) - 0.01


def test_draws_of_the_full_posterior_have_its_covariance():
    heads = {"mean": jnp.ones((1, 2)), "log_scale": jnp.log(jnp.array([[0.5, 2.0]])), "off_diagonal": -jnp.ones((1, 1))}
    full = gaussian_full.bottleneck(section(bottleneck="gaussian_full"), (2,))
    code = full.encode({}, {}, heads, context(1).keys("posterior"), 4000)
    np.testing.assert_allclose(np.cov(code.samples[0].T), [[0.25, -0.5], [-0.5, 5.0]], atol=0.3)
    np.testing.assert_allclose(jnp.exp(code.log_scale[0]), [0.5, 5**0.5], rtol=1e-6)


@pytest.mark.parametrize("changes", [{"rate": "free_bits"}, {"prior": "vamp"}, {"penalties": ("dip_i",)}])
def test_the_full_posterior_refuses_what_needs_a_diagonal_one(changes):
    with pytest.raises(UserError, match=rf"{next(iter(changes))}.*bottleneck=gaussian"):
        vae.build(section(bottleneck="gaussian_full", **changes), spec((8, 8, 1), "unit", 0.25))


def test_a_vae_with_the_full_posterior_takes_a_gradient_step():
    """The bound of its own encoder, and gradients that reach every head."""
    chosen = section(**{"bottleneck": "gaussian_full", "latent_dim": 3, "net.hidden": (5,), "likelihood": "gaussian"})
    model = vae.build(chosen, spec((6,)))
    params, extra = jax.jit(model.init)(harness.key(0), {"x": jnp.zeros((1, 6))})
    batch = {"x": jnp.asarray(np.random.default_rng(0).normal(size=(8, 6)), jnp.float32)}

    def loss(params):
        return model.players[0].loss(params, extra, batch, context(8)).objective

    gradient = jax.jit(jax.grad(loss))(params)["encoder"]
    assert all(float(jnp.abs(gradient[head]["kernel"]).max()) > 0 for head in ("mean", "log_scale", "off_diagonal"))


def test_gaussian_kl_equals_the_reference():
    mean, log_scale = jnp.float32(REFERENCE["kl__mu1"]), jnp.float32(REFERENCE["kl__logvar1"] / 2)
    found = jnp.sum(gaussian.kl_to_standard(mean, log_scale), axis=1)
    np.testing.assert_allclose(found, REFERENCE["kl__to_std_normal"], rtol=1e-5)


def test_bernoulli_equals_the_reference_on_binary_and_grey_targets():
    likelihood = likelihoods.make(section(likelihood="bernoulli"), spec((20,), "unit", 0.5))
    logits = jnp.float32(REFERENCE["bern__logits"])
    binary = likelihood.log_prob(logits, jnp.float32(REFERENCE["bern__x"]), 0.0)
    np.testing.assert_allclose(binary, REFERENCE["bern__loglik"], rtol=1e-5)
    grey = likelihood.log_prob(logits, jnp.float32(REFERENCE["bern__x_cont"]), 0.0)
    np.testing.assert_allclose(np.abs(grey), np.abs(REFERENCE["bern__bce_cont"]), rtol=1e-5)


@pytest.mark.parametrize("name", ["bernoulli", "gaussian", "gaussian_learned"])
def test_an_untrained_decoder_gives_the_mean_training_example(name):
    model = vae.build(section(likelihood=name), spec((8, 8, 1), "unit", 0.25))
    params, extra = jax.jit(model.init)(harness.key(0), {"x": jnp.zeros((1, 8, 8, 1))})
    decoded = jax.jit(model.decode)(params, extra, jnp.zeros((1, 8)))
    np.testing.assert_allclose(decoded, 0.25, atol=1e-5)


def losses(changes, hparams, step=0, params_scale=1.0):
    """(loss, per-dimension KL, reconstruction) of a small VAE on fixed data."""
    chosen = section(**{"latent_dim": 3, "net.hidden": (5,), "likelihood": "gaussian", **changes})
    model = vae.build(chosen, spec((4,)))
    x = jnp.float32(np.random.default_rng(0).normal(size=(12, 4)))
    params, extra = jax.jit(model.init)(harness.key(1), {"x": x})
    params = jax.tree.map(lambda leaf: params_scale * leaf, params)
    ctx = context(12, step=step, **hparams)
    found = jax.jit(lambda p: model.players[0].loss(p, extra, {"x": x}, ctx))(params)
    latent = jax.jit(model.encode)(params, extra, x, ctx.keys("posterior"))
    return float(found.objective), np.asarray(latent.info["kl"]), float(found.terms["reconstruction"].mean())


def test_rates_follow_their_formulas():
    loss, kl, reconstruction = losses({}, {"beta": 4.0})
    assert loss == pytest.approx(reconstruction + 4.0 * kl.sum(axis=1).mean(), rel=1e-5)
    loss, kl, reconstruction = losses({"kl_warmup_steps": 10}, {"beta": 4.0}, step=5)
    assert loss == pytest.approx(reconstruction + 0.5 * 4.0 * kl.sum(axis=1).mean(), rel=1e-5)
    floor = float(np.median(kl.mean(axis=0)))
    loss, kl, reconstruction = losses({"rate": "free_bits"}, {"free_bits": floor})
    assert loss == pytest.approx(reconstruction + np.maximum(kl.mean(axis=0), floor).sum(), rel=1e-5)
    assert loss > reconstruction + kl.sum(axis=1).mean() + 1e-4
    loss, kl, reconstruction = losses(
        {"rate": "capacity", "capacity_steps": 100}, {"beta": 7.0, "capacity": 20.0}, step=50
    )
    assert loss == pytest.approx(reconstruction + 7.0 * abs(kl.sum(axis=1).mean() - 10.0), rel=1e-5)


def test_the_iwae_loss_is_the_bound_of_its_own_weights():
    chosen = section(**{"latent_dim": 3, "net.hidden": (5,), "likelihood": "gaussian"})
    model = vae.build(chosen, spec((4,)))
    x = jnp.float32(np.random.default_rng(0).normal(size=(12, 4)))
    params, extra = jax.jit(model.init)(harness.key(1), {"x": x})
    for k in (1, 5):
        loss, _, _ = losses({"objective": "iwae", "num_samples": k}, {})
        log_weights = jax.jit(lambda k=k: model.log_weights(params, extra, {"x": x}, context(12), k))()
        assert loss == pytest.approx(-float(np.mean(np.logaddexp.reduce(log_weights, axis=0) - np.log(k))), rel=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"rate": "free_bits"},
        pytest.param({"rate": "capacity", "capacity_steps": 4}, marks=pytest.mark.slow),
        pytest.param({"kl_warmup_steps": 4}, marks=pytest.mark.slow),
        {"objective": "iwae", "num_samples": 3},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_devices_agree(changes):
    """Law 2 on the real family: free bits and capacity couple the examples of the global batch."""
    chosen = section(**{"latent_dim": 3, "net.hidden": (5,), "likelihood": "gaussian_learned", **changes})
    model = vae.build(chosen, spec((6,)))
    hparams = {"reconstruction": 1.0, "beta": 2.0, "free_bits": 0.3, "capacity": 5.0}
    model = model._replace(players=tuple(p._replace(loss=with_hparams(p.loss, hparams)) for p in model.players))
    one, first = harness.train(model, 5, devices=1, rate=0.01)
    eight, second = harness.train(model, 5, devices=8, rate=0.01)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one.params, eight.params)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a["autoencoder"]["loss"], b["autoencoder"]["loss"], rtol=1e-4)


def with_hparams(loss, values):
    def wrapped(params, extra, batch, ctx):
        return loss(params, extra, batch, ctx._replace(hparams={"autoencoder": values}))

    return wrapped


def test_samples_depend_on_their_own_key_only():
    model = vae.build(section(), spec((8, 8, 1), "unit", 0.25))
    params, extra = jax.jit(model.init)(harness.key(0), {"x": jnp.zeros((1, 8, 8, 1))})
    sample = lambda keys: model.sample(params, extra, keys, None)  # noqa: E731
    many, few = sample(rng.sample_keys(0, np.arange(8))), sample(rng.sample_keys(0, np.array([5, 2])))
    np.testing.assert_allclose(few[0], many[5], atol=1e-6)
    np.testing.assert_allclose(few[1], many[2], atol=1e-6)
    assert np.abs(many[5] - many[2]).max() > 1e-3


@pytest.mark.parametrize("latent_dim", [1, 512])
def test_latent_dimensionality_from_1_to_512(latent_dim):
    model = vae.build(section(latent_dim=latent_dim), spec((8, 8, 1), "unit", 0.25))
    shapes = jax.eval_shape(model.init, jax.random.key(0), {"x": jnp.zeros((1, 8, 8, 1))})
    latent = jax.eval_shape(model.encode, *shapes, jnp.zeros((3, 8, 8, 1)), jax.random.split(jax.random.key(0), 3))
    assert latent.mean.shape == latent.sample.shape == latent.info["kl"].shape == (3, latent_dim)


@pytest.mark.parametrize("size", [8, 28, 32, 64])
def test_convolutional_nets_take_8_to_64_pixels(size):
    changes = {"net.name": "convnet", "net.channels": (4, 8), "net.hidden": (16,)}
    model = vae.build(section(**changes), spec((size, size, 3), "unit", 0.25))
    shapes = jax.eval_shape(model.init, jax.random.key(0), {"x": jnp.zeros((1, size, size, 3))})
    decoded = jax.eval_shape(model.decode, *shapes, jnp.zeros((2, 8)))
    assert decoded.shape == (2, size, size, 3)


def test_training_finds_the_optimum():
    """A linear VAE's maximum is probabilistic PCA (Tipping & Bishop 1999; Lucas et al. 2019): same likelihood."""
    generator = np.random.default_rng(3)
    x = (
        generator.normal(size=(400, 2)) @ generator.normal(size=(2, 5)) + 0.4 * generator.normal(size=(400, 5))
    ).astype(np.float32)
    chosen = section(**{"latent_dim": 2, "net.hidden": (), "likelihood": "gaussian_learned", "observation_scale": 1.0})
    model = vae.build(chosen, DataSpec("toy", (5,), 0, len(x), x.mean(axis=0), "real"))
    model = model._replace(
        players=tuple(
            p._replace(loss=with_hparams(p.loss, {"reconstruction": 1.0, "beta": 1.0})) for p in model.players
        )
    )
    schedule = lambda step: jnp.minimum(1.0, 4.0 * (1 - step / 4000))  # noqa: E731
    state, _ = harness.train(
        model, 4000, count=500, rolled=True, batch_size=100, x=x, rate=0.02, transform=optax.scale_by_adam(),
        learning_rate_schedule=schedule,
    )  # fmt: skip
    decoder = state.params["decoder"]
    weights, bias = decoder["net"]["output"]["kernel"], decoder["net"]["output"]["bias"]
    variance = np.exp(2 * decoder["log_scale"])
    found = scipy.stats.multivariate_normal(bias, weights.T @ weights + variance * np.eye(5)).logpdf(x).mean()
    best = PCA(2).fit(x).score(x)
    assert best - found < 0.02
    assert variance == pytest.approx(0.16, rel=0.15)
