"""Terms that shape the code: each a function of one batch, weighed in the objective by the hparam of its name.

They work on codes flattened to [B, d]. Whatever couples examples sees the global batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from latent.autoencoding.contract import Code, Prior, flat
from latent.autoencoding.gaussian import log_normal
from latent.errors import UserError, unknown_name
from latent.types import Batch, Context, Params


class Scope(NamedTuple):
    """What a penalty may look at: the batch, its code, the decoder (z -> raw output), the prior, the training set's
    size."""

    params: Params
    batch: Batch
    code: Code
    decode: Callable[[Array], Array]
    prior: Prior
    context: Context
    size: int


Terms = dict[str, Float[Array, "B"]]
Penalty = Callable[[Scope], Terms]


def own_place(batch: Batch, context: Context) -> Bool[Array, "B G"]:
    """Which example of the gathered batch is which of this one: row i is true where it holds example i itself."""
    return batch["position"][:, None] == context.gather(batch["position"])[None, :]


def stratified_weights(own: Bool[Array, "B G"], size: int) -> Float[Array, "B G"]:
    """Log importance weights of stratified sampling (Chen et al. 2018, arXiv 1802.04942, appendix C.2, S-MSS).

    With M = G - 1: 1/N for the example itself, (N - M) / (N M) for the one after it, 1/M for the others; rows sum to 1.
    """
    others = own.shape[1] - 1
    after = jnp.roll(own, 1, axis=1)
    share = jnp.where(own, 1.0 / size, jnp.where(after, (size - others) / (size * others), 1.0 / others))
    return jnp.log(share)


def aggregate_log_densities(
    z: Float[Array, "B d"], mean: Float[Array, "G d"], log_scale: Float[Array, "G d"], log_share: Float[Array, "B G"]
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    """Estimates of log q(z) and of sum_j log q(z_j), where q is the mixture of the posteriors of all training data."""
    pairs = log_normal(z[:, None], mean, log_scale)
    joint = jax.nn.logsumexp(jnp.sum(pairs, axis=-1) + log_share, axis=1)
    product = jnp.sum(jax.nn.logsumexp(pairs + log_share[..., None], axis=1), axis=-1)
    return joint, product


def _total_correlation(section: Any) -> Penalty:
    """KL(q(z) || prod_j q(z_j)) by minibatch sampling (beta-TCVAE): weight beta - 1 beside a KL of weight 1 makes the
    authors' objective with alpha = gamma = 1, its KL in closed form instead of sampled."""
    estimator = section.total_correlation_estimator
    if estimator not in ("stratified", "weighted"):
        raise unknown_name("model.total_correlation_estimator", estimator, ("stratified", "weighted"))

    def penalty(scope: Scope) -> Terms:
        z = flat(scope.code.samples[:, 0], 1)
        mean, log_scale = scope.context.gather((flat(scope.code.mean, 1), flat(scope.code.log_scale, 1)))
        if estimator == "stratified":
            log_share = stratified_weights(own_place(scope.batch, scope.context), scope.size)
        else:
            log_share = jnp.full((len(z), len(mean)), -math.log(len(mean) * scope.size))
        joint, product = aggregate_log_densities(z, mean, log_scale, log_share)
        return {"total_correlation": joint - product}

    return penalty


def _covariance(scope: Scope) -> Float[Array, "d d"]:
    mean = flat(scope.code.mean, 1)
    centred = mean - scope.context.mean(jnp.mean(mean, axis=0))
    return scope.context.mean(centred.T @ centred / len(mean))


def _dip(scope: Scope, covariance: Float[Array, "d d"]) -> Terms:
    diagonal = jnp.diagonal(covariance)
    count = len(scope.code.mean)
    return {
        "dip_off_diagonal": jnp.full(count, jnp.sum(covariance**2) - jnp.sum(diagonal**2)),
        "dip_diagonal": jnp.full(count, jnp.sum((diagonal - 1.0) ** 2)),
    }


def _dip_i(section: Any) -> Penalty:
    """DIP-VAE-I: the covariance of the posterior means against the identity (Kumar et al. 2018, arXiv 1711.00848, eq.
    6)."""
    return lambda scope: _dip(scope, _covariance(scope))


def _dip_ii(section: Any) -> Penalty:
    """DIP-VAE-II: the covariance of z itself, posterior variances included (Kumar et al. 2018, eq. 7)."""

    def penalty(scope: Scope) -> Terms:
        variance = scope.context.mean(jnp.mean(jnp.exp(2 * flat(scope.code.log_scale, 1)), axis=0))
        return _dip(scope, _covariance(scope) + jnp.diag(variance))

    return penalty


IMQ_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def rbf(squared: Float[Array, "*any"], dimensions: int, bandwidth: float) -> Float[Array, "*any"]:
    """exp(-|x - y|^2 / (2 d bandwidth^2))."""
    return jnp.exp(-squared / (2 * dimensions * bandwidth**2))


