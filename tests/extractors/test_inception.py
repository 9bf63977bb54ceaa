"""Inception: its published layout, the converter on a file of it, and what a distance on it is called."""

from __future__ import annotations

import hashlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent import config
from latent.errors import UserError
from latent.extractors import catalogue, convolution, inception
from latent.metrics import class_score, frechet_distance, frechet_reconstruction, kid
from scripts import convert_inception
from tests.extractors import torch_files

OPTIONS = config.Section({"extractor": "inception", "num_samples": 10, "num_subsets": 0, "subset_size": 5})


def weights_file():
    """A state dict of the published layout, the numbers random."""
    generator, state = np.random.default_rng(0), {}
    normal = lambda *shape: generator.standard_normal(shape, np.float32)  # noqa: E731
    for name, (out, into, high, wide) in inception.layout().items():
        state[f"{name}.conv.weight"] = normal(out, into, high, wide) * np.float32(np.sqrt(2 / (into * high * wide)))
        state[f"{name}.bn.weight"], state[f"{name}.bn.bias"] = 1 + 0.1 * normal(out), 0.1 * normal(out)
        state[f"{name}.bn.running_mean"], state[f"{name}.bn.running_var"] = (
            0.1 * normal(out),
            1 + 0.1 * normal(out) ** 2,
        )
        state[f"{name}.bn.num_batches_tracked"] = np.array(0, np.int64)
    state["fc.weight"], state["fc.bias"] = 0.02 * normal(1008, 2048), normal(1008)
    return state


@pytest.fixture(scope="module")
def state():
    return weights_file()


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    return tmp_path


def convert(path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["convert_inception", str(path)])
    convert_inception.main()


def test_the_layout_is_the_published_network():
    """94 convolutions; with their normalisations 21,785,568 numbers, which Inception-v3 has before its classes."""
    layout = inception.layout()
    assert len(layout) == 94
    assert sum(int(np.prod(shape)) + 2 * shape[0] for shape in layout.values()) == 21_785_568
    assert layout["Mixed_7c.branch3x3dbl_3b"] == (384, 384, 3, 1) and layout["Mixed_6d.branch7x7_2"] == (160, 160, 1, 7)


