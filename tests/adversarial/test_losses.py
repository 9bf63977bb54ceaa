"""Adversarial losses and penalties against the reference values, gradients and second-order gradients included."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent.adversarial import losses as adversarial

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "gan_losses.npz")
NAMES = {
    "non_saturating": "nonsaturating",
    "hinge": "hinge",
    "wasserstein": "wasserstein",
    "least_squares": "ls_half",
    "relativistic": "relativistic_pairing",
}


def reference(name):
    return jnp.float32(REFERENCE[name])


@pytest.mark.parametrize("loss", adversarial.LOSSES)
@pytest.mark.parametrize("player", ["critic", "generator"])
def test_losses_equal_the_reference(loss, player):
    real, fake = reference("logits_real"), reference("logits_fake")
    function = getattr(adversarial.LOSSES[loss], player)
    key = f"{'d' if player == 'critic' else 'g'}_{NAMES[loss]}"
    value, (to_real, to_fake) = jax.jit(jax.value_and_grad(lambda r, f: jnp.mean(function(r, f)), (0, 1)))(real, fake)
    np.testing.assert_allclose(value, REFERENCE[key], rtol=1e-5)
    np.testing.assert_allclose(to_fake, REFERENCE[f"{key}__grad_fake"], atol=1e-6, rtol=1e-4)
    if player == "critic" or loss == "relativistic":
        np.testing.assert_allclose(to_real, REFERENCE[f"{key}__grad_real"], atol=1e-6, rtol=1e-4)


CRITICS = {
    "linear": lambda x: x @ reference("gp_w"),
    "quadratic": lambda x: 0.5 * jnp.sum((x @ reference("gp_A")) * x, axis=1) + x @ reference("gp_w"),
    "mlp": lambda x: jnp.tanh(x @ reference("gp_W1") + reference("gp_b1")) @ reference("gp_w2"),
}


@pytest.mark.parametrize("name", CRITICS)
def test_zero_centred_penalties_equal_the_reference(name):
    squared = jax.jit(lambda x: adversarial.squared_gradient(CRITICS[name], x).mean())
    np.testing.assert_allclose(squared(reference("gp_x_real")), REFERENCE[f"r1_sumsq_mean__{name}"], rtol=1e-5)
    np.testing.assert_allclose(squared(reference("gp_x_fake")), REFERENCE[f"r2_sumsq_mean__{name}"], rtol=1e-5)


@pytest.mark.parametrize("name", CRITICS)
def test_gradient_penalty_equals_the_reference(name, monkeypatch):
    """With the reference's own points between the pairs."""
    monkeypatch.setattr(adversarial.jax, "vmap", lambda function: lambda keys: reference("gp_alpha"))
    keys = jax.random.split(jax.random.key(0), 9)
    found = adversarial.gradient_penalty(CRITICS[name], reference("gp_x_real"), reference("gp_x_fake"), keys)
    np.testing.assert_allclose(found.mean(), REFERENCE[f"wgan_gp__{name}"], rtol=1e-5)


def test_the_gradient_penalty_of_a_linear_critic_is_known_everywhere():
    """Its gradient is w at every point, so the penalty is (|w| - 1)^2 whatever is mixed."""
    keys = jax.random.split(jax.random.key(0), 9)
    found = jax.jit(
        lambda k: adversarial.gradient_penalty(CRITICS["linear"], reference("gp_x_real"), reference("gp_x_fake"), k)
    )(keys)
    expected = (np.linalg.norm(REFERENCE["gp_w"]) - 1) ** 2
    np.testing.assert_allclose(found, np.full(9, expected), rtol=1e-4)


def test_r1_can_be_differentiated_to_the_parameters():
    def penalty(first, bias, second):
        return adversarial.squared_gradient(
            lambda x: jnp.tanh(x @ first + bias) @ second, reference("gp_x_real")
        ).mean()

    found = jax.jit(jax.grad(penalty, (0, 1, 2)))(reference("gp_W1"), reference("gp_b1"), reference("gp_w2"))
    for gradient, name in zip(found, ("W1", "b1", "w2"), strict=True):
        np.testing.assert_allclose(gradient, REFERENCE[f"r1_mlp__grad_{name}"], rtol=1e-4, atol=1e-6)


def test_the_default_critic_objective_is_r3gans():
    """Relativistic pairing + gamma / 2 (R1 + R2), with gamma of the reference."""
    half = float(REFERENCE["r1_gamma"]) / 2
    for name, critic in CRITICS.items():
        real, fake = reference("gp_x_real"), reference("gp_x_fake")
        loss = adversarial.LOSSES["relativistic"].critic(critic(real), critic(fake)).mean()
        loss += half * adversarial.squared_gradient(critic, real).mean()
        loss += half * adversarial.squared_gradient(critic, fake).mean()
        np.testing.assert_allclose(loss, REFERENCE[f"r3gan_d_loss__{name}"], rtol=1e-5)
