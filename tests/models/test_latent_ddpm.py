"""Latent diffusion on top of a trained first stage: what is handed over, what stays frozen, what is refused."""

from __future__ import annotations

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import latent
from latent import build, config, first_stage
from latent.checkpoint import digest
from latent.diffusion import spaces
from latent.errors import UserError
from latent.models import latent_ddpm
from latent.train import train
from latent.types import DataSpec
from tests.harness import QUIET

LATENTS = {"model.net.name": "residual_mlp", "model.net.self_conditioning": False}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(the first stage's directory, a latent diffusion of four steps on it)."""
    folder = tmp_path_factory.mktemp("two_stages")
    assert train(config.load("configs/vae.py:tiny", QUIET).to_dict(), folder / "vae") == 0
    assert train(load_config(folder / "vae", **QUIET), folder / "ddpm") == 0
    return folder / "vae", folder / "ddpm"


def load_config(stage, **changes):
    return config.load("configs/latent_ddpm.py:tiny", {"model.first_stage": str(stage), **LATENTS, **changes}).to_dict()


def test_the_first_stage_is_copied_and_never_moves(runs):
    stage, second = (latent.load(path) for path in runs)
    raw = latent.load(runs[1], average="").state
    for state in (second.state, raw):
        assert digest(state.params["first_stage"]) == digest(stage.state.params)
    assert "first_stage" not in second.state.opt["denoiser"]
    assert all(player.owns == ("denoiser",) for player in second.model.players)


def test_latents_have_zero_mean_and_unit_variance_by_the_stored_statistics(runs):
    stage, second = (latent.load(path) for path in runs)
    stored = json.loads((runs[0] / first_stage.FILE).read_text())
    assert stored == second.config["model"]["first_stage_run"]["statistics"]
    z = stage.encode_split("train", first_stage.EXAMPLES)["sample"]
    normalised = (z - np.array(stored["mean"])) / np.array(stored["std"])
    np.testing.assert_allclose(normalised.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(normalised.std(axis=0), 1, atol=1e-3)
    assert stored["N"] == len(z)
    assert len(stored["kl"]) == z.shape[1]
    assert 1.0 <= stored["effective_rank"] <= z.shape[1]


def test_a_channel_that_never_moves_is_not_divided_by_its_spread(runs):
    run = latent.load(runs[1])
    described = json.loads(json.dumps(run.config["model"]["first_stage_run"]))
    described["statistics"]["std"][0] = 0.0
    space = spaces.latents(config.Section(described), run.spec)
    params, extra = run.state.params, run.state.extra
    x = jnp.asarray(run.examples("test", limit=3)["x"])
    z = space.encode(params, extra, x, jax.random.split(jax.random.key(0), 3))
    assert np.isfinite(z).all() and np.isfinite(space.decode(params, extra, z)).all()


def test_stored_statistics_are_no_more_than_a_cache(runs, monkeypatch):
    """Damaged ones are computed again, and nothing is lost where they cannot be kept."""
    stage, path = latent.load(runs[0]), runs[0] / first_stage.FILE
    stored = json.loads(path.read_text())
    path.write_text(path.read_text()[:-20])
    with monkeypatch.context() as patched:
        patched.setattr(type(path), "rename", lambda *_: (_ for _ in ()).throw(PermissionError("read-only")))
        assert first_stage.statistics(stage) == stored
    assert first_stage.statistics(stage) == stored == json.loads(path.read_text())


def test_the_second_run_needs_the_first_directory_no_more(runs, tmp_path):
    alone = tmp_path / "alone"
    shutil.copytree(runs[1], alone)
    stage = runs[0].with_name("moved")
    runs[0].rename(stage)
    try:
        first = latent.load(alone).sample(3)
    finally:
        stage.rename(runs[0])
    np.testing.assert_allclose(first, latent.load(runs[1]).sample(3), atol=1e-6)


@pytest.mark.slow
def test_resume_is_exact_with_a_first_stage(runs, tmp_path):
    """Law 4: what was handed over at the first start is kept, not asked for again."""
    settings = load_config(runs[0], **QUIET, **{"optimizer.denoiser.schedule.horizon": 4})
    for steps in (2, 4):
        assert train(settings | {"train": settings["train"] | {"steps": steps}}, tmp_path / "parts") == 0
    assert train(settings, tmp_path / "whole") == 0
    parts, whole = (latent.load(tmp_path / name).state for name in ("parts", "whole"))
    assert digest(parts) == digest(whole)


def test_effective_rank_counts_even_directions():
    directions = np.linalg.qr(np.random.default_rng(0).normal(size=(64, 5)))[0]
    even = directions - directions.mean(axis=0)
    assert first_stage.effective_rank(np.linalg.qr(even)[0]) == pytest.approx(5.0, rel=0.05)
    assert first_stage.effective_rank(directions[:, :1] * np.ones(5)) == pytest.approx(1.0, abs=1e-6)


def test_what_does_not_fit_is_refused(runs, tmp_path):
    stage, _ = runs
    with pytest.raises(UserError, match=r"holds no run"):
        build.build(load_config(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"data\.dequantise: None there, True here"):
        build.build(load_config(stage, **{"data.dequantise": True}))
    settings = json.loads((stage / "config.json").read_text())
    unfinished = tmp_path / "unfinished"
    shutil.copytree(stage, unfinished)
    settings["train"]["steps"] = 8
    (unfinished / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"unfinished: step 4 of 8"):
        build.build(load_config(unfinished))
    described = build.resolved(load_config(stage))
    described["model"]["first_stage_run"]["sha256"] = "0" * 64
    with pytest.raises(UserError, match=r"has changed"):
        build.initial_state(build.build(described))


@pytest.fixture(scope="module")
def pixels():
    """A conditional diffusion of 3 values, its net made to answer with noise so that labels matter."""
    settings = config.load("configs/latent_ddpm.py:tiny", LATENTS)
    spec = DataSpec("toy", (3,), 4, 64, np.zeros(3, np.float32), "real")
    model = latent_ddpm.build(config.Section(settings.model.to_dict()), spec)
    params, extra = jax.jit(model.init)(jax.random.key(0), {"x": jnp.zeros((1, 3))})
    keys = jax.random.split(jax.random.key(1), len(jax.tree.leaves(params)))
    leaves, tree = jax.tree.flatten(params)
    noise = [leaf + 0.5 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return model, tree.unflatten(noise), extra


def draw(pixels, label, **options):
    model, params, extra = pixels
    keys = jax.random.split(jax.random.key(5), 6)
    return model.sample(params, extra, keys, jnp.full(6, label, jnp.int32), **options)


def test_guidance_one_is_conditional_and_zero_ignores_the_label(pixels):
    np.testing.assert_allclose(draw(pixels, 0, guidance=0.0), draw(pixels, 3, guidance=0.0), atol=1e-6)
    assert np.abs(draw(pixels, 0, guidance=1.0) - draw(pixels, 3, guidance=1.0)).max() > 1e-2
    close = draw(pixels, 2, guidance=1.0 + 1e-6)  # both questions asked: the same answer as one
    np.testing.assert_allclose(close, draw(pixels, 2, guidance=1.0), atol=1e-4)


def test_the_null_token_is_no_class(pixels):
    for label in range(4):
        assert np.abs(draw(pixels, label, guidance=1.0) - draw(pixels, label, guidance=0.0)).max() > 1e-3


def test_guidance_without_classes_is_refused():
    settings = config.load("configs/latent_ddpm.py:tiny", {**LATENTS, "model.conditional": False})
    spec = DataSpec("toy", (3,), 0, 64, np.zeros(3, np.float32), "real")
    model = latent_ddpm.build(config.Section(settings.model.to_dict()), spec)
    with pytest.raises(UserError, match=r"--guidance=2\.0 .*model\.conditional=True"):
        model.sample({}, {}, jax.random.split(jax.random.key(0), 2), guidance=2.0)
    with pytest.raises(UserError, match=r"model\.conditional=False"):
        model.sample({}, {}, jax.random.split(jax.random.key(0), 2), jnp.zeros(2, jnp.int32))
    with pytest.raises(UserError, match=r"model\.conditional=True needs classes"):
        values = config.load("configs/latent_ddpm.py:tiny", LATENTS).model.to_dict()
        latent_ddpm.build(config.Section(values), spec)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction": "eps", "schedule.name": "rectified_flow"}, "prediction='eps'"),
        ({"schedule.name": "cosin"}, "model.schedule.name"),
        ({"weighting.name": "snr"}, "model.weighting.name"),
        ({"schedule.options": {"rho": 2}}, "model.schedule.options"),
        (
            {"schedule.options": {"beta_max": 20.0}, "schedule.name": "linear"},
            "model.schedule.options={'beta_max': 20.0}",
        ),
        ({"schedule.options": {"beta_min": -1.0}, "schedule.name": "scaled_linear"}, "beta_min=-1.0 must be positive"),
        ({"schedule.options": {"temperature": 0.0}, "schedule.name": "sigmoid"}, "temperature=0.0 must be positive"),
        ({"schedule.options": {"offset": -1.0}}, "model.schedule.options={'offset': -1.0}"),
        ({"schedule.options": {"beta_max": -20}, "schedule.name": "continuous_linear"}, "beta_max=-20"),
        ({"schedule.options": {"shift": float("nan")}, "schedule.name": "rectified_flow"}, "shift=nan"),
        (
            {"schedule.options": {"hidden": 2.5}, "schedule.name": "learned", "weighting.name": "elbo"},
            "{'hidden': 2.5}",
        ),
        ({"times.name": "unifrm"}, "model.times.name"),
        ({"times.name": "low_discrepancy", "times.options": {"stratified": False}}, "model.times.options"),
        ({"times.name": "logit_normal", "times.options": {"mean": "a"}}, "model.times.options={'mean': 'a'}"),
        ({"times.name": "logit_normal", "times.options": {"mean": float("nan")}}, "mean=nan must be finite"),
        ({"weighting.name": "min_snr", "weighting.options": {"gama": 3}}, "model.weighting.options={'gama': 3}"),
        ({"weighting.name": "min_snr", "weighting.options": {"gamma": -1}}, "gamma=-1 must be positive"),
        ({"weighting.name": "edm", "weighting.options": {"sigma_data": 0}}, "sigma_data=0 must be positive"),
        ({"weighting.name": "uniform", "weighting.options": {"gamma": 3}}, "model.weighting.options={'gamma': 3}"),
        ({"sampling.sampler": "foo"}, "model.sampling.sampler='foo'"),
        ({"sampling.options": {"etaa": 3}}, "model.sampling.options={'etaa': 3}"),
        ({"sampling.options": {"eta": 3.0}}, "model.sampling: eta=3.0"),
        ({"sampling.sampler": "ddpm", "sampling.options": {"variance": "learned"}}, "model.learned_variance=True"),
        ({"sampling.steps": 7, "schedule.options": {"num_timesteps": 5}}, "model.sampling: steps=7 exceeds"),
        ({"sampling.grid": "leading", "schedule.name": "edm"}, "model.sampling: grid='leading'"),
        ({"sampling.guidance": 2.0, "conditional": False}, "model.sampling.guidance=2.0 needs"),
        ({"sampling.guidance": float("nan")}, "model.sampling.guidance=nan must be finite"),
        ({"sampling.guidance_interval": (3.0, 1.0)}, "model.sampling.guidance_interval=3,1"),
        ({"sampling.autoguidance": 2.0}, "model.sampling.autoguidance=2.0 needs"),
    ],
)
def test_wrong_choices_name_their_key(changes, message):
    values = config.load("configs/latent_ddpm.py:tiny", LATENTS).model.to_dict()
    flat = config.flatten(values) | changes
    spec = DataSpec("toy", (3,), 4, 64, np.zeros(3, np.float32), "real")
    with pytest.raises(UserError) as caught:
        latent_ddpm.build(config.Section(config.unflatten(flat)), spec)
    assert message in str(caught.value)


def test_a_trajectory_ends_in_the_sample(runs):
    """Its last guess of the data is the sample of a deterministic sampler that ends in the data; labels included."""
    run = latent.load(runs[1])
    classes = np.array([3, 1, 4])
    x = run.sample(3, 0, classes, sampler="ddim", steps=4)
    seen, data = run.sample(3, 0, classes, sampler="ddim", steps=4, trajectory=True)
    assert seen.shape == data.shape == (4, *x.shape)
    np.testing.assert_allclose(data[-1], x, atol=1e-5)
    assert not np.allclose(seen[0], seen[-1], atol=1e-3)


@pytest.mark.slow
def test_the_first_stages_own_prior_is_compared_with_the_diffusion(runs):
    """The distance of the prior is what the first run says of itself: same seed, same keys, same decoder."""
    stage, second = (latent.load(path) for path in runs)
    judged = {"extractor": "lenet_digits", "num_samples": 100}
    sampled = second.with_sampling(steps=2)
    said = second.config["model"]["sampling"]
    assert second.with_sampling(steps=said["steps"], sampler=said["sampler"]) is second  # the passport is the same
    own, prior, ratio, low, high = sampled.evaluate(["frechet_prior"], options={"frechet_prior": judged})
    (alone,) = stage.evaluate(["frechet_distance"], options={"frechet_distance": judged})
    (here,) = sampled.evaluate(["frechet_distance"], options={"frechet_distance": judged})
    assert prior.value == pytest.approx(alone.value, rel=1e-4)
    assert (own.name, own.protocol) == (here.name, here.protocol) and own.value == pytest.approx(here.value, rel=1e-6)
    assert ratio.value == pytest.approx(own.value / prior.value, rel=1e-6)
    assert low.value < ratio.value < high.value
    assert "sampling" in ratio.protocol and "sampling" not in prior.protocol
    assert "sample_prior" in stage.evaluate(["frechet_prior"], options={"frechet_prior": judged})[0].reason
