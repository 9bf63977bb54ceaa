"""Intervals and tests against closed forms and by their coverage."""

from __future__ import annotations

import numpy as np
import pytest

from latent.tables import statistics


def test_students_interval_of_known_numbers():
    """1, 2, 3, 4: mean 2.5, s = sqrt(5/3), t(3, 97.5%) = 3.182446."""
    low, high = statistics.student_interval(np.array([1.0, 2.0, 3.0, 4.0]))
    half = 3.1824463 * np.sqrt(5 / 3) / 2
    np.testing.assert_allclose([low, high], [2.5 - half, 2.5 + half], rtol=1e-6)


def test_students_interval_covers_at_its_level():
    values = np.random.default_rng(0).normal(3.0, 2.0, (2000, 4))
    inside = [low <= 3.0 <= high for low, high in map(statistics.student_interval, values)]
    assert abs(np.mean(inside) - 0.95) < 0.015  # three standard errors of the share


def test_the_bootstrap_agrees_with_theory_for_many_values():
    values = np.random.default_rng(1).normal(0.0, 1.0, 400)
    low, high = statistics.bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    np.testing.assert_allclose([low, high], [values.mean() - half, values.mean() + half], atol=0.01)
    assert statistics.bootstrap_interval(values) == (low, high)


def test_one_number_has_no_interval():
    assert statistics.summarise([4.0]) == statistics.Summary(4.0, 1, None, None)
    assert statistics.compare({0: 1.0, 1: 5.0}, {1: 2.0, 2: 7.0}) == statistics.Comparison(3.0, 1, None, None)
    assert statistics.compare({0: 1.0}, {1: 2.0}) is None


def test_pairs_are_by_seed():
    """Seeds that shift both alike leave a small difference significant; matched otherwise it drowns."""
    base = {seed: 10.0 * seed for seed in range(5)}
    better = {seed: 10.0 * seed + 1 + 0.01 * (seed % 2) for seed in reversed(range(5))}
    found = statistics.compare(better, base)
    assert found.n == 5 and found.p < 1e-6 and found.student.low > 0
    np.testing.assert_allclose(found.difference, 1.004)


def test_the_paired_test_of_known_numbers():
    """Differences 1, 2, 3: t = 2 / (1 / sqrt 3) = 3.4641, p(2 degrees) = 0.0741799."""
    found = statistics.compare({0: 1.0, 1: 2.0, 2: 3.0}, {0: 0.0, 1: 0.0, 2: 0.0})
    assert found.p == pytest.approx(0.0741799, rel=1e-5)


def test_differences_without_spread_have_no_test():
    assert statistics.compare({0: 1.0, 1: 2.0}, {0: 0.0, 1: 1.0}) == statistics.Comparison(1.0, 2, None, None)


def test_holm_by_hand():
    """0.01 x 4, 0.02 x 3, 0.03 x 2 = 0.06 and 0.04 x 1 raised to 0.06; None does not count."""
    assert statistics.holm([0.04, 0.01, None, 0.03, 0.02]) == pytest.approx([0.06, 0.04, None, 0.06, 0.06])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0] and statistics.holm([]) == []


def test_holm_keeps_the_family_wise_error():
    p = np.random.default_rng(2).uniform(size=(4000, 5))
    wrong = np.mean([min(statistics.holm(list(row))) < 0.05 for row in p])
    assert abs(wrong - 0.05) < 0.011