def imq(squared: Float[Array, "*any"], dimensions: int, bandwidth: float) -> Float[Array, "*any"]:
    """Inverse multiquadratics, summed over scales s: s C / (s C + |x - y|^2), C = 2 d bandwidth^2 (Tolstikhin et al.
    2018, arXiv 1711.01558)."""
    constant = 2 * dimensions * bandwidth**2
    return sum(scale * constant / (scale * constant + squared) for scale in IMQ_SCALES)


KERNELS = {"rbf": rbf, "imq": imq}


def squared_distances(x: Float[Array, "B d"], y: Float[Array, "G d"]) -> Float[Array, "B G"]:
    """|x_i - y_j|^2, from differences: the expanded form loses what is small."""
    return jnp.sum((x[:, None] - y[None]) ** 2, axis=-1)


def _mmd(section: Any) -> Penalty:
    """Squared maximum mean discrepancy of codes and prior draws, unbiased (WAE-MMD; InfoVAE, Zhao et al. 2019, arXiv
    1706.02262, whose alpha and lambda are beta = 1 - alpha and mmd = alpha + lambda - 1)."""
    if section.mmd_kernel not in KERNELS:
        raise unknown_name("model.mmd_kernel", section.mmd_kernel, KERNELS)
    if section.mmd_bandwidth <= 0:
        raise UserError(f"model.mmd_bandwidth={section.mmd_bandwidth} must be positive.")
    kernel, bandwidth = KERNELS[section.mmd_kernel], section.mmd_bandwidth

    def penalty(scope: Scope) -> Terms:
        z = flat(scope.code.samples[:, 0], 1)
        drawn = flat(scope.prior.sample(scope.params, scope.context.keys("prior")), 1)
        all_z, all_drawn = scope.context.gather((z, drawn))
        others, dimensions = len(all_z) - 1, z.shape[1]
        own = own_place(scope.batch, scope.context)
        mean = lambda a, b, leave_out: jnp.sum(  # noqa: E731
            jnp.where(leave_out, 0.0, kernel(squared_distances(a, b), dimensions, bandwidth)), axis=1
        )
        within = (mean(z, all_z, own) + mean(drawn, all_drawn, own)) / others
        return {"mmd": within - 2 * mean(z, all_drawn, False) / len(all_drawn)}

    return penalty


def _latent_norm(section: Any) -> Penalty:
    """|z|^2 / 2: keeps a deterministic code in place (RAE, Ghosh et al. 2020, arXiv 1903.12436, eq. 11)."""
    return lambda scope: {"latent_norm": 0.5 * jnp.sum(flat(scope.code.mean, 1) ** 2, axis=1)}


def _gradient_penalty(section: Any) -> Penalty:
    """|d decoder / d z|^2, the squared Frobenius norm (RAE-GP, Ghosh et al. 2020, eq. 12), estimated without bias by
    one random projection of the output (Hutchinson)."""

    def penalty(scope: Scope) -> Terms:
        output, pull = jax.vjp(scope.decode, scope.code.mean)
        signs = jax.vmap(lambda key: jax.random.rademacher(key, output.shape[1:], output.dtype))
        (gradient,) = pull(signs(scope.context.keys("projection")))
        return {"gradient_penalty": jnp.sum(flat(gradient, 1) ** 2, axis=1)}

    return penalty


def _decoder_norm(section: Any) -> Penalty:
    """|decoder weights|^2 (RAE-L2, Ghosh et al. 2020, section 3); a learned scale of the likelihood is none of them."""

    def penalty(scope: Scope) -> Terms:
        total = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(scope.params["decoder"]["net"]))
        return {"decoder_norm": jnp.full(len(scope.code.mean), total)}

    return penalty


PENALTIES = {
    "total_correlation": _total_correlation,
    "dip_i": _dip_i,
    "dip_ii": _dip_ii,
    "mmd": _mmd,
    "latent_norm": _latent_norm,
    "gradient_penalty": _gradient_penalty,
    "decoder_norm": _decoder_norm,
}
NEED_DENSITY = ("total_correlation", "dip_ii")


def make(section: Any, has_density: bool) -> tuple[Penalty, ...]:
    """Builds `model.penalties`. Raises UserError for unknown ones and those that need a posterior density."""
    names = tuple(section.penalties)
    for name in names:
        if name not in PENALTIES:
            raise unknown_name("model.penalties", name, PENALTIES)
        if name in NEED_DENSITY and not has_density:
            raise UserError(
                f"model.penalties={name!r} needs a posterior density, which model.bottleneck={section.bottleneck!r} "
                "has not: set model.bottleneck=gaussian or drop the penalty."
            )
    if len(set(names)) < len(names) or {"dip_i", "dip_ii"} <= set(names):
        raise UserError(f"model.penalties={names} names a term twice.")
    return tuple(PENALTIES[name](section) for name in names)
