"""Configs: strictness, tracking of what is read, continuing a run."""

from __future__ import annotations

import json

import pytest

from latent import build, config
from latent.errors import UserError


def tiny(**overrides):
    return config.load("configs/vae.py:tiny", overrides).to_dict()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("configs/vea.py:tiny", ["configs/vea.py", "configs/vae.py"]),
        ("configs/vae.py:tinny", ["tinny", "Did you mean 'tiny'"]),
        ("nowhere/vae.py", ["nowhere/vae.py"]),
    ],
)
def test_unknown_files_and_variants_are_refused(path, words):
    with pytest.raises(UserError) as error:
        config.load(path)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"model.latent_dims": 3}, ["model.latent_dims", "Did you mean 'model.latent_dim'"]),
        ({"model.latent_dim": "three"}, ["model.latent_dim", "three"]),
        ({"model.latent_dim": 0}, ["model.latent_dim=0", "at least 1"]),
        ({"train.steps": 0}, ["train.steps=0"]),
        ({"train.batch_size": -1}, ["train.batch_size=-1"]),
        ({"train.batch_size": 100_000}, ["train.batch_size=100000", "training split"]),
        ({"train.microbatches": 3}, ["train.microbatches=3", "divide"]),
        ({"seed": -1}, ["seed=-1"]),
        ({"data.name": "digit"}, ["data.name='digit'", "Did you mean 'digits'"]),
        ({"model.name": "vea"}, ["model.name='vea'", "Did you mean 'vae'"]),
        ({"model.net.name": "mpl"}, ["model.net.name='mpl'", "Did you mean 'mlp'"]),
        ({"model.net.activation": "tahn"}, ["model.net.activation='tahn'", "'tanh'"]),
        ({"model.likelihood": "bernouli"}, ["model.likelihood", "'bernoulli'"]),
        ({"model.objective": "elbow"}, ["model.objective", "'elbo'"]),
        ({"model.rate": "free"}, ["model.rate", "'free_bits'"]),
        ({"optimizer.autoencoder.name": "adamm"}, ["optimizer.autoencoder.name", "'adam'"]),
        ({"eval.metrics": ("elbow",)}, ["metric='elbow'", "'elbo'"]),
        ({"eval.average": "0.9"}, ["eval.average='0.9'", "0.999"]),
        ({"eval.split": "valid"}, ["eval.split='valid'", "validation"]),
        ({"ema.decays": (1.0,)}, ["ema.decays"]),
        ({"model.net.name": "convnet", "model.net.channels": (4, 4, 4, 4)}, ["model.net.channels", "8x8", "16"]),
    ],
)
def test_impossible_values_are_refused_before_anything_runs(overrides, words):
    with pytest.raises(UserError) as error:
        build.build(tiny(**overrides), overrides)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert len(str(error.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("overrides", "ignored"),
    [
        ({"model.net.channels": (8,)}, "model.net.channels"),  # the net is an MLP
        ({"model.capacity_steps": 10}, "model.capacity_steps"),  # the rate is the KL
        ({"hparams.autoencoder.capacity": 10.0}, "hparams.autoencoder.capacity"),
        ({"hparams.autoencoder.free_bits": 0.5}, "hparams.autoencoder.free_bits"),
        ({"model.objective": "iwae", "hparams.autoencoder.beta": 4.0}, "hparams.autoencoder.beta"),
        ({"model.likelihood": "bernoulli", "model.observation_scale": 0.5}, "model.observation_scale"),
        ({"optimizer.autoencoder.schedule.boundaries": (1,)}, "optimizer.autoencoder.schedule.boundaries"),
    ],
)
def test_an_override_that_nothing_reads_is_refused(overrides, ignored):
    with pytest.raises(UserError) as error:
        build.build(tiny(**overrides), overrides)
    assert ignored in str(error.value) and "nothing in this run reads it" in str(error.value)


def test_overrides_that_are_read_pass():
    overrides = {
        "hparams.autoencoder.beta": 4.0,
        "hparams.autoencoder.learning_rate": 1e-4,
        "model.latent_dim": 3,
        "train.steps": 8,
        "eval.options.iwae.num_samples": 8,
        "log.every": 4,
        "seed": 3,
    }
    built = build.build(tiny(**overrides), overrides)
    assert built.hparams["autoencoder"]["beta"] == 4.0
    free = {"model.rate": "free_bits", "hparams.autoencoder.free_bits": 0.5}
    assert build.build(tiny(**free), free).hparams["autoencoder"]["free_bits"] == 0.5


def test_flatten_and_unflatten_are_inverse():
    nested = tiny()
    assert config.unflatten(config.flatten(nested)) == nested


def test_a_run_continues_with_more_steps_and_other_logging():
    saved = json.loads(json.dumps(build.resolved(tiny())))
    longer = config.continued(saved, tiny(**{"train.steps": 400, "log.every": 4, "eval.every": 4}))
    assert longer["train"]["steps"] == 400
    assert longer["optimizer"]["autoencoder"]["schedule"]["horizon"] == saved["train"]["steps"]


def test_another_experiment_is_refused_with_its_keys():
    saved = json.loads(json.dumps(build.resolved(tiny())))
    with pytest.raises(UserError) as error:
        config.continued(saved, tiny(**{"model.latent_dim": 3, "seed": 5}))
    assert "model.latent_dim: 2 -> 3" in str(error.value) and "seed: 0 -> 5" in str(error.value)
    with pytest.raises(UserError, match="may only grow"):
        config.continued(saved, tiny(**{"train.steps": 2}))


def test_a_config_survives_json(tmp_path):
    written = build.resolved(tiny())
    config.write(written, tmp_path)
    assert config.continued(config.read(tmp_path), written) == config.read(tmp_path)
    assert config.Section(config.read(tmp_path)).model.net.hidden == (8,)
