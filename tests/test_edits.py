"""experiments.sample --mode: what each edit writes, and exit 2 where it means nothing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.harness import QUIET_FLAGS
from tests.test_commands import run_all

pytestmark = pytest.mark.slow  # three runs; the mathematics of edits is in tests/diffusion/test_editing.py

QUIET = [*QUIET_FLAGS, "--config.train.steps=2"]
DDPM = ["--config=configs/latent_ddpm.py:tiny", *QUIET, "--config.model.net.self_conditioning=False"]
VECTORS = ["--config.model.net.name=residual_mlp"]


TWO = "--input=test:3,8"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    mask = np.full((8, 8), 255, np.uint8)
    Image.fromarray(mask).save(folder / "all.png")
    mask[:, 4:] = 0
    Image.fromarray(mask).save(folder / "left.png")
    Image.fromarray(mask[:4]).save(folder / "small.png")
    (folder / "corrupt.npz").write_bytes(b"PK\x03\x04" + bytes(40))
    (folder / "empty.npz").write_bytes(b"")
    np.savez(folder / "nan.npz", x=np.full((1, 8, 8, 1), np.nan))
    np.savez(folder / "two.npz", mask=np.ones((2, 8, 8, 1)))
    with (folder / "array.npz").open("wb") as file:
        np.save(file, mask)
    trained = [
        ["train", *DDPM, f"--workdir={folder}/pixels"],
        ["train", "--config=configs/vae.py:tiny", *QUIET, f"--workdir={folder}/vae"],
        ["train", *DDPM, *VECTORS, f"--config.model.first_stage={folder}/vae", f"--workdir={folder}/vectors"],
    ]
    found = run_all(trained)
    assert [code for code, _ in found] == [0] * 3, found
    return folder


def edited(folder, *lines):
    """What `experiments.sample` does with lines of (run, output, mode, further flags)."""
    commands = []
    for run, name, mode, *words in lines:
        words = [word.replace("FOLDER", str(folder)) for word in words]
        paths = [f"--workdir={folder}/{run}", f"--out={folder}/{name}", f"--mode={mode}"]
        commands.append(["sample", *paths, "--steps=4", *words])
    return run_all(commands)


def test_every_mode_writes_what_it_says(folder):
    found = edited(
        folder,
        ("pixels", "invert.npz", "invert", TWO),
        ("vectors", "vectors.npz", "invert", TWO),
        ("pixels", "interpolate.npz", "interpolate", TWO, "--num=5", "--sampler=heun"),
        ("pixels", "none.npz", "img2img", TWO, "--strength=0", "--num=1"),
        ("pixels", "some.npz", "img2img", TWO, "--strength=0.5", "--num=3", "--sampler=dpmpp_2m"),
        ("pixels", "kept.npz", "inpaint", TWO, "--mask=FOLDER/all.png", "--num=1"),
        ("pixels", "left.npz", "inpaint", TWO, "--mask=FOLDER/left.png", "--num=2", "--resamplings=2"),
        ("pixels", "left.png", "inpaint", "--input=FOLDER/all.png", "--mask=FOLDER/left.png", "--num=2"),
    )
    assert [code for code, _ in found] == [0] * 8, found
    read = lambda name: np.load(folder / f"{name}.npz")  # noqa: E731
    inverted, given = read("invert"), read("invert")["input"]
    assert inverted["x"].shape == inverted["noise"].shape == given.shape == (2, 8, 8, 1)
    assert "mean squared error" in found[0][1]
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


def test_latents_are_edited_too(folder):
    (code, text), *_ = edited(folder, ("vectors", "some.npz", "img2img", TWO, "--strength=0.5", "--num=3"))
    assert code == 0, text
    some = np.load(folder / "some.npz")
    assert some["x"].shape == (6, 8, 8, 1) and some["input"].shape == (2, 8, 8, 1)


def test_what_means_nothing_exits_2_and_says_why(folder):
    expected = (
        (("pixels", "invertt", TWO), ["'invertt'", "'invert'"]),
        (("pixels", "invertt"), ["'invertt'", "'invert'"]),
        (("vae", "invert", TWO), ["'vae'", "Allowed: generate"]),
        (("pixels", "invert"), ["--mode=invert needs --input"]),
        (("pixels", "generate", TWO), ["--input=test:3,8", "--mode=generate"]),
        (("pixels", "invert", TWO, "--strength=0.5"), ["--strength=0.5", "--mode=invert"]),
        (("pixels", "invert", TWO, "--sampler=unipc"), ["--sampler='unipc'", "ddim"]),
        (("pixels", "invert", "--input=test:3,1000000"), ["--input=test:3,1000000", "examples"]),
        (("pixels", "invert", "--input=testing:3"), ["split='testing'"]),
        (("pixels", "invert", "--input=test"), ["--input=test ", "SPLIT:INDEX"]),
        (("pixels", "invert", "--input=FOLDER/small.png"), ["--input=", "small.png", "(8, 8, 1)"]),
        (("pixels", "invert", "--input=FOLDER/missing.png"), ["missing.png", "cannot be read"]),
        (("pixels", "invert", "--input=FOLDER/corrupt.npz"), ["corrupt.npz", "cannot be read"]),
        (("pixels", "invert", "--input=FOLDER/empty.npz"), ["empty.npz", "cannot be read"]),
        (("pixels", "invert", "--input=FOLDER/array.npz"), ["array.npz", "cannot be read"]),
        (("pixels", "invert", "--input=FOLDER/nan.npz"), ["nan.npz", "not finite"]),
        (("pixels", "invert", "--input=test:\N{SUPERSCRIPT TWO}"), ["--input=test:", "SPLIT:INDEX"]),
        (("pixels", "inpaint", TWO, "--mask=FOLDER/two.npz"), ["two.npz", "2 masks"]),
        (("pixels", "img2img", "--input=FOLDER/all.png", "--guidance=9"), ["--guidance=9.0 has nothing to guide to"]),
        (("pixels", "img2img", TWO, "--guidance=nan"), ["--guidance=nan must be finite"]),
        (("pixels", "img2img", TWO, "--strength=1.5"), ["--strength=1.5", "[0, 1]"]),
        (("pixels", "inpaint", TWO), ["--mode=inpaint needs --mask"]),
        (("pixels", "inpaint", TWO, "--mask=FOLDER/small.png"), ["--mask=", "small.png", "(8, 8, 1)"]),
        (("pixels", "inpaint", TWO, "--mask=FOLDER/all.png", "--sampler=unipc"), ["--sampler='unipc'", "ddpm"]),
        (("vectors", "inpaint", TWO, "--mask=FOLDER/all.png"), ["--mode=inpaint needs spatial latents"]),
        (("pixels", "interpolate", "--input=test:3"), ["--mode=interpolate needs two inputs"]),
    )
    found = edited(folder, *((line[0], "bad.npz", *line[1:]) for line, _ in expected))
    for (code, text), (_, words) in zip(found, expected, strict=True):
        assert code == 2 and all(word in text for word in words) and "Traceback" not in text, text
    assert not (folder / "bad.npz").exists()
