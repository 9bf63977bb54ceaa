"""Information in codes and their gap to the prior: a linear-Gaussian encoder, whose values are known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent import config, evaluation_data, rng
from latent.data.arrays import Split
from latent.metrics import aggregate_posterior, effective_rank, kl_dimensions
from latent.types import Latent, Model, State

STATE = State(jnp.int32(0), {}, {}, {}, {}, {}, jnp.int32(-1))
GAIN, SCALE = jnp.array([1.5, 0.5, 0.0]), jnp.array([0.4, 0.8, 1.0])


def encoder(params, extra, x, keys):
    """q(z | x) = N(GAIN x, SCALE^2) of x ~ N(0, 1): q(z) = N(0, GAIN^2 + SCALE^2)."""
    mean, log_scale = x * GAIN, jnp.broadcast_to(jnp.log(SCALE), x.shape)
    kl = 0.5 * (mean**2 + SCALE**2 - 1) - log_scale
    return Latent(mean, mean + SCALE * rng.normal(keys, 3), {"log_scale": log_scale, "kl": kl})


def run(metric, count=3000, seed=0, **options):
    x = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    model = Model(lambda *_: ({}, {}), (), lambda *_: {}, encode=encoder)
    split = Split(x, np.zeros(count, np.int32))
    data = evaluation_data.EvaluationData(
        model, split, lambda *a: a[0], {"split": "test", "data": "toy"}, seed=seed, batch_size=512
    )
    return {result.name: result for result in metric.run(model, STATE, data, config.Section(options))}


def test_equals_the_closed_form():
    found = run(aggregate_posterior, limit=0)
    variance = GAIN**2 + SCALE**2
    information = float(np.sum(0.5 * np.log(variance / SCALE**2)))
    gap = float(np.sum(0.5 * (variance - 1 - np.log(variance))))
    for name, expected in (("mutual_information", information), ("aggregate_kl", gap)):
        assert abs(found[name].value - expected) < 4 * found[name].standard_error + 0.01, name
        assert found[name].standard_error < 0.05
    total = found["mutual_information"].value + found["aggregate_kl"].value
    kl = jax.jit(encoder)({}, {}, np.random.default_rng(0).normal(size=(3000, 3)).astype(np.float32),
                          rng.evaluation_stream(0, np.arange(3000))("posterior")).info["kl"]  # fmt: skip
    assert total == pytest.approx(float(kl.sum(axis=1).mean()), rel=1e-4)


@pytest.mark.slow
def test_standard_errors_are_the_spread_of_draws():
    draws = [run(aggregate_posterior, 300, seed, limit=0) for seed in range(40)]
    for name in ("mutual_information", "aggregate_kl"):
        spread = np.std([draw[name].value for draw in draws])
        assert np.mean([draw[name].standard_error for draw in draws]) == pytest.approx(spread, rel=0.3)


def test_examples_told_apart_reach_the_ceiling_and_chunks_change_nothing(monkeypatch):
    mean, log_scale = 100.0 * np.arange(30.0)[:, None], np.zeros((30, 1))
    whole = aggregate_posterior.information(mean, log_scale, mean)
    np.testing.assert_allclose(whole, np.log(30))
    np.testing.assert_allclose(aggregate_posterior.information(0 * mean, log_scale, 0 * mean), 0, atol=1e-12)
    monkeypatch.setattr(aggregate_posterior, "CHUNK", 7)
    np.testing.assert_allclose(aggregate_posterior.information(mean, log_scale, mean), whole)


def test_the_rate_falls_on_the_dimensions_that_carry_it():
    found = run(kl_dimensions, 2000, largest=4)
    kl = 0.5 * (GAIN**2 + SCALE**2 - 1 - np.log(SCALE**2))
    for place, expected in enumerate(sorted(kl, reverse=True)):
        row = found[f"kl_dimension_{place + 1}"]
        assert abs(row.value - expected) <= 5 * row.standard_error + 1e-5
    assert "3 dimensions" in found["kl_dimension_4"].reason
    assert 1.0 < found["kl_effective_dimensions"].value < 2.0
    assert kl_dimensions.effective_number(np.array([0.3, 0.3, 0.0])) == pytest.approx(2.0)


def test_effective_rank_counts_even_directions():
    codes = np.linalg.qr(np.random.default_rng(0).normal(size=(400, 5)))[0]
    assert effective_rank.effective_rank(codes - codes.mean(axis=0)) == pytest.approx(5.0, rel=0.01)
    found = run(effective_rank)["effective_rank"]
    assert 1.0 < found.value < 2.0 and 0 < found.standard_error < 0.1
