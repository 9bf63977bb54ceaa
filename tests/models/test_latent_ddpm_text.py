"""Latent diffusion told a text: what it learns, its coins, guidance away from nothing, and prompts of a trained run."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import latent
from latent import build, config, rng
from latent.data import arrays, dataset
from latent.data.arrays import Split
from latent.errors import UserError
from latent.models import latent_ddpm
from latent.train import train
from latent.types import Condition, Context, DataSpec
from tests.harness import QUIET
from tests.test_commands import run_all

VECTORS = {"model.net.name": "residual_mlp", "model.net.self_conditioning": False}
WORDS = ("heart", "red", "blue")
SPEC = DataSpec("toy", (2,), 4, 64, np.zeros(2, np.float32), "real", vocabulary=WORDS)


def build_model(**changes):
    settings = config.load("configs/latent_ddpm.py:tiny", {"model.text": True, **VECTORS, **changes})
    return latent_ddpm.build(config.Section(settings.model.to_dict()), SPEC)


def context(size, step=0, **rates):
    streams = rng.training_stream(0, step, "denoiser", jnp.arange(size))
    same = lambda tree: tree  # noqa: E731
    rates = {"denoiser": {"label_dropout": 0.1, "text_dropout": 0.1, **rates}}
    return Context(streams, jnp.asarray(step), rates, True, same, same)


# What it learns ---------------------------------------------------------------------------------------------------

MEANS, SPREAD = jnp.asarray([[2.0, 0.0], [-1.0, 2.0], [-1.0, -2.0]]), 0.3
TEXTS = jnp.asarray([[1, 0, -1], [2, -1, -1], [0, -1, -1]])
"""Texts of one and two words, "heart" in two of them, and the mean of z that each stands for."""


@pytest.mark.slow
def test_a_net_that_is_told_the_text_finds_the_mean_that_it_stands_for():
    """x0 given x and the text is the closed form of a Gaussian; given no text, that of the mixture of all three."""
    model = build_model(**{"model.conditional": False, "model.net.width": 48})
    params, extra = jax.jit(model.init)(jax.random.key(0), {"x": jnp.zeros((1, 2))})
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 300))

    def step(carry, number):
        params, state = carry
        keys = jax.random.split(jax.random.fold_in(jax.random.key(1), number))
        asked = jax.random.randint(keys[0], (128,), 0, 3)
        x = MEANS[asked] + SPREAD * jax.random.normal(keys[1], (128, 2))
        batch = {"x": x, "text": TEXTS[asked], "position": jnp.arange(128)}
        given = context(128, number, text_dropout=0.2)
        gradient = jax.grad(lambda p: model.players[0].loss(p, extra, batch, given).objective)(params)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), None

    params, _ = jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), jnp.arange(300))[0])(params)
    keys = rng.sample_keys(0, np.arange(300))
    draw = lambda text: np.asarray(model.sample(params, extra, keys, Condition(text=text), steps=20))  # noqa: E731
    told = draw(jnp.repeat(TEXTS, 100, axis=0)).reshape(3, 100, 2)
    np.testing.assert_allclose(told.mean(axis=1), MEANS, atol=0.2)
    assert told.std(axis=1).max() < 0.6
    untold = draw(jnp.full((300, 3), -1))
    nearest = np.linalg.norm(untold[:, None] - np.asarray(MEANS), axis=2).argmin(axis=1)
    np.testing.assert_allclose(np.bincount(nearest, minlength=3) / 300, 1 / 3, atol=0.12)


# Coins --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def heard(monkeypatch):
    """{rates: (whether the label was told, whether the text was)} of a batch, by what the denoiser hears."""
    size, found = 4000, []

    def judged(denoiser, weighting, path, weights, t, data):
        found.append(data[2])
        return jnp.zeros(size), {}

    monkeypatch.setattr(latent_ddpm, "_judged", judged)
    model = build_model()
    batch = {"x": jnp.zeros((size, 2)), "label": jnp.arange(size) % 4, "position": jnp.arange(size)}
    batch["text"] = jnp.asarray(TEXTS)[jnp.arange(size) % 3]

    def listen(**rates):
        model.players[0].loss({"denoiser": {}}, {}, batch, context(size, **rates))
        label, text = (np.asarray(part) for part in found.pop())
        told = label >= 0, (text >= 0).any(axis=1)
        np.testing.assert_array_equal(label[told[0]], batch["label"][told[0]])
        np.testing.assert_array_equal(text[told[1]], batch["text"][told[1]])  # a text is dropped whole or not at all
        return told

    return listen


def test_label_and_text_are_dropped_by_coins_of_their_own(heard):
    label, text = heard(label_dropout=0.5, text_dropout=0.3)
    assert np.mean(label) == pytest.approx(0.5, abs=0.03) and np.mean(text) == pytest.approx(0.7, abs=0.03)
    assert np.mean(label & text) == pytest.approx(0.35, abs=0.03) and np.mean(~label & ~text) > 0.1
    np.testing.assert_array_equal(heard(label_dropout=0.5, text_dropout=1.0)[0], label)
    np.testing.assert_array_equal(heard(label_dropout=0.0, text_dropout=0.3)[1], text)
    assert heard(label_dropout=0.0, text_dropout=0.0)[1].all() and not heard(text_dropout=1.0)[1].any()


# Guidance and edits --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stirred():
    """A model of labels and text whose net answers with noise, so that whatever it is told matters."""
    model = build_model()
    params, extra = jax.jit(model.init)(jax.random.key(0), {"x": jnp.zeros((1, 2))})
    leaves, tree = jax.tree.flatten(params)
    noise = (np.random.default_rng(place).normal(size=leaf.shape) for place, leaf in enumerate(leaves))
    moved = [leaf + 0.5 * jnp.asarray(each, jnp.float32) for leaf, each in zip(leaves, noise, strict=True)]
    return model, tree.unflatten(moved), extra


KEYS = rng.sample_keys(5, np.arange(3))
LABEL = jnp.asarray([0, 3, 1])
NOTHING = Condition(jnp.full(3, -1), jnp.full((3, 3), -1))


def draw(stirred, label=None, text=None, **options):
    model, params, extra = stirred
    return np.asarray(model.sample(params, extra, KEYS, Condition(label, text), **options))


@pytest.mark.slow
def test_guidance_one_is_what_was_told_and_zero_is_nothing(stirred):
    plain, free = draw(stirred, LABEL, TEXTS), draw(stirred, *NOTHING)
    np.testing.assert_allclose(draw(stirred, LABEL, TEXTS, guidance=0.0), free, atol=1e-6)
    np.testing.assert_allclose(draw(stirred, LABEL, TEXTS, guidance=1.0 + 1e-6), plain, atol=1e-4)  # both questions
    np.testing.assert_allclose(draw(stirred, None, TEXTS, guidance=0.0), free, atol=1e-6)
    for others in (free, draw(stirred, LABEL, jnp.roll(TEXTS, 1, axis=0)), draw(stirred, (LABEL + 1) % 4, TEXTS)):
        assert np.abs(plain - others).max(axis=1).min() > 1e-3
    assert np.abs(draw(stirred, LABEL, TEXTS, guidance=2.0) - plain).max() > 1e-3


def test_a_text_alone_is_told_beside_no_class_and_a_class_alone_beside_no_text(stirred):
    np.testing.assert_allclose(draw(stirred, None, TEXTS), draw(stirred, NOTHING.label, TEXTS), atol=1e-6)
    np.testing.assert_allclose(draw(stirred, LABEL), draw(stirred, LABEL, NOTHING.text), atol=1e-5)
    model, params, extra = stirred
    np.testing.assert_array_equal(model.sample(params, extra, KEYS, LABEL), draw(stirred, LABEL))


@pytest.mark.slow
def test_an_interpolation_is_told_at_its_ends_what_the_inputs_are(stirred):
    model, params, extra = stirred
    x, told = jnp.asarray([[0.3, -0.2], [1.0, 0.5], [-0.5, 0.1]]), Condition(LABEL, TEXTS)
    ends = model.edits["invert"](params, extra, KEYS, x, told, steps=6)["x"]
    between = model.edits["interpolate"](params, extra, KEYS, x, told, steps=6, frames=5)["x"].reshape(2, 5, 2)
    np.testing.assert_allclose(between[:, 0], ends[:2], atol=1e-4)
    np.testing.assert_allclose(between[:, -1], ends[1:], atol=1e-4)
    other = model.edits["interpolate"](params, extra, KEYS, x, told._replace(text=TEXTS[::-1]), steps=6, frames=5)["x"]
    assert np.abs(other.reshape(2, 5, 2)[:, -1] - ends[1:]).max() > 1e-3


def test_a_likelihood_is_that_of_an_example_with_its_text(stirred):
    model, params, extra = stirred
    batch = {"x": jnp.ones((3, 2)), "label": LABEL, "text": TEXTS}
    bound = lambda **changes: model.likelihoods["vlb"](params, extra, batch | changes, KEYS, steps=3)  # noqa: E731
    assert np.abs(bound() - bound(text=NOTHING.text)).min() > 1e-3


def test_what_a_model_was_not_trained_with_is_refused(stirred):
    textless = build_model(**{"model.text": False})
    assert not textless.text and stirred[0].text
    assert textless.told == ("label",) and stirred[0].told == ("label", "text")
    with pytest.raises(UserError, match=r"model\.text=False: samples of a text"):
        textless.sample({}, {}, KEYS, Condition(text=TEXTS))
    unlabelled = build_model(**{"model.conditional": False})
    with pytest.raises(UserError, match=r"model\.conditional=False"):
        unlabelled.sample({}, {}, KEYS, LABEL)
    neither = build_model(**{"model.conditional": False, "model.text": False})
    assert unlabelled.told == ("text",) and neither.told == ()
    with pytest.raises(UserError, match=r"--guidance=2\.0 .*model\.conditional=True or model\.text=True"):
        neither.sample({}, {}, KEYS, guidance=2.0)
    with pytest.raises(UserError, match=r"model\.text=True needs captions, which data\.name='digits' has not"):
        build.build(config.load("configs/latent_ddpm.py:tiny", {"model.text": True}).to_dict())


# A run ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A captioned set in the place of emoji, 8x8, and two steps of a pixel diffusion that is told label and text."""
    place = tmp_path_factory.mktemp("text")
    source, generator = dataset.source("emoji"), np.random.default_rng(0)
    captions = np.array(["red heart", "blue heart", "red circle", "circle: blue"] * 8)

    def split(size):
        x = generator.integers(0, 256, (size, 8, 8, 3)).astype(np.uint8)
        label, factors = np.arange(size, dtype=np.int32) % 4, np.zeros((size, 2), np.int32)
        return Split(x, label, factors, captions[:size])

    pieces = zip(arrays.SPLITS, map(split, (32, 8, 8)), strict=True)
    arrays.write(place / "data" / "emoji" / source.version / dataset.ARRAYS, pieces)
    assert train(settings(place), place / "run") == 0
    return place


