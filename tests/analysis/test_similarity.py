"""Alignment of representations: reference values, invariances, and no bias where none is promised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latent.analysis import projection, similarity
from latent.errors import UserError

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "probing.npz")
X, Y = REFERENCE["cka_X"], REFERENCE["cka_Y"]


def test_equals_the_reference():
    assert similarity.debiased_cka(X, Y) == pytest.approx(float(REFERENCE["cka_linear_debiased"]), rel=1e-9)


def test_rotation_scale_and_shift_change_nothing_and_independence_shows():
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(7, 7)))[0]
    measure = similarity.debiased_cka
    assert measure(X, 3.0 * X @ rotation + 5.0) == pytest.approx(1.0)
    assert measure(X, Y) == pytest.approx(measure(Y, X))
    wide = [np.random.default_rng(seed).normal(size=(40, 200)) for seed in range(8)]
    pairs = list(zip(wide[::2], wide[1::2], strict=True))
    assert abs(np.mean([measure(*pair) for pair in pairs])) < 0.05


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(UserError, match="60 and 59"):
        similarity.debiased_cka(X, Y[:59])
    with pytest.raises(UserError, match="the same for every example"):
        similarity.debiased_cka(X, np.ones((60, 2)))
    with pytest.raises(UserError, match="at least 4"):
        similarity.debiased_cka(X[:3], Y[:3])


@pytest.mark.parametrize("k", [5, 12])
def test_continuity_equals_the_reference(k):
    found = projection.continuity(REFERENCE["tc_X"], REFERENCE["tc_emb"], k)
    assert found == pytest.approx(float(REFERENCE[f"continuity_k{k}"]), rel=1e-9)


def test_a_fold_costs_trust_and_a_tear_costs_continuity():
    """A line folded in the middle puts strangers together; one cut and laid side by side, every second point on either
    strand, takes neighbours apart."""
    line = np.linspace(-1, 1, 60)[:, None].astype(np.float32)
    strand = 10.0 * (np.arange(60) % 2)[:, None]
    maps = {"line": line, "fold": np.abs(line), "tear": line + strand}
    from sklearn.manifold import trustworthiness

    trust = {name: trustworthiness(line, points, n_neighbors=6) for name, points in maps.items()}
    kept = {name: projection.continuity(line, points, 6) for name, points in maps.items()}
    assert trust["line"] == pytest.approx(1.0) and kept["line"] == pytest.approx(1.0)
    assert trust["fold"] < 0.8 < 0.95 < kept["fold"]
    assert kept["tear"] < 0.8 < 0.9 < trust["tear"]
