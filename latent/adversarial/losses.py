"""Adversarial losses and gradient penalties, for every family that has a critic.

A critic's score is a real number, high for data. A loss gives per-example terms from the scores of real and generated
examples, paired by their place in the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import relu, softplus
from jaxtyping import Array, Float, Key

Scores = Float[Array, "B"]
Critic = Callable[[Float[Array, "B ..."]], Scores]


class Adversarial(NamedTuple):
    """What the critic and the generator minimise, as functions of (scores of real, scores of generated)."""

    critic: Callable[[Scores, Scores], Scores]
    generator: Callable[[Scores, Scores], Scores]


LOSSES = {
    # Goodfellow et al. 2014 (arXiv 1406.2661), section 3
    "non_saturating": Adversarial(
        critic=lambda real, fake: softplus(-real) + softplus(fake),
        generator=lambda real, fake: softplus(-fake),
    ),
    # Lim & Ye 2017 (arXiv 1705.02894); Miyato et al. 2018 (arXiv 1802.05957), eqs. 16-17
    "hinge": Adversarial(
        critic=lambda real, fake: relu(1.0 - real) + relu(1.0 + fake),
        generator=lambda real, fake: -fake,
    ),
    # Arjovsky et al. 2017 (arXiv 1701.07875)
    "wasserstein": Adversarial(
        critic=lambda real, fake: fake - real,
        generator=lambda real, fake: -fake,
    ),
    # Mao et al. 2017 (arXiv 1611.04076), eq. 9
    "least_squares": Adversarial(
        critic=lambda real, fake: 0.5 * ((real - 1.0) ** 2 + fake**2),
        generator=lambda real, fake: 0.5 * (fake - 1.0) ** 2,
    ),
    # Jolicoeur-Martineau 2019 (arXiv 1807.00734); with R1 + R2 the loss of R3GAN, Huang et al. 2024 (arXiv 2501.05441)
    "relativistic": Adversarial(
        critic=lambda real, fake: softplus(fake - real),
        generator=lambda real, fake: softplus(real - fake),
    ),
}


def squared_gradient(critic: Critic, x: Float[Array, "B ..."]) -> Float[Array, "B"]:
    """|d critic / d x|^2 of every example: R1 on data, R2 on samples, without the customary gamma / 2
    (Mescheder et al. 2018, arXiv 1801.04406). The critic must not mix examples."""
    gradient = jax.grad(lambda y: jnp.sum(critic(y)))(x)
    return jnp.sum(gradient.reshape(x.shape[0], -1) ** 2, axis=1)


def gradient_penalty(
    critic: Critic, real: Float[Array, "B ..."], fake: Float[Array, "B ..."], keys: Key[Array, "B"]
) -> Float[Array, "B"]:
    """(|d critic / d x| - 1)^2 at a random point between each pair (Gulrajani et al. 2017, arXiv 1704.00028)."""
    mix = jax.vmap(jax.random.uniform)(keys).reshape(-1, *[1] * (real.ndim - 1))
    # The norm's own gradient is not finite at zero.
    norm = jnp.sqrt(squared_gradient(critic, mix * real + (1.0 - mix) * fake) + 1e-12)
    return (norm - 1.0) ** 2