def settings(place, **changes):
    tiny = {"model.text": True, "data.name": "emoji", "data.dir": str(place / "data"), "train.steps": 2}
    return config.load("configs/latent_ddpm.py:tiny", tiny | {"parallel.devices": 1, **QUIET} | changes).to_dict()


@pytest.mark.slow
def test_a_prompt_is_read_with_the_runs_own_words(folder):
    run = latent.load(folder / "run")
    assert run.spec.vocabulary == ("blue", "circle", "heart", "red") and run.model.text
    assert run.examples("test", limit=2)["text"].tolist() == [[3, 2], [0, 2]]
    tokens = Condition(text=jnp.asarray([[3, 2]] * 2))
    heart = run.sample(2, prompt="Red heart")
    np.testing.assert_array_equal(heart, run.sample(2, condition=tokens))
    np.testing.assert_allclose(run.sample(2, prompt=["a red heart", "HEART, red!"]), heart, atol=1e-5)
    with pytest.raises(UserError, match=r"--prompt='yellow hart': none of its words is known.*hart \(nearest: heart\)"):
        run.sample(2, prompt="yellow hart")
    np.testing.assert_array_equal(
        run.sample(2, prompt=""), run.sample(2, condition=Condition(text=jnp.full((2, 1), -1)))
    )
    with pytest.raises(UserError, match="one for each of 3 samples"):
        run.sample(3, prompt=["red", "blue"])
    with pytest.raises(UserError, match=r"--classifier_scale=1.0 needs"):
        run.sample(2, prompt="red", classifier_scale=1.0)


