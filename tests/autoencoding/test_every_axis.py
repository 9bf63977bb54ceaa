"""Every choice on every axis trains, keeps to its devices, decodes and refuses what makes no sense."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from latent import config
from latent.autoencoding import adversaries, penalties, rates
from latent.errors import UserError
from latent.models import vae
from latent.types import DataSpec
from tests import harness

DETERMINISTIC = {"bottleneck": "deterministic", "rate": "none"}
VQ = {"bottleneck": "vq", "rate": "none", "codebook.size": 5, "codebook.groups": 2}
FSQ = {"bottleneck": "fsq", "rate": "none", "levels": (3, 4)}
CASES = {
    "gaussian": {},
    "deterministic": DETERMINISTIC,
    "vq": VQ,
    "vq_gradient": {**VQ, "codebook.update": "gradient"},
    "fsq": FSQ,
    "mixture": {"prior": "mixture", "prior_components": 3},
    "vamp": {"prior": "vamp", "prior_components": 3},
    "laplace": {"likelihood": "laplace_learned"},
    **{f"rate_{name}": {"rate": name} for name in rates.RATES},
    **{f"penalty_{name}": {"penalties": (name,)} for name in penalties.PENALTIES},
    **{f"adversary_{name}": {"adversary": name} for name in adversaries.ADVERSARIES},
    "vae_gan": {"adversary": "image", "critic.samples": True, "critic.feature_matching": True, "critic.r1": True},
    "adaptive": {**VQ, "adversary": "image", "adaptive_weight": True, "critic.start": 1},
    "aae": {**DETERMINISTIC, "adversary": "latent"},
    "wae": {**DETERMINISTIC, "penalties": ("mmd",)},
}


def model(changes):
    """The model of `configs/vae.py` with changes, its hparams fixed, on vectors of six values."""
    loaded = config.load("configs/vae.py:digits")
    values = loaded.model.unlock()
    base = {"latent_dim": 4, "net.hidden": (5,), "likelihood": "gaussian", "critic.net.hidden": (5,)}
    values.update_from_flattened_dict({**base, **changes})
    section = config.Section(ConfigDict(values).to_dict())
    built = vae.build(section, DataSpec("toy", (6,), 0, 64, np.zeros(6, np.float32), "real"))
    hparams = {"autoencoder": loaded.hparams.autoencoder.to_dict(), "critic": {"r1": 1.0}}

    def fix(loss):
        return lambda params, extra, batch, context: loss(params, extra, batch, context._replace(hparams=hparams))

    return built._replace(players=tuple(player._replace(loss=fix(player.loss)) for player in built.players))


ALONE = {"gaussian", "deterministic", "vq_gradient", "fsq", "laplace", "wae", "aae", "rate_kl"}
ALONE |= {"penalty_latent_norm", "penalty_decoder_norm", "penalty_dip_i"}
FAST = {"vq", "adversary_factor"}
"""A state and a second player; the others are slow tests."""
COUPLED = [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in CASES if name not in ALONE]
"""Cases with a term that looks at the whole batch, or at a state that does."""


@pytest.mark.parametrize("name", COUPLED)
def test_devices_agree_and_only_what_is_owned_moves(name):
    built = model(CASES[name])
    one, first = harness.train(built, 3, devices=1, rate=0.003)
    four, second = harness.train(built, 3, devices=4, rate=0.003)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)  # noqa: E731
    jax.tree.map(close, (one.params, one.extra), (four.params, four.extra))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a["autoencoder"]["loss"], b["autoencoder"]["loss"], rtol=1e-4, atol=1e-5)
    assert one.halted == -1
    owned = set(itertools.chain(*(player.owns for player in built.players)))
    assert set(one.params) | set(one.extra) <= owned


@pytest.mark.parametrize("name", CASES)
def test_encode_decode_and_sample_agree_on_shapes(name):
    built = model(CASES[name])
    x = jnp.zeros((7, 6))
    params, extra = jax.eval_shape(built.init, jax.random.key(0), {"x": x})
    keys = jax.random.split(jax.random.key(1), 7)
    latent = jax.eval_shape(built.encode, params, extra, x, keys)
    assert latent.mean.shape == latent.sample.shape == (7, 4)
    assert jax.eval_shape(built.decode, params, extra, latent.mean).shape == x.shape
    assert all(len(value) == 7 for value in latent.info.values())
    if built.sample is not None:
        assert jax.eval_shape(built.sample, params, extra, keys).shape == x.shape


def test_only_a_code_that_follows_its_prior_is_sampled():
    sampled = {name for name in CASES if model(CASES[name]).sample is not None}
    assert {"deterministic", "vq", "vq_gradient", "fsq", "adaptive"} == set(CASES) - sampled


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({**DETERMINISTIC, "objective": "iwae"}, ["model.objective='iwae'", "model.bottleneck=gaussian"]),
        ({**DETERMINISTIC, "num_samples": 3}, ["model.num_samples=3", "model.bottleneck"]),
        ({"bottleneck": "vq"}, ["model.rate='kl'", "model.rate=none"]),
        ({**FSQ, "prior": "vamp"}, ["model.prior='vamp'", "model.prior=standard_normal"]),
        ({"prior": "mixture", "rate": "free_bits"}, ["model.rate='free_bits'", "model.prior=standard_normal"]),
        ({**VQ, "penalties": ("total_correlation",)}, ["model.penalties='total_correlation'", "gaussian"]),
        ({**VQ, "adversary": "factor"}, ["model.adversary='factor'", "model.bottleneck=gaussian"]),
        ({"adaptive_weight": True}, ["model.adaptive_weight=True", "model.adversary=image"]),
        ({"penalties": ("dip_i", "dip_ii")}, ["model.penalties"]),
        ({"penalties": ("mdm",)}, ["model.penalties", "'mmd'"]),
        ({"adversary": "imagee"}, ["model.adversary", "'image'"]),
        ({"bottleneck": "vqq"}, ["model.bottleneck", "'vq'"]),
        ({"prior": "vampp", }, ["model.prior", "'vamp'"]),
        ({"perceptual": "lenet_mnist"}, ["model.perceptual", "(28, 28, 1)"]),
    ],
    ids=str,
)  # fmt: skip
def test_senseless_combinations_name_the_key_to_change(changes, keys):
    with pytest.raises(UserError) as caught:
        model(changes)
    assert all(key in str(caught.value) for key in keys), str(caught.value)
