"""Runs that guide another one: what is handed over, that it acts, what does not fit; and the learned variance's run."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import latent
from latent import build, config
from latent.checkpoint import digest
from latent.errors import UserError
from latent.train import train
from tests.harness import QUIET

pytestmark = pytest.mark.slow  # up to five runs; the mathematics is in tests/diffusion/test_guided.py

LATENTS = {"model.net.name": "residual_mlp", "model.net.self_conditioning": False}


def settings(path, **changes):
    return config.load(path, QUIET | {"train.steps": 2} | changes).to_dict()


def diffusion(**changes):
    return settings("configs/latent_ddpm.py:tiny", **(LATENTS | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An autoencoder, a classifier, and a diffusion model on the first."""
    folder = tmp_path_factory.mktemp("guides")
    assert train(settings("configs/vae.py:tiny"), folder / "vae") == 0
    assert train(settings("configs/classifier.py:tiny"), folder / "classifier") == 0
    stage = {"model.first_stage": str(folder / "vae")}
    assert train(diffusion(**stage, **{"model.net.depth": 2}), folder / "weak") == 0
    return folder


@pytest.fixture(scope="module")
def guided(folder):
    """A diffusion model on the autoencoder that the other two runs may guide."""
    runs = {"model.first_stage": "vae", "model.weak": "weak", "model.classifier": "classifier"}
    changes = {key: str(folder / name) for key, name in runs.items()} | {"train.steps": 4}
    assert train(diffusion(**changes), folder / "guided") == 0
    return folder


def test_guides_are_copied_without_what_they_were_handed_and_never_move(guided):
    run, weak, classifier = (latent.load(guided / name) for name in ("guided", "weak", "classifier"))
    assert set(run.state.params) == {"first_stage", "weak", "classifier", "denoiser"}
    assert set(run.state.params["weak"]) == {"denoiser"}
    assert digest(run.state.params["weak"]["denoiser"]) == digest(weak.state.params["denoiser"])
    assert digest(run.state.params["classifier"]) == digest(classifier.state.params)
    assert set(run.state.opt) == {"denoiser"}


def test_a_classifier_that_guides_samples_tells_a_likelihood_nothing(folder):
    guides = {"model.classifier": str(folder / "classifier"), "model.conditional": False}
    model = build.build(diffusion(**{"model.first_stage": str(folder / "vae")} | guides)).recipe.model
    assert model.classes == 10 and model.told == ()


def test_guides_act_on_samples(guided):
    run = latent.load(guided / "guided")
    plain = run.sample(4, condition=3)
    for name, scale in (("autoguidance", 20.0), ("classifier_scale", 100.0)):
        moved = run.sample(4, condition=3, **{name: scale})
        assert np.isfinite(moved).all() and np.abs(moved - plain).max() > 1e-4, name
    x = run.examples("test", limit=4)["x"]
    plain, pulled = (run.edit("img2img", x, condition=3, classifier_scale=scale)["x"] for scale in (0.0, 100.0))
    assert np.abs(pulled - plain).max() > 1e-4
    for name in ("guidance", "classifier_scale"):  # told no class, there is none to pull to
        with pytest.raises(UserError, match=rf"--{name}=5\.0 has nothing to guide to"):
            run.edit("img2img", x, **{name: 5.0})
    # In steps too few for the scale it overshoots, so: small pushes, many steps.
    draws = [run.sample(64, condition=3, classifier_scale=scale, steps=20) for scale in (1.0, 0.0, -1.0)]
    judge = latent.load(guided / "classifier")
    up, same, down = (np.mean(jax.nn.log_softmax(judge.encode(x).info["logits"])[:, 3]) for x in draws)
    assert up > same + 5e-4 and same > down + 5e-4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.weak": "vae"}, "a 'vae' cannot guide a 'latent_ddpm'"),
        ({"model.weak": "weak", "model.first_stage": "", "model.net.name": "dit"}, "another first stage"),
        ({"model.weak": "weak", "model.schedule.name": "linear"}, r"another model\.schedule"),
        ({"model.classifier": "vae"}, "a 'vae' gives no logits"),
        ({"model.classifier": "classifier", "data.dequantise": True, "model.first_stage": ""}, r"data\.dequantise"),
        ({"model.classifier": "nowhere"}, "holds no run"),
        ({"model.learned_variance": True, "model.schedule.name": "rectified_flow"}, r"model\.learned_variance=True"),
        ({"data.crop": 6}, r"model\.first_stage: .*\(8, 8, 1\).*\(6, 6, 1\)"),
    ],
)
def test_what_does_not_fit_is_refused(folder, changes, words):
    runs = ("model.weak", "model.classifier", "model.first_stage")
    named = {key: str(folder / value) if key in runs and value else value for key, value in changes.items()}
    with pytest.raises(UserError, match=words):
        build.build(diffusion(**({"model.first_stage": str(folder / "vae")} | named)))


def test_a_learned_variance_trains_with_its_bound_and_serves_its_sampler(folder, tmp_path):
    changes = {
        "model.first_stage": str(folder / "vae"),
        "model.learned_variance": True,
        "model.sampling.sampler": "ddpm",
        "model.sampling.options": {"variance": "learned"},
    }
    flat = config.flatten(diffusion()) | config.flatten(config.unflatten(changes))
    flat.pop("model.sampling.options", None)
    assert train(config.unflatten(flat), tmp_path / "run") == 0
    run = latent.load(tmp_path / "run")
    assert np.isfinite(run.sample(3)).all()
    terms = run.data("test").terms(run.state)
    assert set(terms) == {"weighted_error", "error", "step_bits"} and (terms["step_bits"] >= -1e-5).all()