def test_a_file_is_converted_and_its_hash_kept(state, directory, monkeypatch, capsys):
    torch_files.modules(monkeypatch)
    content = torch_files.stream(state)
    (directory / "weights.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"frechet_distance.extractor='inception' needs .*scripts.convert_inception"):
        frechet_distance.names(OPTIONS)
    convert(directory / "weights.pth", monkeypatch)
    sha256 = hashlib.sha256(content).hexdigest()
    said = capsys.readouterr().out
    assert sha256[:16] in said and "not the published file" in said
    extractor = catalogue.load("inception", (28, 28, 1))
    assert extractor.sha256 == sha256 and extractor.card["shape"] is None
    with np.load(inception.place()) as stored:
        name = "Mixed_5b.branch5x5_2"
        folded, offset = stored[f"{name}/kernel"], stored[f"{name}/bias"]
    x = np.random.default_rng(1).normal(size=(5, 5, 48))
    plain = np.einsum("ijc,ocij->o", x, state[f"{name}.conv.weight"])
    scale = state[f"{name}.bn.weight"] / np.sqrt(state[f"{name}.bn.running_var"] + 1e-3)
    expected = (plain - state[f"{name}.bn.running_mean"]) * scale + state[f"{name}.bn.bias"]
    np.testing.assert_allclose(np.einsum("ijc,ijco->o", x, folded) + offset, expected, rtol=1e-4, atol=1e-4)


def test_only_the_published_file_gives_a_score_its_name(directory, monkeypatch):
    metrics = (frechet_distance, frechet_reconstruction, kid, class_score)
    inception.write(inception.place(), {}, "f" * 64)
    own = ["fd_inception", "fd_inception_reconstruction", "kd_inception", "class_score_inception"]
    assert [metric.names(OPTIONS)[0] for metric in metrics] == own
    inception.write(inception.place(), {}, inception.PUBLISHED)
    published = ["fid", "fid_reconstruction", "kid", "inception_score"]
    assert [metric.names(OPTIONS)[0] for metric in metrics] == published
    lenets = config.Section({**OPTIONS, "extractor": "lenet_digits"})
    assert [metric.names(lenets)[0] for metric in metrics] == [
        name.replace("inception", "lenet_digits") for name in own
    ]


def test_a_score_of_classes_needs_classes():
    with pytest.raises(UserError, match=r"class_score\.extractor='pixels' knows no classes"):
        class_score.names(config.Section({**OPTIONS, "extractor": "pixels"}))


def test_wrong_files_are_told(state, directory, monkeypatch, capsys):
    layout = {"fc.weight": state["fc.weight"]}
    with pytest.raises(UserError, match=r"Conv2d_1a_3x3.bn.weight is missing, expected \(32,\)"):
        inception.converted(layout)
    transposed = state | {"Mixed_7c.branch3x3_2a.conv.weight": state["Mixed_7c.branch3x3_2b.conv.weight"]}
    with pytest.raises(UserError, match=r"Mixed_7c.branch3x3_2a.conv.weight has shape .* expected \(384, 384, 1, 3\)"):
        inception.converted(transposed)
    with pytest.raises(UserError, match=r"fc\.weight holds values that are not finite"):
        inception.converted(state | {"fc.weight": np.full((1008, 2048), np.nan, np.float32)})
    (directory / "other.pth").write_bytes(b"other")
    for path, reason in ((directory / "other.pth", "not a readable PyTorch file"), (directory / "no", "no such file")):
        with pytest.raises(SystemExit) as left:
            convert(path, monkeypatch)
        assert left.value.code == 2 and reason in capsys.readouterr().err
    assert not (directory / "extractors").exists()


def test_damage_is_told(directory):
    inception.write(inception.place(), {"classes/kernel": np.zeros(3, np.float32)}, "f" * 64)
    with np.load(inception.place()) as stored:
        arrays = dict(stored)
    np.savez(inception.place(), **arrays | {"classes/kernel": np.ones(3, np.float32)})
    with pytest.raises(UserError, match=r"extractor='inception': .* is damaged"):
        inception.load()


def test_images_are_resized_on_the_grid_of_the_graph():
    """Twice as many rows: every second one is a row of the image, those between are means, and the last one repeats."""
    x = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 6, 6, 1)) / np.float32(255))
    seen = np.asarray(inception.prepared(x, 12)) * 128 + 128
    pixels = np.round(np.asarray(x[..., 0]) * 255)
    assert seen.shape == (2, 12, 12, 3)
    np.testing.assert_allclose(seen[:, ::2, ::2, 0], pixels, atol=1e-3)
    np.testing.assert_allclose(seen[:, 1:-1:2, ::2, 2], (pixels[:, :-1] + pixels[:, 1:]) / 2, atol=1e-3)
    np.testing.assert_allclose(seen[:, -1], seen[:, -2], atol=1e-3)
    np.testing.assert_array_equal(inception.prepared(x + 0.4 / 255, 12), inception.prepared(x, 12))  # 8 bits


def test_what_pads_does_not_count():
    x = jnp.full((1, 4, 5, 2), -3.0)
    np.testing.assert_allclose(convolution.averaged(x, 3, 1), x)
    np.testing.assert_allclose(convolution.pooled(x, 3, 1, 1), x)


def test_thin_networks_have_the_shapes_of_the_real_one():
    """An eighth of the channels, images of 75 pixels: 1 x 1 places, as 299 gives 8 x 8."""
    weights, generator = {}, np.random.default_rng(0)
    for name, (out, into, high, wide) in inception.layout().items():
        shape = (high, wide, 3 if into == 3 else into // 8 or 1, out // 8)
        weights |= {f"{name}/kernel": generator.normal(size=shape), f"{name}/bias": np.zeros(out // 8)}
    weights = jax.tree.map(np.float32, weights)
    shape = lambda side: jax.eval_shape(inception.trunk, weights, jnp.zeros((2, side, side, 3))).shape  # noqa: E731
    assert shape(75) == (2, 1, 1, 256) and shape(299) == (2, 8, 8, 256)


@pytest.mark.slow
def test_features_do_not_depend_on_the_batch(state, directory, monkeypatch):
    inception.write(inception.place(), inception.converted(state), "f" * 64)
    extractor = inception.load()
    x = np.random.default_rng(0).random((3, 28, 28, 1)).astype(np.float32)
    together, alone = extractor.features(x), extractor.features(x[1:2])
    assert together["features"].shape == (3, 2048) and together["logits"].shape == (3, 1008)
    np.testing.assert_allclose(together["features"][1], alone["features"][0], rtol=1e-4, atol=1e-5)
