"""LPIPS against its definition written out in NumPy, on random weights; where they are installed, on the real ones."""

from __future__ import annotations

import hashlib
import pickle

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from latent import config, evaluation_data
from latent.data.arrays import Split
from latent.errors import UserError
from latent.extractors import lpips, vgg16, weight_files
from latent.metrics import lpips as metric
from latent.types import Latent, Model, State

GENERATOR = np.random.default_rng(0)
WIDTHS = {"alexnet": (64, 192, 384, 256, 256), "vgg16": (64, 64, 128, 128, *(256,) * 3, *(512,) * 6)}
TRUNKS = {"alexnet": "AlexNet_0", "vgg16": "VGG16_0"}
PADDING_STRIDE = {"alexnet": ((2, 4), (2, 1), (1, 1), (1, 1), (1, 1)), "vgg16": ((1, 1),) * 13}


def tree(network, widths=None):
    """Nested dicts of the file's layout, the numbers random."""
    widths, before, layers = widths or WIDTHS[network], 3, {}
    sides = (11, 5, 3, 3, 3) if network == "alexnet" else (3,) * 13
    for row, (side, width) in enumerate(zip(sides, widths, strict=True)):
        kernel = GENERATOR.normal(size=(side, side, before, width)) * np.sqrt(2 / (side**2 * before))
        layers[f"Conv_{row}"] = {"kernel": np.float32(kernel), "bias": np.float32(GENERATOR.normal(size=width) * 0.1)}
        before = width
    ends = range(5) if network == "alexnet" else (1, 3, 6, 9, 12)
    heads = {
        f"NetLinLayer_{row}": {"Conv_0": {"kernel": GENERATOR.random((1, 1, widths[end], 1)).astype(np.float32)}}
        for row, end in enumerate(ends)
    }
    return {TRUNKS[network]: layers} | heads


def convolve(x, kernel, stride, padding):
    side = kernel.shape[0]
    x = np.pad(x, [(padding, padding), (padding, padding), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(0, 1))[::stride, ::stride]
    return np.einsum("yxcij,ijco->yxo", windows, kernel, optimize=True)


def pool(x, side, stride):
    return np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(0, 1))[::stride, ::stride].max((3, 4))


def features_in_numpy(network, stored, x):
    """The maps LPIPS compares, of one image [H, W, 3] in [0, 1], layer by layer as the papers list them."""
    x = (2 * np.float64(x) - 1 - [-0.030, -0.088, -0.188]) / [0.458, 0.448, 0.450]
    taken = range(5) if network == "alexnet" else (1, 3, 6, 9, 12)
    pooled = {1: (3, 2), 2: (3, 2)} if network == "alexnet" else dict.fromkeys((2, 4, 7, 10), (2, 2))
    found = []
    for row, (padding, stride) in enumerate(PADDING_STRIDE[network]):
        layer = stored[TRUNKS[network]][f"Conv_{row}"]
        x = pool(x, *pooled[row]) if row in pooled else x
        x = np.maximum(convolve(x, layer["kernel"], stride, padding) + layer["bias"], 0)
        found += [x] if row in taken else []
    return found


def distance_in_numpy(network, stored, a, b):
    total = 0.0
    pairs = zip(*(features_in_numpy(network, stored, image) for image in (a, b)), strict=True)
    for row, (of_a, of_b) in enumerate(pairs):
        unit_a, unit_b = (v / (np.sqrt((v**2).sum(-1, keepdims=True)) + 1e-10) for v in (of_a, of_b))
        weights = stored[f"NetLinLayer_{row}"]["Conv_0"]["kernel"].reshape(-1)
        total += np.mean(((unit_a - unit_b) ** 2) @ weights)
    return total


NARROW = {"alexnet": (6, 7, 8, 9, 5), "vgg16": (4, 4, 5, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8)}


@pytest.mark.parametrize("network", ["alexnet", "vgg16"])
def test_equals_the_definition(network):
    stored = tree(network, NARROW[network])
    weights = lpips.parsed(network, stored)
    a, b = (GENERATOR.random((2, 64, 70, 3)).astype(np.float32) for _ in range(2))
    expected = [distance_in_numpy(network, stored, *pair) for pair in zip(a, b, strict=True)]
    np.testing.assert_allclose(lpips.distance(network, weights, a, b), expected, rtol=2e-5)
    np.testing.assert_allclose(lpips.distance(network, weights, b, a), expected, rtol=2e-5)
    np.testing.assert_allclose(lpips.distance(network, weights, a, a), 0.0, atol=1e-12)
    assert np.all(np.asarray(expected) > 1e-2)


def test_small_and_grey_images_are_made_large_and_rgb():
    x = GENERATOR.random((2, 8, 16, 1)).astype(np.float32)
    seen = np.asarray(lpips.prepared(jnp.asarray(x)))
    assert seen.shape == (2, 64, 128, 3)
    np.testing.assert_allclose(seen[..., 0] * 0.458 - 0.030, seen[..., 2] * 0.450 - 0.188, atol=1e-5)
    assert lpips.prepared(jnp.zeros((1, 80, 70, 3))).shape == (1, 80, 70, 3)


