"""Toy models that prove the contract: an adversarial pair, and two components of which one is frozen."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from latent.types import Loss, Model, Player

DIM = 6


def adversarial(every: int = 2) -> Model:
    """A critic with a spectral-norm vector in `extra`, then a generator that moves once in `every` steps. The
    generator's loss is coupled over the batch (a moment match against the global mean)."""

    def init(key, batch):
        keys = jax.random.split(key, 4)
        params = {
            "critic": {
                "w": 0.3 * jax.random.normal(keys[0], (DIM, 4)),
                "v": 0.3 * jax.random.normal(keys[1], (4,)),
            },
            "generator": {"w": 0.3 * jax.random.normal(keys[2], (3, DIM)), "b": jnp.zeros(DIM)},
        }
        extra = {"critic": {"u": jnp.ones(DIM) / DIM**0.5, "seen": jnp.zeros((), jnp.int32)}}
        return params, extra

    def score(params, extra, x):
        w, u = params["critic"]["w"], extra["critic"]["u"]
        v = w.T @ u
        u = jax.lax.stop_gradient(w @ (v / jnp.linalg.norm(v)))
        u = u / jnp.linalg.norm(u)
        scale = jnp.linalg.norm(w.T @ u)
        new = {"critic": {"u": u, "seen": extra["critic"]["seen"] + 1}}
        return jnp.tanh(x @ (w / scale)) @ params["critic"]["v"], new

    def generate(params, keys):
        noise = jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
        return noise @ params["generator"]["w"] + params["generator"]["b"]

    def critic_loss(params, extra, batch, context):
        fake = generate(params, context.keys("noise"))
        real_score, extra = score(params, extra, batch["x"])
        fake_score, extra = score(params, extra, fake)
        terms = {"adversarial": jax.nn.softplus(-real_score) + jax.nn.softplus(fake_score)}
        return Loss(jnp.mean(terms["adversarial"]), terms, extra)

    def generator_loss(params, extra, batch, context):
        fake = generate(params, context.keys("noise"))
        fake_score, extra = score(params, extra, fake)  # advances the critic's vector: the engine must drop it
        gap = context.mean(jnp.mean(fake, axis=0)) - context.mean(jnp.mean(batch["x"], axis=0))
        spread = jnp.var(context.gather(fake), axis=0)
        moment = jnp.sum(gap**2) + jnp.sum((spread - 1.0) ** 2)
        terms = {"adversarial": jax.nn.softplus(-fake_score), "moment": jnp.full(fake.shape[0], moment)}
        return Loss(jnp.mean(terms["adversarial"]) + moment, terms, extra)

    def terms(params, extra, batch, context):
        return {"score": score(params, extra, batch["x"])[0]}

    players = (
        Player("critic", ("critic",), critic_loss),
        Player("generator", ("generator",), generator_loss, every),
    )
    return Model(init, players, terms)


def frozen() -> Model:
    """A first stage that nobody owns, and a denoiser trained on its codes."""

    def init(key, batch):
        one, two = jax.random.split(key)
        params = {
            "first_stage": {"w": jax.random.normal(one, (DIM, 3))},
            "denoiser": {"w": 0.1 * jax.random.normal(two, (3, 3))},
        }
        return params, {"first_stage": {"scale": jnp.float32(2.0)}}

    def loss(params, extra, batch, context):
        z = batch["x"] @ params["first_stage"]["w"] / extra["first_stage"]["scale"]
        noise = jax.vmap(lambda key: jax.random.normal(key, (3,)))(context.keys("noise"))
        error = jnp.sum(((z + noise) @ params["denoiser"]["w"] - z) ** 2, axis=1)
        extra = {"first_stage": {"scale": extra["first_stage"]["scale"] * 1.1}}  # not owned: must be dropped
        return Loss(jnp.mean(error), {"error": error}, extra)

    return Model(init, (Player("denoiser", ("denoiser",), loss),), lambda *_: {})


def data(size: int = 64, seed: int = 0) -> np.ndarray:
    """Correlated Gaussian rows, so that every device sees other examples."""
    generator = np.random.default_rng(seed)
    return (generator.normal(size=(size, DIM)) @ generator.normal(size=(DIM, DIM)) / DIM**0.5).astype(np.float32)
