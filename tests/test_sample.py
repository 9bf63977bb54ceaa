"""Options of experiments.sample that belong to a family: what they do, and exit 2 where they mean nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tests.harness import QUIET_FLAGS
from tests.test_commands import run_all

pytestmark = pytest.mark.slow  # three runs and thirty commands

QUIET = [*QUIET_FLAGS, "--config.train.steps=2"]
DDPM = ["--config=configs/latent_ddpm.py:tiny", *QUIET]
DDPM += ["--config.model.net.name=residual_mlp", "--config.model.net.self_conditioning=False"]
GAN = ["--config=configs/gan.py:tiny", "--config.model.conditional=True", "--config.train.steps=2"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    sample = lambda run, name, *words: ["sample", f"--workdir={folder}/{run}", f"--out={folder}/{name}.npz", *words]  # noqa: E731
    commands = [
        ["train", *GAN, f"--workdir={folder}/gan"],
        ["train", "--config=configs/vae.py:tiny", *QUIET, f"--workdir={folder}/vae"],
        sample("gan", "free"),
        sample("gan", "first", "--label=0"),
        sample("gan", "last", "--label=24"),
        sample("gan", "near", "--label=0", "--truncation=0.01"),
        sample("vae", "prior"),
        sample("vae", "fitted", "--density=mixture:2", f"--nearest={folder}/nearest.png"),
        ["evaluate", f"--workdir={folder}/gan", "--metrics=mode_coverage", "--truncation=0.01"],
        ["train", *DDPM, f"--config.model.first_stage={folder}/vae", f"--workdir={folder}/ddpm"],
        sample("ddpm", "guided", "--label=3", "--guidance=2", "--guidance_interval=0.2,5", "--guidance_rescale=0.7"),
        sample("gan", "bad", "--label=25"),
        sample("gan", "bad", "--label=-1"),
        sample("gan", "bad", "--truncation=0"),
        sample("ddpm", "bad", "--steps=2000"),
        sample("ddpm", "bad", "--sampler=heum"),
        sample("ddpm", "bad", "--grid=trailin"),
        sample("ddpm", "bad", "--label=10"),
        sample("ddpm", "bad", "--prompt=red heart"),
        sample("ddpm", "bad", "--guidance_interval=5,0.2"),
        sample("ddpm", "bad", "--guidance_interval=low,high"),
        sample("ddpm", "bad", "--autoguidance=2"),
        sample("ddpm", "bad", "--temperature=2"),
        sample("vae", "bad", "--truncation=1"),
        sample("vae", "bad", "--label=1"),
        sample("vae", "bad", "--density=kde"),
        sample("gan", "bad", "--density=gaussian"),
        sample("gan", "bad", f"--nearest={folder}/bad.png"),
        sample("ddpm", "bad", "--mode=invert", "--input=test:1", f"--nearest={folder}/bad.png"),
        ["train", GAN[0], "--config.model.ada.images=9", f"--workdir={folder}/bad"],
        [
            "train",
            "--config=configs/gan.py:tiny",
            "--config.hparams.critic.gradient_penalty=9",
            f"--workdir={folder}/bad",
        ],
        ["train", GAN[0], "--config.model.augment=diffaugment", f"--workdir={folder}/bad"],
    ]
    return folder, run_all(commands)


def test_labels_and_truncation_choose_what_is_drawn(results):
    folder, found = results
    assert [code for code, _ in found[:11]] == [0] * 11, found[:11]
    read = lambda name: np.load(folder / f"{name}.npz")["x"]  # noqa: E731
    assert read("free").shape == (64, 2)
    assert not np.allclose(read("first"), read("last"))
    assert read("guided").shape == (64, 8, 8, 1)
    assert np.ptp(read("near"), axis=0).max() < 0.1 * np.ptp(read("first"), axis=0).max()


def test_a_density_is_drawn_from_in_place_of_the_prior(results):
    folder, _ = results
    prior, fitted = (np.load(folder / f"{name}.npz")["x"] for name in ("prior", "fitted"))
    assert prior.shape == fitted.shape and not np.allclose(prior, fitted)


def test_samples_are_drawn_above_their_nearest_training_images(results):
    folder, found = results
    assert "of 64 samples are copies of a training image" in found[7][1]
    height, width, _ = np.asarray(Image.open(folder / "nearest.png")).shape
    assert width > 2 * height > 0


def test_how_samples_were_drawn_is_in_the_passport(results):
    folder, _ = results
    rows = json.loads((folder / "gan" / "evaluation" / "2.json").read_text())
    drawn = [row["protocol"].get("sampling") for row in rows if row["name"] == "modes"]
    assert {"truncation": 0.01} in drawn


def test_what_means_nothing_exits_2_and_says_why(results):
    folder, found = results
    expected = (
        ["--label=25", "[0, 25)"],
        ["--label=-1", "[0, 25)"],
        ["--truncation=0.0", "positive"],
        ["steps=2000", "1000"],
        ["--sampler='heum'", "'heun'"],
        ["--grid='trailin'", "'trailing'"],
        ["--label=10", "[0, 10)"],
        ["--prompt='red heart'", "'latent_ddpm'", "trained without text", "model.text=True"],
        ["--guidance_interval=5,0.2"],
        ["--guidance_interval=low,high"],
        ["--autoguidance=2.0", "model.weak"],
        ["--temperature", "'latent_ddpm'", "no such sampling option"],
        ["--truncation", "'vae'", "no such sampling option"],
        ["--label=1", "'vae'"],
        ["--density='kde'", "mixture:K"],
        ["cannot decode"],
        ["--nearest=", "no pictures"],
        ["--nearest=", "--mode=invert"],
        ["model.ada.images"],
        ["hparams.critic.gradient_penalty"],
        ["model.augment='diffaugment'", "mixture_2d"],
    )
    for (code, text), words in zip(found[11:], expected, strict=True):
        assert code == 2 and all(word in text for word in words) and "Traceback" not in text, text
    assert not (folder / "bad").exists() and not (folder / "bad.npz").exists()