def test_layouts_are_checked():
    stored = tree("alexnet", NARROW["alexnet"])
    stored["AlexNet_0"]["Conv_3"]["kernel"] = np.zeros((3, 3, 4, 9), np.float32)
    with pytest.raises(UserError, match="alexnet have a convolution 3"):
        lpips.parsed("alexnet", stored)
    del stored["NetLinLayer_2"]
    with pytest.raises(UserError, match="alexnet lack 'NetLinLayer_2'"):
        lpips.parsed("alexnet", stored)


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Random weights of the true layout, as a file where the user's own lie."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    (tmp_path / "extractors").mkdir()
    for network in lpips.FILES:
        content = pickle.dumps(tree(network, NARROW[network]), protocol=3).replace(b"numpy._core", b"numpy.core")
        (tmp_path / "extractors" / f"{network}.ckpt").write_bytes(content)
        file = lpips.FILES[network]._replace(sha256=hashlib.sha256(content).hexdigest())
        monkeypatch.setitem(lpips.FILES, network, file)
    return tmp_path / "extractors"


OPTIONS = config.Section({"network": "alexnet", "limit": 0})


def autoencoder(images):
    """Evaluation of one that decodes half the intensity."""
    encode = lambda params, extra, x, keys: Latent(x, x, {})  # noqa: E731
    model = Model(lambda *_: ({}, {}), (), lambda *_: {}, None, encode, lambda params, extra, z: z / 2)
    prepare = lambda raw, streams, train: {**raw, "x": jnp.float32(raw["x"]) / 255}  # noqa: E731
    split = Split(images, np.zeros(len(images), np.int32))
    return evaluation_data.EvaluationData(model, split, prepare, {"data": "x", "split": "test"}, seed=0, batch_size=4)


STATE = State(jnp.int32(0), {}, {}, {}, {}, {}, jnp.int32(-1))


def test_the_metric_reads_the_users_file(written, monkeypatch):
    images = GENERATOR.integers(0, 256, (6, 20, 20, 1), np.uint8)
    data = autoencoder(images)
    (found,) = metric.run(data.model, STATE, data, OPTIONS)
    x = lpips.prepared(jnp.asarray(images / np.float32(255)))
    assert found.name == "reconstruction_lpips_alexnet" and x.shape[1:] == (64, 64, 3)
    weights, sha256 = lpips.read("alexnet", "x")
    pair = images / np.float32(255), images / np.float32(510)
    assert found.value == pytest.approx(float(np.mean(lpips.distance("alexnet", weights, *pair))), rel=1e-5)
    expected = {"network": "alexnet", "network_sha256": sha256, "shorter_side": 64, "N": 6}
    assert expected.items() <= found.protocol.items() and found.standard_error > 0
    monkeypatch.setattr(metric, "BATCH", 4)
    assert metric.run(data.model, STATE, data, OPTIONS)[0].value == pytest.approx(found.value, rel=1e-6)


def test_absent_and_other_files_are_told(written, monkeypatch):
    (written / "alexnet.ckpt").write_bytes(b"another")
    with pytest.raises(UserError, match=r"alexnet\.ckpt has SHA-256 .* damaged, or another file"):
        lpips.read("alexnet", "x")
    (written / "alexnet.ckpt").unlink()
    monkeypatch.setattr(weight_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"lpips.network='alexnet' needs alexnet.ckpt.*pip install -e .*perceptual"):
        metric.names(OPTIONS)
    with pytest.raises(UserError, match=r"lpips.network='alexnets'.*'alexnet'"):
        metric.names(config.Section({"network": "alexnets", "limit": 0}))


def test_a_pickle_that_wants_more_than_arrays_is_not_run():
    with pytest.raises(UserError, match=r"asks for (posix|os|builtins)\."):
        weight_files.arrays(pickle.dumps({"x": print}))


def test_vgg16_features_are_means_over_places(written, monkeypatch):
    monkeypatch.setattr(vgg16, "FILE", lpips.FILES["vgg16"])
    extractor = vgg16.load()
    x = GENERATOR.random((2, 28, 28, 1)).astype(np.float32)
    found = np.asarray(extractor.features(x)["features"])
    last = np.asarray(extractor.maps(x)[-1])
    assert last.shape == (2, 4, 4, 8) and len(extractor.maps(x)) == 5
    np.testing.assert_allclose(found, last.mean(axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize(("network", "expected"), [("alexnet", 0.90945), ("vgg16", 0.84794)])
def test_real_weights_give_the_published_numbers(network, expected):
    """Of two photographs, as the original implementation's port with these weights computes them."""
    if weight_files.find(lpips.FILES[network]) is None:
        pytest.skip(f"the weights of {network} are not here ({weight_files.INSTALL})")
    weights, _ = lpips.read(network, "test")
    assert all(np.all(head >= 0) for head in weights.heads)
    china, flower = (image[None, :256, :256] / np.float32(255) for image in load_sample_images().images)
    assert float(lpips.distance(network, weights, flower, china)[0]) == pytest.approx(expected, abs=2e-5)
