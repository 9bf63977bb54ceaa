"""Options of experiments.sample that belong to a family: what they do, and exit 2 where they mean nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tests.test_commands import run_all

GAN = ["--config=configs/gan.py:tiny", "--config.model.conditional=True", "--config.train.steps=2"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    sample = lambda run, name, *words: ["sample", f"--workdir={folder}/{run}", f"--out={folder}/{name}.npz", *words]  # noqa: E731
    commands = [
        ["train", *GAN, f"--workdir={folder}/gan"],
        ["train", "--config=configs/vae.py:tiny", f"--workdir={folder}/vae"],
        sample("gan", "free"),
        sample("gan", "first", "--label=0"),
        sample("gan", "last", "--label=24"),
        sample("gan", "near", "--label=0", "--truncation=0.01"),
        sample("gan", "bad", "--label=25"),
        sample("gan", "bad", "--label=-1"),
        sample("gan", "bad", "--truncation=0"),
        sample("vae", "bad", "--truncation=1"),
        sample("vae", "bad", "--label=1"),
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
    assert [code for code, _ in found[:6]] == [0] * 6, found[:6]
    read = lambda name: np.load(folder / f"{name}.npz")["x"]  # noqa: E731
    assert read("free").shape == (64, 2)
    assert not np.allclose(read("first"), read("last"))
    assert np.ptp(read("near"), axis=0).max() < 0.1 * np.ptp(read("first"), axis=0).max()


def test_what_means_nothing_exits_2_and_says_why(results):
    folder, found = results
    expected = (
        ["--label=25", "[0, 25)"],
        ["--label=-1", "[0, 25)"],
        ["--truncation=0.0", "positive"],
        ["--truncation", "'vae'", "no such sampling option"],
        ["--label=1", "'vae'"],
        ["model.ada.images"],
        ["hparams.critic.gradient_penalty"],
        ["model.augment='diffaugment'", "mixture_2d"],
    )
    for (code, text), words in zip(found[6:], expected, strict=True):
        assert code == 2 and all(word in text for word in words) and "Traceback" not in text, text
    assert not (folder / "bad").exists() and not (folder / "bad.npz").exists()