def command(folder, *lines):
    given = ["sample", f"--workdir={folder}/run", "--num=2", "--steps=2"]
    return run_all([[*given, f"--out={folder}/{name}.npz", *words] for name, *words in lines])


@pytest.mark.slow
def test_the_command_takes_a_prompt_with_label_and_guidance(folder):
    guided, bad = command(
        folder,
        ("guided", "--prompt=red hart circle", "--label=1", "--guidance=2"),
        ("bad", "--prompt=yellow zebra"),
    )
    assert guided[0] == 0 and "left out, for no training caption holds it: hart (nearest: heart)." in guided[1], guided
    expected = latent.load(folder / "run").sample(2, 0, 1, "circle red", guidance=2.0, steps=2)
    np.testing.assert_allclose(np.load(folder / "guided.npz")["x"], expected, atol=1e-5)
    assert bad[0] == 2 and "--prompt='yellow zebra'" in bad[1] and "Traceback" not in bad[1]
    assert not (folder / "bad.npz").exists()


@pytest.mark.slow
def test_edits_take_a_prompt_or_the_text_of_their_inputs(folder):
    edit = ("--mode=img2img", "--input=test:1,2")
    found = command(folder, ("asked", "--prompt=circle blue", *edit), ("own", *edit))
    assert [code for code, _ in found] == [0, 0], found
    asked, own = (np.load(folder / f"{name}.npz")["x"] for name in ("asked", "own"))
    assert asked.shape == own.shape == (4, 8, 8, 3)
    run, inputs = latent.load(folder / "run"), latent.load(folder / "run").examples("test", limit=3)
    x, label, text = (np.concatenate([inputs[name][1:]] * 2) for name in ("x", "label", "text"))
    for images, condition, prompt in ((asked, None, "circle blue"), (own, Condition(label, text), None)):
        expected = run.edit("img2img", x, 0, condition, prompt, steps=2)["x"]
        np.testing.assert_allclose(images, expected, atol=1e-5)


@pytest.mark.slow
def test_the_rate_of_its_coin_is_read_where_there_is_text_only(folder):
    key = "hparams.denoiser.text_dropout"
    build.build(settings(folder), [key])
    with pytest.raises(UserError, match=rf"{key}: set on the command line, but nothing"):
        build.build(settings(folder, **{"model.text": False}), [key])
