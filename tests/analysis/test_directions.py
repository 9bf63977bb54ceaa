"""Directions and walks along them: planted answers and what must not move."""

from __future__ import annotations

import numpy as np
import pytest

from latent.analysis import attributes, directions, traversal
from latent.errors import UserError


def planted(dimensions=5, size=400, seed=0):
    """Codes whose label is the sign of their coordinate along a known direction, and that direction."""
    generator = np.random.default_rng(seed)
    vector = generator.normal(size=dimensions)
    vector /= np.linalg.norm(vector)
    codes = generator.normal(size=(size, dimensions))
    return codes.astype(np.float32), (codes @ vector > 0).astype(np.int32), vector


@pytest.mark.parametrize("method", directions.METHODS)
def test_an_attribute_direction_recovers_the_planted_one(method):
    codes, labels, vector = planted(size=4000)
    away, towards = directions.attributes(codes, labels, method)
    assert (away.name, towards.name) == ("0", "1")
    assert towards.vector @ vector > 0.99 and away.vector @ vector < -0.99
    assert np.linalg.norm(towards.vector) == pytest.approx(1.0)


def test_logistic_directions_are_at_the_boundary_where_means_are_not():
    """Correlated codes: the difference of means leans with the correlation, the boundary's normal does not."""
    codes, _, _ = planted(2, 4000)
    codes = codes @ np.array([[1.0, 3.0], [0.0, 1.0]], np.float32)
    labels = (codes[:, 0] > 0).astype(np.int32)
    by_mean, by_boundary = (directions.attributes(codes, labels, method)[1].vector for method in ("mean", "logistic"))
    assert by_boundary[0] > 0.99 > 0.5 > by_mean[0]


def test_logistic_directions_are_in_the_units_of_the_codes():
    codes, labels, vector = planted(size=4000)
    scales = np.array([1.0, 5.0, 0.2, 1.0, 3.0], np.float32)
    expected = vector / scales  # the same boundary, seen in stretched coordinates
    found = directions.attributes(codes * scales, labels)[1].vector
    assert found @ expected / np.linalg.norm(expected) > 0.99


def test_labels_without_two_sides_have_no_direction():
    codes, _, _ = planted(size=10)
    assert directions.attributes(codes, np.zeros(10, np.int32)) == []
    assert [found.name for found in directions.attributes(codes, np.arange(10) // 9)] == ["0"]
    with pytest.raises(UserError, match=r"method='means'.*'mean'"):
        directions.attributes(codes, np.zeros(10, np.int32), "means")


def test_principal_components_are_the_eigenvectors_of_the_covariance():
    codes = planted(4, 300)[0] @ np.diag([3.0, 1.0, 2.0, 0.5]).astype(np.float32)
    found = directions.principal(codes, 3)
    values, vectors = np.linalg.eigh(np.cov(codes, rowvar=False, bias=True))
    for place, component in enumerate(found):
        assert abs(component.vector @ vectors[:, -1 - place]) == pytest.approx(1.0, abs=1e-5)
        assert component.scale**2 == pytest.approx(values[-1 - place], rel=1e-4)
        assert component.vector[np.abs(component.vector).argmax()] > 0


def test_axes_are_measured_on_the_codes():
    codes = planted(3)[0] * np.float32(2.0) + np.float32(1.0)
    (only,) = directions.axes(codes, [2])
    assert only.name == "z2" and only.vector.tolist() == [0.0, 0.0, 1.0]
    assert only.centre == pytest.approx(codes[:, 2].mean(), rel=1e-5)
    assert only.scale == pytest.approx(codes[:, 2].std(), rel=1e-5)


def test_a_walk_moves_one_coordinate_and_nothing_at_right_angles_to_it():
    codes, labels, _ = planted()
    along, origin = directions.attributes(codes, labels)[0], codes[7]
    path = traversal.walk(origin, along, np.array([-2.0, 0.0, 1.5]))
    np.testing.assert_allclose(path @ along.vector, along.centre + along.scale * np.array([-2.0, 0.0, 1.5]), atol=1e-5)
    across = lambda z: z - (z @ along.vector)[..., None] * along.vector  # noqa: E731
    np.testing.assert_allclose(across(path), np.broadcast_to(across(origin), path.shape), atol=1e-5)


def test_a_walk_along_an_axis_replaces_that_coordinate():
    along = directions.Direction("z1", np.array([0.0, 1.0, 0.0]), 0.5, 2.0)
    path = traversal.walk(np.array([7.0, 8.0, 9.0]), along, np.array([-1.0, 1.0]))
    np.testing.assert_allclose(path, [[7.0, -1.5, 9.0], [7.0, 2.5, 9.0]])


def test_an_exchange_of_classes_moves_codes_by_the_difference_of_means():
    codes, labels, _ = planted()
    means = attributes.class_means(codes, labels)
    found = attributes.exchanged(codes[:6], labels[:6], means)
    assert found.shape == (6, 2, 5)
    for row in range(6):
        own, other = labels[row], 1 - labels[row]
        np.testing.assert_allclose(found[row, own], codes[row], atol=1e-6)
        np.testing.assert_allclose(found[row, other] - codes[row], means[other] - means[own], atol=1e-6)
    assert list(means) == [0, 1]
    np.testing.assert_allclose(means[1], codes[labels == 1].mean(axis=0), atol=1e-6)


def test_the_effect_of_a_direction_is_what_the_decoder_makes_of_it():
    """Of a linear decoder it is the length of its column, whatever the origin."""
    matrix = np.array([[3.0, 0.0, 0.0], [0.0, 0.5, 0.0]])
    every = [directions.Direction(f"z{axis}", np.eye(3)[axis], 0.0, 1.0 + axis) for axis in range(3)]
    origins = np.random.default_rng(0).normal(size=(4, 3))
    found = traversal.effects(lambda z: z @ matrix.T, origins, every, reach=1.5)
    np.testing.assert_allclose(found, [3 * 3.0 / 2**0.5, 3 * 0.5 * 2.0 / 2**0.5, 0.0], rtol=1e-5)
