"""The score of class probabilities: its bounds, its closed forms and reference values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from latent.metrics import class_score

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "feature_metrics.npz")


def test_equals_the_reference():
    found = class_score.of_probabilities(softmax(REFERENCE["is_logits"].astype(np.float64), axis=1))
    assert found == pytest.approx(float(REFERENCE["is_mean_std_splits1_noshuffle"][0]), rel=1e-8)


def test_certain_and_even_predictions_score_the_number_of_classes():
    certain = np.eye(10)[np.arange(50) % 10]
    assert class_score.of_probabilities(certain) == pytest.approx(10.0)
    assert class_score.of_probabilities(np.full((50, 10), 0.1)) == pytest.approx(1.0)
    assert class_score.of_probabilities(np.eye(10)[np.zeros(50, int)]) == pytest.approx(1.0)


def test_two_kinds_of_predictions_have_the_closed_form():
    """Half the rows (p, 1-p), half (1-p, p): exp(log 2 - H(p))."""
    p = 0.8
    rows = np.array([[p, 1 - p], [1 - p, p]] * 20)
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
    assert class_score.of_probabilities(rows) == pytest.approx(2 * np.exp(-entropy))
