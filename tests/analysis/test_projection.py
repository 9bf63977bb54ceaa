"""Projections: exact where there is nothing to lose, seeded, scored."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from latent.analysis import projection
from latent.errors import UserError


def clusters(dimensions, size=90):
    generator = np.random.default_rng(0)
    labels = np.arange(size) % 3
    centres = 10 * np.eye(3, dimensions)
    return (centres[labels] + generator.normal(size=(size, dimensions))).astype(np.float32), labels


def test_a_plane_in_space_is_kept_by_principal_components():
    generator = np.random.default_rng(0)
    plane = generator.normal(size=(60, 2)) @ np.linalg.qr(generator.normal(size=(7, 2)))[0].T
    found = projection.project(plane.astype(np.float32), "pca")
    distances = lambda p: np.linalg.norm(p[:, None] - p[None], axis=-1)  # noqa: E731
    np.testing.assert_allclose(distances(found.points), distances(plane), atol=1e-4)
    assert found.trustworthiness == pytest.approx(1.0)


def test_two_dimensions_are_shown_as_they_are():
    codes, _ = clusters(2)
    found = projection.project(codes)
    assert found.method == "codes" and np.array_equal(found.points, codes)


def test_tsne_is_seeded_and_keeps_clusters_apart():
    codes, labels = clusters(5)
    one, two = projection.project(codes, "tsne", 1), projection.project(codes, "tsne", 1)
    np.testing.assert_array_equal(one.points, two.points)
    distances = np.linalg.norm(one.points[:, None] - one.points[None], axis=-1) + 1e9 * np.eye(len(codes))
    assert np.mean(labels[distances.argmin(axis=1)] == labels) > 0.95
    assert one.trustworthiness > 0.8


def test_unknown_methods_are_refused():
    with pytest.raises(UserError, match=r"projection='tsn'.*'tsne'"):
        projection.project(clusters(3)[0], "tsn")


def test_the_map_is_a_picture(tmp_path):
    codes, labels = clusters(5)
    projection.draw(projection.project(codes, "pca"), labels, tmp_path / "map.png", "codes")
    pixels = np.asarray(Image.open(tmp_path / "map.png").convert("RGB"))
    assert min(pixels.shape[:2]) > 500 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_overlap_counts_shared_neighbours():
    line = np.arange(40, dtype=np.float64)[:, None] * [1.0, 0.0]
    assert projection.overlap(line, 3 * line[:, ::-1] + 1, 4) == 1.0  # the same map, turned, scaled, moved
    shuffled = line[np.random.default_rng(0).permutation(40)]
    assert projection.overlap(line, shuffled, 4) < 0.4
    assert projection.stability([line, line, shuffled], 4) == pytest.approx(
        (1 + 2 * projection.overlap(line, shuffled, 4)) / 3
    )


@pytest.mark.slow  # importing it compiles for half a minute
@pytest.mark.skipif(not projection.available("umap"), reason="umap-learn is not installed (the extra `maps`)")
def test_umap_is_seeded_and_keeps_clusters_apart():
    codes, labels = clusters(5, 60)
    one, two = projection.project(codes, "umap", 1), projection.project(codes, "umap", 1)
    np.testing.assert_array_equal(one.points, two.points)
    distances = np.linalg.norm(one.points[:, None] - one.points[None], axis=-1) + 1e9 * np.eye(len(codes))
    assert np.mean(labels[distances.argmin(axis=1)] == labels) > 0.95


def test_umap_names_its_install_command_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UserError, match=r"umap-learn: pip install -e '\.\[maps\]'"):
        projection.project(clusters(5)[0], "umap")
