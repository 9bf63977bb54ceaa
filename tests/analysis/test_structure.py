"""Density, clusters, neighbours and spread: planted answers."""

from __future__ import annotations

import numpy as np
import pytest

from latent.analysis import clusters, density, neighbours, spread
from latent.errors import UserError

PLACES = np.linspace(-12.0, 12.0, 481)
STEP = PLACES[1] - PLACES[0]


def test_a_marginal_density_is_one_and_near_the_truth():
    codes = np.random.default_rng(0).normal([0.0, 2.0], [1.0, 0.5], size=(4000, 2))
    found = density.marginals(codes, PLACES)
    np.testing.assert_allclose(found.sum(axis=1) * STEP, 1.0, atol=1e-6)
    normal = np.exp(-0.5 * PLACES**2) / np.sqrt(2 * np.pi)
    assert np.abs(found[0] - normal).max() < 0.03
    assert PLACES[found[1].argmax()] == pytest.approx(2.0, abs=0.15)


def test_the_density_in_the_plane_has_the_marginals_of_its_axes():
    codes = np.random.default_rng(0).normal([-3.0, 4.0], [1.0, 0.5], size=(500, 2))
    found = density.plane(codes, PLACES)
    assert found.sum() * STEP**2 == pytest.approx(1.0, abs=1e-6)
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert PLACES[column] == pytest.approx(-3.0, abs=0.6) and PLACES[row] == pytest.approx(4.0, abs=0.6)


def groups(sizes=(50, 30, 20), dimensions=4):
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return 20 * np.eye(len(sizes), dimensions)[labels] + generator.normal(size=(len(labels), dimensions)), labels


def test_clusters_are_found_and_numbered_by_size():
    codes, labels = groups((50, 30, 20, 10))
    for seed in range(8):  # its own numbers are of every order
        found = clusters.k_means(codes[::-1], 4, seed)[::-1]
        np.testing.assert_array_equal(found, labels)


def test_class_distances_are_in_units_of_the_spread():
    codes, labels = groups(dimensions=3)
    found = clusters.class_distances(codes, labels)
    np.testing.assert_allclose(found, found.T)
    np.testing.assert_array_equal(np.diag(found), 0.0)
    # Centroids are 20 sqrt(2) apart, codes sqrt(3) from their own.
    np.testing.assert_allclose(found[np.triu_indices(3, 1)], 20 * np.sqrt(2 / 3), rtol=0.1)


def test_nearest_is_what_all_distances_say():
    generator = np.random.default_rng(0)
    pool = generator.normal(size=(60, 3, 2, 1)).astype(np.float32)
    queries = generator.normal(size=(7, 3, 2, 1)).astype(np.float32)
    found = neighbours.nearest(queries, pool, 4)
    distances = np.linalg.norm((queries[:, None] - pool[None]).reshape(7, 60, -1).astype(np.float64), axis=2)
    np.testing.assert_array_equal(found.index, np.argsort(distances, axis=1)[:, :4])
    np.testing.assert_allclose(found.distance, np.sort(distances, axis=1)[:, :4], rtol=1e-5)
    with pytest.raises(UserError, match="at least 10 examples"):
        neighbours.nearest(queries, pool[:3], 10)


def test_copies_are_told_from_samples_of_the_same_distribution():
    generator = np.random.default_rng(0)
    pool, fresh = generator.normal(size=(500, 20)), generator.normal(size=(30, 20))
    copied = pool[:10] + 0.01 * generator.normal(size=(10, 20))
    smooth = np.zeros((5, 20))  # near to everything, a copy of nothing
    found = neighbours.copies(neighbours.nearest(np.concatenate([fresh, copied, smooth]), pool, 50))
    assert found.tolist() == [False] * 30 + [True] * 10 + [False] * 5
    edge = neighbours.Neighbours(np.zeros((2, 3), int), np.array([[0.9, 3.0, 3.0], [1.1, 3.0, 3.0]]))
    assert neighbours.copies(edge).tolist() == [True, False]
    with pytest.raises(ValueError, match="two neighbours"):
        neighbours.copies(neighbours.nearest(fresh, pool, 1))


def test_spread_counts_what_moves_and_where_codes_lie():
    generator = np.random.default_rng(0)
    means = generator.normal(size=(3000, 3)) * [1.0, 0.5, 0.0]
    means[:, 1] += means[:, 0]
    samples = means + generator.normal(size=means.shape) * [0.1, 0.1, 1.0] + [0.0, 0.0, 2.0]
    found = spread.measure(means, samples, np.broadcast_to([0.2, 3.0, 0.0], means.shape))
    assert found.active.tolist() == [True, True, False] and found.order.tolist() == [1, 0, 2]
    np.testing.assert_allclose(found.variance_of_means, [1.0, 1.25, 0.0], atol=0.08)
    np.testing.assert_allclose(found.correlation[0, 1], 1 / np.sqrt(1.25), atol=0.02)
    np.testing.assert_allclose(np.diag(found.correlation), [1.0, 1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(found.centre, [0.0, 0.0, 2.0], atol=0.1)
    np.testing.assert_allclose(found.scale[2], 1.0, atol=0.05)
    assert spread.measure(means, samples).order.tolist() == [1, 0, 2]
