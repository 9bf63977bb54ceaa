"""The exact denoiser of a Gaussian mixture, and the reference cases of samplers."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from latent.diffusion.predictions import Denoised
from latent.diffusion.schedules import SCHEDULES
from latent.diffusion.schedules import Path as DiffusionPath

FOLDER = Path(__file__).parents[1] / "reference"
SAMPLERS = np.load(FOLDER / "samplers.npz")
SCHEDULE_VALUES = np.load(FOLDER / "schedules.npz")
FORMS = np.load(FOLDER / "exact_forms.npz")
CASES = json.loads((FOLDER / "samplers_cases.json").read_text())


class Mixture(NamedTuple):
    weights: np.ndarray
    means: np.ndarray
    covs: np.ndarray


MIXTURE = Mixture(SAMPLERS["weights"], SAMPLERS["means"], SAMPLERS["covs"])
GAUSSIAN = Mixture(SAMPLERS["gauss8d_weights"], SAMPLERS["gauss8d_means"], SAMPLERS["gauss8d_covs"])


def components(mixture, x, alpha, sigma):
    """log w_k + log N(x; alpha m_k, S_k) [N, K], S_k^-1 (x - alpha m_k) and C_k times that [N, K, d]."""
    values, vectors = (jnp.asarray(part, x.dtype) for part in np.linalg.eigh(mixture.covs))
    spread = alpha**2 * values + sigma**2
    difference = x[:, None] - alpha * jnp.asarray(mixture.means, x.dtype)
    along = jnp.einsum("kji,nkj->nki", vectors, difference)
    logs = -0.5 * jnp.sum(along**2 / spread + jnp.log(2 * jnp.pi * spread), axis=-1)
    back = lambda each: jnp.einsum("kij,nkj->nki", vectors, each)  # noqa: E731
    return (
        jnp.log(jnp.asarray(mixture.weights, x.dtype)) + logs,
        back(along / spread),
        back(values * along / spread),
    )


def log_density(mixture, x, alpha=1.0, sigma=0.0):
    """log p_t(x), nats."""
    return jax.nn.logsumexp(components(mixture, x, alpha, sigma)[0], axis=1)


def denoise(mixture, x, alpha, sigma):
    """E[x0 | x], with eps from the score: both defined at both ends."""
    logs, solved, pulled = components(mixture, x, alpha, sigma)
    share = jax.nn.softmax(logs, axis=1)
    each = jnp.asarray(mixture.means, x.dtype) + alpha * pulled
    return Denoised(jnp.einsum("nk,nki->ni", share, each), sigma * jnp.einsum("nk,nki->ni", share, solved))


def denoiser(mixture, path: DiffusionPath):
    """The denoiser of a path, compiled once for all tests that ask for it."""
    return _denoiser("mixture" if mixture is MIXTURE else "gaussian", path)


@functools.cache
def _denoiser(name, path):
    mixture = {"mixture": MIXTURE, "gaussian": GAUSSIAN}[name]
    return jax.jit(lambda x, t: denoise(mixture, x, path.alpha(t), path.sigma(t)))


def draw(mixture, size, seed=0):
    generator = np.random.default_rng(seed)
    label = generator.choice(len(mixture.weights), size, p=mixture.weights)
    noise = generator.normal(size=(size, mixture.means.shape[1]))
    return mixture.means[label] + np.einsum("nij,nj->ni", np.linalg.cholesky(mixture.covs)[label], noise)


def moments(mixture):
    """Mean and covariance."""
    mean = mixture.weights @ mixture.means
    centred = mixture.means - mean
    spread = mixture.covs + centred[:, :, None] * centred[:, None]
    return mean, np.einsum("k,kij->ij", mixture.weights, spread)


def walk(sampler, denoise, x, noise=None):
    """Every x of a sampler [S + 1, N, d], with given noise [S, N, d]. Compiled only where the steps are many."""
    carry, found = sampler.init(x), [x]
    step = lambda carry, i, noise: sampler.step(denoise, carry, i, noise)  # noqa: E731
    step, finish = (jax.jit(step), jax.jit(sampler.finish)) if sampler.num_steps > 20 else (step, sampler.finish)
    none = jnp.zeros_like(x)
    for i in range(sampler.num_steps):
        carry = step(carry, i, none if noise is None else noise[i])
        found.append(finish(carry))
    return np.stack(found)


def flow_map(mixture, x, start, end):
    """Exact probability-flow ODE of one Gaussian from (alpha, sigma) = start to end: the covariance's root moves."""
    mean, cov = mixture.means[0], mixture.covs[0]
    values, vectors = np.linalg.eigh(cov)
    scale = [np.sqrt(alpha**2 * values + sigma**2) for alpha, sigma in (start, end)]
    moved = (np.asarray(x) - start[0] * mean) @ vectors * (scale[1] / scale[0])
    return moved @ vectors.T + end[0] * mean


def every_path():
    """One path of each schedule, and those that end in pure noise."""
    paths = {name: build() for name, build in SCHEDULES.items()}
    for name in ("linear", "scaled_linear", "cosine", "sigmoid"):
        paths[f"{name}_zero_terminal_snr"] = SCHEDULES[name](zero_terminal_snr=True)
    paths["rectified_flow_shifted"] = SCHEDULES["rectified_flow"](shift=3.0)
    return paths
