"""A training split that its frozen first stage encodes once: the same training, no stale codes, plain refusals."""

from __future__ import annotations

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import latent
from latent import build, config, encoded
from latent.checkpoint import digest
from latent.data import dataset
from latent.diffusion import spaces
from latent.errors import UserError
from latent.train import train
from latent.types import DataSpec
from tests import harness

SPATIAL = {"name": "spatial", "channels": (4,), "num_blocks": 1, "attention": False}
STAGES = {
    "gaussian": ("configs/vae.py:tiny", {}),
    "spatial": ("configs/vae.py:tiny", {"net": SPATIAL}),
    "quantised": ("configs/autoencoder.py:tiny", {"adversary": "none", "adaptive_weight": False}),
}
QUICK = {
    "data.name": "digits",
    "train.steps": 2,
    "train.batch_size": 16,
    "log.every": 2,
    "log.images": 0,
    "log.wandb": "disabled",
    "parallel.devices": 1,
    "eval.metrics": (),
    "eval.every": 0,
    "checkpoint.every": 0,
    "checkpoint.best_metric": "",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data directory of its own, with the digits in it, and beside it a first stage of two steps."""
    place = tmp_path_factory.mktemp("encoded_once")
    dataset.load("digits")
    (place / "data").mkdir()
    (place / "data" / "digits").symlink_to(dataset.data_directory(None) / "digits")
    given = config.load("configs/vae.py:tiny", {**QUICK, "data.dir": str(place / "data")}).to_dict()
    assert train(given, place / "stage") == 0
    return place


def settings(folder, **changes):
    """Four steps on the first stage, logged one by one."""
    base = {**QUICK, "model.first_stage": str(folder / "stage"), "data.dir": str(folder / "data")}
    base |= {"model.net.name": "residual_mlp", "model.net.self_conditioning": False}
    base |= {"train.steps": 4, "log.every": 1, "optimizer.denoiser.schedule.horizon": 4}
    return config.load("configs/latent_ddpm.py:tiny", base | {"data.encode_once": True} | changes).to_dict()


def kept(folder):
    return sorted(path for path in (folder / "data" / encoded.DIRECTORY).glob("*") if path.is_dir())


@pytest.mark.parametrize(
    ("name", "latents"), [("gaussian", "sample"), ("gaussian", "mean"), ("spatial", "sample"), ("quantised", "sample")]
)
def test_codes_give_the_latents_that_encoding_gives(name, latents):
    """With the same keys; and what is drawn is drawn anew with others."""
    path, model = STAGES[name]
    model = config.load(path).model.to_dict() | model
    spec = DataSpec("toy", (8, 8, 1), 10, 64, np.zeros((8, 8, 1), np.float32), "unit")
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(5, *spec.shape)), jnp.float32)
    first = config.select("latent.models", "vae", "build", "")(config.Section(model), spec)
    shape = jax.eval_shape(lambda: first.encode(*first.init(jax.random.key(0), {"x": x}), x, keys(5))).mean.shape[1:]
    channels = np.linspace(0.5, 1.5, shape[-1]).tolist()
    statistics = {"shape": shape, "mean": channels, "std": channels}
    described = {"model": model, "shape": spec.shape, "sha256": "", "statistics": statistics}
    space = spaces.latents(config.Section(described), spec, latents)

    @jax.jit
    def both(x, keys):
        params, extra = space.init(jax.random.key(1), {"x": x})
        codes = space.codes.encode(params, extra, x)
        return codes, space.encode(params, extra, x, keys), space.from_codes(codes, keys)

    codes, z, drawn = both(x, keys(5))
    np.testing.assert_allclose(drawn, z, rtol=1e-5, atol=1e-6)
    random = name != "quantised" and latents == "sample"
    assert codes.shape == (5, 1 + random, *shape)
    assert np.allclose(both(x, keys(5, seed=1))[2], drawn) != random


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@pytest.mark.slow
def test_training_is_that_on_the_examples_wherever_codes_lie_and_a_run_stops(folder, tmp_path):
    """In one go or in two, from the codes of the first start or from new ones: the same bits. Streamed or resident, and
    encoding every batch: the same up to rounding, for these are other programs."""
    assert train(settings(folder, **{"data.encode_once": False}), tmp_path / "by_batch") == 0
    streamed = settings(folder, **{"data.device_budget": 1000})
    experiment = build.build(streamed)
    assert experiment.feed(build.initial_state(experiment)).resident == {}
    assert train(streamed, tmp_path / "streamed") == 0
    (place,) = kept(folder)
    assert train(streamed | {"train": streamed["train"] | {"steps": 2}}, tmp_path / "parts") == 0
    shutil.rmtree(place)
    encoded._read.cache_clear()
    moved = (folder / "stage").rename(folder / "moved")
    try:
        assert train(streamed, tmp_path / "parts") == 0
    finally:
        moved.rename(folder / "stage")
    assert kept(folder) == [place]
    assert train(settings(folder), tmp_path / "resident") == 0
    assert digest(latent.load(tmp_path / "parts").state) == digest(latent.load(tmp_path / "streamed").state)
    by_batch, parts, resident = (harness.lines(tmp_path / name) for name in ("by_batch", "parts", "resident"))
    assert len(parts) == 4 and parts[0].keys() == by_batch[0].keys()
    for line, other in zip(2 * by_batch, parts + resident, strict=True):
        for term in ("denoiser/loss", "denoiser/error", "denoiser/gradient_norm"):
            assert line[term] == pytest.approx(other[term], rel=1e-5)


@pytest.mark.parametrize(("chosen", "shape"), [(True, (2, 2)), (False, (8, 8, 1))])
def test_it_is_a_key_of_the_command_line(folder, chosen, shape):
    """Neither choice is refused as one that nothing reads, and each decides what stays on the device."""
    experiment = build.build(settings(folder, **{"data.encode_once": chosen}), ["data.encode_once"])
    resident = experiment.feed(build.initial_state(experiment)).resident["x"]
    assert resident.shape == (experiment.spec.size, *shape)


@pytest.mark.slow
def test_codes_of_another_first_stage_or_choice_are_other_codes(folder):
    """No run takes the codes of other weights, of other settings or of other data for its own."""
    shutil.rmtree(folder / "data" / encoded.DIRECTORY, ignore_errors=True)

    def resident(**changes):
        experiment = build.build(settings(folder, **changes))
        state = build.initial_state(experiment)
        return experiment, state, experiment.feed(state).resident["x"]

    experiment, state, drawn = resident()
    assert drawn.shape == (experiment.spec.size, 2, 2) and len(kept(folder)) == 1
    assert resident()[2] is drawn and len(kept(folder)) == 1
    assert resident(**{"model.latents": "mean"})[2].shape == (experiment.spec.size, 1, 2) and len(kept(folder)) == 2
    described = experiment.config["model"]["first_stage_run"]
    model = experiment.config["model"] | {"first_stage_run": described | {"sha256": "0" * 64}}
    other = build.build(experiment.config | {"model": model})
    moved = jax.tree.map(lambda leaf: leaf + 0.1, state.params["first_stage"])
    found = other.feed(state._replace(params={**state.params, "first_stage": moved})).resident["x"]
    assert len(kept(folder)) == 3 and not np.allclose(found, drawn, atol=1e-3)


@pytest.mark.slow
def test_codes_that_are_kept_take_the_text_of_the_set(folder):
    """They were encoded before the set's words had numbers, or other ones; their own digest knows nothing of it."""
    experiment = build.build(settings(folder))
    state = build.initial_state(experiment)
    experiment.feed(state)
    before, data = kept(folder), experiment.evaluation_data("train", 0, "")
    assert data.split.text is None
    data.split = data.split._replace(text=np.arange(experiment.spec.size, dtype=np.int32)[:, None])
    for given in (state, experiment.abstract_state()):
        found = encoded.split(data, given, folder / "data", 2**30)
        np.testing.assert_array_equal(found.arrays()["text"], data.split.text)
    assert kept(folder) == before
    for place in before:
        shutil.rmtree(place)
    assert encoded.split(data, state, folder / "data", 2**30).text is data.split.text
    assert not list((folder / "data" / encoded.DIRECTORY).glob("*/*text*"))


@pytest.mark.slow
def test_damaged_codes_are_named(folder):
    experiment = build.build(settings(folder))
    state = build.initial_state(experiment)
    experiment.feed(state)
    for place in kept(folder):
        with open(place / "train-x.npy", "r+b") as file:
            file.seek(-8, 2)
            file.write(b"\x00" * 8)
    encoded._read.cache_clear()
    with pytest.raises(UserError, match=r"the train arrays in .*encoded.* are damaged .*delete that folder"):
        experiment.feed(state)
    shutil.rmtree(folder / "data" / encoded.DIRECTORY)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model.first_stage": "", "model.net.name": "dit"}, r"data\.encode_once=True: .* has no frozen first stage"),
        ({"data.flip": True}, r"data\.encode_once=True keeps one code .* data\.flip=True"),
        ({"data.crop": 8, "data.crop_padding": 1}, r"data\.crop=8"),
        ({"model.latents": "median"}, r"model\.latents='median' is not known.*Allowed: mean, sample"),
    ],
)
def test_what_cannot_be_encoded_once_is_refused(folder, changes, reason):
    with pytest.raises(UserError, match=reason):
        build.build(settings(folder, **changes))


def test_codes_that_are_not_what_training_would_draw_are_refused(folder):
    """A first stage whose draws are not its mean and scale times noise: the terms would tell, and do."""
    experiment = build.build(settings(folder))
    codes = experiment.recipe.model.codes
    other = codes._replace(
        encode=lambda params, extra, x: 2.0 * codes.encode(params, extra, x), identity={"of": "another draw"}
    )
    recipe = experiment.recipe._replace(model=experiment.recipe.model._replace(codes=other))
    with pytest.raises(UserError, match=r"neither fixed nor drawn from a Gaussian posterior"):
        experiment._replace(recipe=recipe).feed(build.initial_state(experiment))
