"""Diffusion on a learned path as a model: whose its parameters are, what trains them, what does not fit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import latent
from latent import build, config, rng
from latent.diffusion.learned_schedule import learned
from latent.errors import UserError
from latent.models import latent_ddpm
from latent.train import train
from latent.types import Context, DataSpec

TINY = "configs/latent_ddpm.py:tiny_learned"
TOY = {"model.net.name": "residual_mlp", "model.net.self_conditioning": False}
SPEC = DataSpec("toy", (3,), 4, 64, np.zeros(3, np.float32), "real")


def toy(**changes):
    values = config.load(TINY, TOY | changes).model.to_dict()
    return latent_ddpm.build(config.Section(values), SPEC)


def context(size):
    keys = lambda name: jax.vmap(lambda key: rng.fold_name(key, name))(rng.sample_keys(0, jnp.arange(size)))  # noqa: E731
    same = lambda tree: tree  # noqa: E731
    return Context(keys, jnp.zeros((), jnp.int32), {"denoiser": {"label_dropout": jnp.asarray(0.1)}}, True, same, same)


@pytest.mark.slow
def test_the_denoisers_player_owns_the_path_and_its_loss_trains_it():
    """The net by the bound, the path by its square: as the loss itself changes along each gradient."""
    model = toy()
    (player,) = model.players
    assert player.owns == ("denoiser", "path")
    batch = {
        "x": jax.random.normal(jax.random.key(3), (64, 3)),
        "label": jnp.arange(64) % 4,
        "position": jnp.arange(64),
    }
    params, extra = jax.jit(model.init)(jax.random.key(0), batch)
    # Not the zero that a net starts as, so that there is something to tell apart.
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)

    @jax.jit
    def gradient(params):
        return jax.grad(lambda params: player.loss(params, extra, batch, context(64)).objective)(params)

    @jax.jit
    def bound(params):
        loss = player.loss(params, extra, batch, context(64))
        return loss.objective, loss.terms["weighted_error"]

    trained, (objective, found) = gradient(params), bound(params)
    assert objective == pytest.approx(float(found.mean()), rel=1e-6)
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(trained["path"]))
    means = {"denoiser": lambda bits: bits.mean(), "path": lambda bits: (bits**2).mean() / (13.3 + 5.0)}
    for component, mean in means.items():
        slope = float(optax.tree.norm(trained[component]))
        step = 2e-3
        ends = []
        for sign in (1.0, -1.0):
            move = lambda leaf, g, amount=sign * step / slope: leaf + amount * g  # noqa: E731
            moved = params | {component: jax.tree.map(move, params[component], trained[component])}
            ends.append(float(mean(bound(moved)[1])))
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(slope, rel=0.05), component
    terms = jax.eval_shape(lambda: model.terms(params, extra, batch, context(64)))
    assert set(terms) == {"weighted_error", "error"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.weighting.name": "uniform"}, r"model\.weighting\.name='uniform' .*Allowed: elbo"),
        ({"model.times.name": "logit_normal"}, r"model\.times\.name='logit_normal' .*uniform, low_discrepancy"),
        ({"model.learned_variance": True}, r"model\.learned_variance=True .*'learned'"),
        ({"model.schedule.options.hidden": 0}, "hidden=0"),
        ({"model.schedule.options.log_snr_min": 20.0}, r"log_snr_min=20\.0 must be below log_snr_max=13\.3"),
        ({"model.schedule.options.rho": 7.0}, r"model\.schedule\.options=.*rho"),
    ],
)
def test_what_does_not_fit_a_learned_path_is_refused(changes, words):
    with pytest.raises(UserError, match=words):
        toy(**changes)


@pytest.mark.slow
def test_a_weaker_run_guides_on_the_path_of_the_stronger(tmp_path):
    """Each has a path of its own; the weaker net is told the level, which both know."""
    quick = {"eval.metrics": ()}
    assert train(config.load(TINY, quick).to_dict(), tmp_path / "weak") == 0
    guided = quick | {"model.weak": str(tmp_path / "weak"), "seed": 1}
    assert train(config.load(TINY, guided).to_dict(), tmp_path / "guided") == 0
    run = latent.load(tmp_path / "guided")
    own, theirs = run.state.params["path"], run.state.params["weak"]["path"]
    t = jnp.linspace(0.1, 0.9, 5)
    assert np.abs(learned(own).log_snr(t) - learned(theirs).log_snr(t)).max() > 1e-4
    plain, pushed = (run.sample(4, condition=3, autoguidance=scale) for scale in (1.0, 20.0))
    assert np.isfinite(pushed).all() and np.abs(pushed - plain).max() > 1e-4
    with pytest.raises(UserError, match=r"another model\.schedule"):
        build.build(config.load(TINY, guided | {"model.schedule.options.log_snr_max": 10.0}).to_dict())
