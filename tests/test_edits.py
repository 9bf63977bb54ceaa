"""experiments.sample --mode: what each edit writes, and exit 2 where it means nothing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.test_commands import run_all

DDPM = ["--config=configs/latent_ddpm.py:tiny", "--config.train.steps=2", "--config.eval.metrics=()"]
VECTORS = ["--config.model.net.name=residual_mlp", "--config.model.net.self_conditioning=False"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    mask = np.full((8, 8), 255, np.uint8)
    Image.fromarray(mask).save(folder / "all.png")
    mask[:, 4:] = 0
    Image.fromarray(mask).save(folder / "left.png")
    Image.fromarray(mask[:4]).save(folder / "small.png")

    def sample(run, name, mode, *words):
        words = [word.replace("FOLDER", str(folder)) for word in words]
        return ["sample", f"--workdir={folder}/{run}", f"--out={folder}/{name}", f"--mode={mode}", "--steps=4", *words]

    two = "--input=test:3,8"
    commands = [
        ["train", *DDPM, f"--workdir={folder}/pixels"],
        ["train", "--config=configs/vae.py:tiny", f"--workdir={folder}/vae"],
        ["train", *DDPM, *VECTORS, f"--config.model.first_stage={folder}/vae", f"--workdir={folder}/vectors"],
        sample("pixels", "invert.npz", "invert", two),
        sample("vectors", "vectors.npz", "invert", two),
        sample("pixels", "interpolate.npz", "interpolate", two, "--num=5", "--sampler=heun"),
        sample("pixels", "none.npz", "img2img", two, "--strength=0", "--num=1"),
        sample("pixels", "some.npz", "img2img", two, "--strength=0.5", "--num=3", "--sampler=dpmpp_2m"),
        sample("pixels", "kept.npz", "inpaint", two, "--mask=FOLDER/all.png", "--num=1"),
        sample("pixels", "left.npz", "inpaint", two, "--mask=FOLDER/left.png", "--num=2", "--resamplings=2"),
        sample("pixels", "left.png", "inpaint", "--input=FOLDER/all.png", "--mask=FOLDER/left.png", "--num=2"),
        sample("pixels", "bad.npz", "invertt", two),
        sample("vae", "bad.npz", "invert", two),
        sample("pixels", "bad.npz", "invert"),
        sample("pixels", "bad.npz", "generate", two),
        sample("pixels", "bad.npz", "invert", two, "--strength=0.5"),
        sample("pixels", "bad.npz", "invert", two, "--sampler=unipc"),
        sample("pixels", "bad.npz", "invert", "--input=test:3,1000000"),
        sample("pixels", "bad.npz", "invert", "--input=testing:3"),
        sample("pixels", "bad.npz", "invert", "--input=test"),
        sample("pixels", "bad.npz", "invert", "--input=FOLDER/small.png"),
        sample("pixels", "bad.npz", "invert", "--input=FOLDER/missing.png"),
        sample("pixels", "bad.npz", "img2img", two, "--strength=1.5"),
        sample("pixels", "bad.npz", "inpaint", two),
        sample("pixels", "bad.npz", "inpaint", two, "--mask=FOLDER/small.png"),
        sample("pixels", "bad.npz", "inpaint", two, "--mask=FOLDER/all.png", "--sampler=unipc"),
        sample("vectors", "bad.npz", "inpaint", two, "--mask=FOLDER/all.png"),
        sample("pixels", "bad.npz", "interpolate", "--input=test:3"),
    ]
    return folder, run_all(commands)


def test_every_mode_writes_what_it_says(results):
    folder, found = results
    assert [code for code, _ in found[:11]] == [0] * 11, found[:11]
    read = lambda name: np.load(folder / f"{name}.npz")  # noqa: E731
    inverted, given = read("invert"), read("invert")["input"]
    assert inverted["x"].shape == inverted["noise"].shape == given.shape == (2, 8, 8, 1)
    assert "mean squared error" in found[3][1]
    assert read("vectors")["noise"].ndim == 2
    between = read("interpolate")
    assert between["x"].shape == (5, 8, 8, 1)
    np.testing.assert_allclose(read("none")["x"], given, atol=1e-6)
    some = read("some")["x"].reshape(3, 2, 8, 8, 1)
    assert np.abs(some[0] - some[1]).max() > 0.01 and np.abs(some[0] - given).max() > 0.01
    np.testing.assert_array_equal(read("kept")["x"], given)
    left = read("left")["x"].reshape(2, 2, 8, 8, 1)
    np.testing.assert_array_equal(left[:, :, :, :4], np.stack([given, given])[:, :, :, :4])
    assert np.abs(left[0, :, :, 4:] - left[1, :, :, 4:]).max() > 0.01
    assert Image.open(folder / "left.png").size[1] > Image.open(folder / "left.png").size[0]


def test_what_means_nothing_exits_2_and_says_why(results):
    folder, found = results
    expected = (
        ["'invertt'", "'invert'"],
        ["'vae'", "Allowed: generate"],
        ["--mode=invert needs --input"],
        ["--input=test:3,8", "--mode=generate"],
        ["--strength=0.5", "--mode=invert"],
        ["--sampler='unipc'", "ddim"],
        ["--input=test:3,1000000", "examples"],
        ["split='testing'"],
        ["--input=test ", "SPLIT:INDEX"],
        ["--input=", "small.png", "(8, 8, 1)"],
        ["missing.png", "cannot be read"],
        ["--strength=1.5", "[0, 1]"],
        ["--mode=inpaint needs --mask"],
        ["--mask=", "small.png", "(8, 8, 1)"],
        ["--sampler='unipc'", "ddpm"],
        ["--mode=inpaint needs spatial latents"],
        ["--mode=interpolate needs two inputs"],
    )
    for (code, text), words in zip(found[11:], expected, strict=True):
        assert code == 2 and all(word in text for word in words) and "Traceback" not in text, text
    assert not (folder / "bad.npz").exists()
