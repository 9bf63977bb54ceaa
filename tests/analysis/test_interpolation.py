"""Lines, great circles and the grid of the prior: closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from latent.analysis import interpolation, prior_grid

T = np.linspace(0.0, 1.0, 9)


def two(seed=0, dimensions=16):
    return np.random.default_rng(seed).normal(size=(2, dimensions))


@pytest.mark.parametrize("between", [interpolation.lerp, interpolation.slerp])
def test_both_ends_are_kept(between):
    start, end = two()
    path = between(start, end, T)
    np.testing.assert_allclose(path[0], start, atol=1e-12)
    np.testing.assert_allclose(path[-1], end, atol=1e-12)


def test_the_line_is_straight_and_even():
    start, end = two()
    steps = np.diff(interpolation.lerp(start, end, T), axis=0)
    np.testing.assert_allclose(steps, np.broadcast_to((end - start) / 8, steps.shape), atol=1e-12)


def test_the_great_circle_keeps_the_norm_and_turns_evenly():
    start, end = (z / np.linalg.norm(z) for z in two())
    path = interpolation.slerp(start, end, T)
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), 1.0, atol=1e-12)
    angles = np.arccos(np.sum(path[1:] * path[:-1], axis=1))
    np.testing.assert_allclose(angles, np.arccos(start @ end) / 8, atol=1e-9)
    np.testing.assert_allclose(interpolation.slerp(np.array([1.0, 0]), np.array([0, 1.0]), T[4:5])[0], [0.5**0.5] * 2)


@pytest.mark.parametrize("factor", [0.0, 1.0, 3.0])
def test_parallel_codes_are_joined_by_the_line(factor):
    start = two()[0]
    np.testing.assert_array_equal(
        interpolation.slerp(start, factor * start, T), interpolation.lerp(start, factor * start, T)
    )


def test_the_grid_is_the_inverse_of_the_normal_distribution():
    grid = prior_grid.normal_grid(7)
    mass = norm.cdf(grid)
    np.testing.assert_allclose(mass[..., 0], np.broadcast_to((np.arange(7) + 0.5) / 7, (7, 7)), atol=1e-12)
    np.testing.assert_allclose(mass[..., 1], mass[::-1, ::-1, 0].T, atol=1e-12)
    np.testing.assert_allclose(grid[3, 3], 0.0, atol=1e-12)
    assert grid[0, 0, 1] > 0 > grid[-1, 0, 1] and grid[0, 0, 0] < 0


@pytest.mark.parametrize("way", [interpolation.lerp, interpolation.slerp])
def test_path_lengths_of_a_linear_decoder_are_known(way):
    """The squared speed of the way itself, seen through the decoder: |A (end - start)|^2 on the line; on the circle
    through a unit square A = 3, the squared angle times 9."""
    starts, ends = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.0, 1.0], [-1.0, 0.0]])
    found = interpolation.path_lengths(lambda z: 3.0 * z, starts, ends, np.array([0.2, 0.7]), way)
    expected = 9 * 2.0 if way is interpolation.lerp else 9 * (np.pi / 2) ** 2
    np.testing.assert_allclose(found, expected, rtol=1e-5)
