"""Metrics and their passports on a model whose numbers are known."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent import config, evaluate, evaluation_data
from latent.data.arrays import Split
from latent.errors import UserError
from latent.extractors import weight_files
from latent.metrics import passport
from latent.types import Latent, Model, State

DIM = 4


def known_model():
    """q(z|x) = N(x, 1) on the first coordinates that matter; log w = -|x|^2 + noise of the key's own."""

    def log_weights(params, extra, batch, context, num_samples):
        return jnp.broadcast_to(-jnp.sum(batch["x"] ** 2, axis=1), (num_samples, batch["x"].shape[0]))

    def terms(params, extra, batch, context):
        value = -jnp.sum(batch["x"] ** 2, axis=1)
        return {"elbo": value, "kl": -value, "accuracy": jnp.float32(value > -4.0), "cross_entropy": -value}

    def encode(params, extra, x, keys):
        mean = x * jnp.array([1.0, 1.0, 0.05, 0.0])
        return Latent(mean, mean, {"log_scale": jnp.full_like(mean, -1.0)})

    def decode(params, extra, z):
        return z

    def sample(params, extra, keys, condition):
        return jax.vmap(lambda key: jax.random.normal(key, (DIM,)))(keys)

    return Model(lambda *_: ({}, {}), (), terms, sample, encode, decode, log_weights)


def data(batch_size=7, size=50, model=None, seed=0):
    x = np.random.default_rng(0).normal(size=(size, DIM)).astype(np.float32)
    protocol = {"split": "test", "data": "digits"}
    prepare = lambda batch, streams, train: batch  # noqa: E731
    factors = np.stack([x[:, 0] > 0, (x[:, 1] > 0) * 2 + (x[:, 2] > 0)], axis=1).astype(np.int32)
    split = Split(x, factors[:, 1], factors)
    model = model or known_model()
    seen = split._replace(x=np.random.default_rng(1).normal(size=(size, DIM)).astype(np.float32))
    training = evaluation_data.EvaluationData(
        model, seen, prepare, protocol | {"split": "train"}, seed=seed, batch_size=batch_size
    )
    return evaluation_data.EvaluationData(
        model, split, prepare, protocol, seed=seed, batch_size=batch_size, training=training
    ), x


STATE = State(jnp.int32(3), {}, {}, {}, {}, {}, jnp.int32(-1))
OPTIONS = {
    name: values
    for path in sorted(Path(__file__).parents[1].glob("configs/*.py"))
    if path.stem != "base"
    for name, values in config.load(f"{path}:tiny").eval.options.to_dict().items()
} | {"iwae": {"num_samples": 6, "chunk": 2, "limit": 0}}


def run(*names, **options):
    chosen, x = data(**options)
    return {result.name: result for result in evaluate.run(names, STATE, chosen, OPTIONS)}, x


def test_means_and_standard_errors():
    results, x = run("elbo", "iwae", "reconstruction")
    values = -np.sum(x.astype(np.float64) ** 2, axis=1)
    for name in ("elbo", "iwae_6"):
        assert results[name].value == pytest.approx(values.mean(), rel=1e-6)
        assert results[name].standard_error == pytest.approx(values.std(ddof=1) / np.sqrt(50), rel=1e-6)
        assert results[name].protocol["N"] == 50
    error = np.mean((x - x * [1, 1, 0.05, 0]) ** 2)
    assert results["reconstruction_mse"].value == pytest.approx(error, rel=1e-5)


def test_active_units_count_dimensions_that_move():
    results, _ = run("active_units")
    assert results["active_units"].value == 2.0  # variances 1, 1, 0.0025, 0
    assert results["active_units"].standard_error == 0.0


@pytest.mark.parametrize("name", ["elbo", "iwae", "active_units", "reconstruction"])
def test_batch_size_changes_nothing(name):
    one, _ = run(name, batch_size=7)
    two, _ = run(name, batch_size=50)
    for key in one:
        assert one[key].value == pytest.approx(two[key].value, rel=1e-6)
        assert one[key].protocol == two[key].protocol


def test_noise_belongs_to_the_example():
    """Draws come from (seed, stream, index): not from the batch, and chunks of samples are independent."""

    def draw(model, params, extra, batch, context):
        return jax.vmap(lambda key: jax.random.normal(key, ()))(context.keys("posterior"))

    one, two, other = data(7)[0].map(draw, STATE), data(50)[0].map(draw, STATE), data(7, seed=1)[0].map(draw, STATE)
    np.testing.assert_array_equal(one, two)
    assert len(np.unique(one)) == 50 and not np.intersect1d(one, other).size


def test_limit_and_repeat():
    def echo(model, params, extra, batch, context, number):
        return batch["index"] + 100 * number

    found = data(7)[0].map(echo, STATE, repeat=[np.int32(0), np.int32(1)], limit=10)
    np.testing.assert_array_equal(found, np.arange(10) + 100 * np.arange(2)[:, None])


def test_of_a_large_split_only_so_much_stays_on_the_device(monkeypatch):
    """However many stretches of it are walked; the numbers are the same."""
    whole, x = data(7)
    monkeypatch.setattr(evaluation_data, "KEPT_BYTES", 25 * x[0].nbytes)
    echo = lambda model, params, extra, batch, context: batch["x"]  # noqa: E731
    for start in range(0, 50, 10):
        np.testing.assert_allclose(whole.map(echo, STATE, rows=np.arange(start, start + 10)), x[start : start + 10])
    assert sum(length for _, length in whole._laid) == 20


def test_what_a_family_cannot_do_is_a_row_with_its_reason():
    model = known_model()._replace(encode=None, log_weights=None)
    results = {
        result.name: result for result in evaluate.run(("iwae", "active_units"), STATE, data(model=model)[0], OPTIONS)
    }
    assert results["iwae_6"].value is None and "log_weights" in results["iwae_6"].reason
    no_elbo = known_model()._replace(terms=lambda *_: {"accuracy": jnp.zeros(1)})
    rows = evaluate.run(("elbo",), STATE, data(model=no_elbo)[0], {})
    assert [row.name for row in rows] == ["elbo", "kl"]
    assert all(row.value is None and "terms.elbo" in row.reason for row in rows)
    assert "not defined" in evaluate.table(list(results.values()))


def test_samples_depend_on_seed_and_number_only():
    few, many = data(7)[0].samples(STATE, 5), data(50)[0].samples(STATE, 20)
    assert few.shape == (5, DIM) and many.shape == (20, DIM)
    np.testing.assert_array_equal(few, many[:5])
    assert not np.array_equal(few, data(7, seed=1)[0].samples(STATE, 5))


def test_samples_are_drawn_once_for_all_metrics_of_an_evaluation():
    calls = []

    @jax.jit
    def sample(params, extra, keys, condition):
        calls.append(len(keys))  # when it is traced, once for every shape
        return jax.vmap(lambda key: jax.random.normal(key, (DIM,)))(keys)

    chosen, _ = data(16, model=known_model()._replace(sample=sample))
    first = chosen.samples(STATE, 40)
    assert chosen.samples(STATE, 16) is not first and np.shares_memory(chosen.samples(STATE, 16), first)
    other = STATE._replace(step=jnp.int32(4))
    assert not np.shares_memory(chosen.samples(other, 16), first)
    evaluate.run(("class_coverage",), other, chosen, OPTIONS)
    assert chosen._drawn is None and calls == [16]  # nothing pins an old state between evaluations


def test_what_follows_from_the_split_is_computed_once():
    chosen, _ = data()
    assert chosen.once("key", lambda: [1]) is chosen.once("key", lambda: [2])


def test_what_the_data_lack_is_a_row_with_its_reason():
    unlabelled, _ = data()
    unlabelled.split = unlabelled.split._replace(label=np.full(50, -1, np.int32), factors=None)
    unlabelled.training = None
    for name, reason in (("probes", "no classes"), ("mig", "no known factors"), ("memorisation", "no training split")):
        rows = evaluate.run((name,), STATE, unlabelled, OPTIONS)
        assert rows and all(row.value is None and reason in row.reason for row in rows)


def test_results_are_added_and_replaced_by_protocol(tmp_path):
    result = passport.mean("elbo", np.arange(4.0), "nats", {"split": "test"})
    evaluate.record(tmp_path, 5, [result], {"seed": 0})
    evaluate.record(tmp_path, 5, [passport.mean("elbo", np.arange(4.0) + 1, "nats", {"split": "test"})], {"seed": 0})
    path = evaluate.record(tmp_path, 5, [result._replace(protocol={"split": "validation", "N": 4})], {"seed": 0})
    rows = json.loads(path.read_text())
    assert [(row["value"], row["protocol"]["split"]) for row in rows] == [(2.5, "test"), (1.5, "validation")]


@pytest.mark.parametrize("name", config.names("latent.metrics"))
def test_every_metric_keeps_the_protocol(name, monkeypatch):
    """Picked up by itself: a metric states its needs, and its results carry value, error, unit and passport."""
    monkeypatch.setattr(weight_files, "require", lambda file, key: None)  # no weights are needed to find no images
    module = importlib.import_module(f"latent.metrics.{name}")
    if not hasattr(module, "run"):
        return
    assert {need.partition(".")[0] for need in module.needs} <= {*Model._fields, *evaluation_data.WITHOUT}
    chosen, _ = data()
    results = evaluate.run((name,), STATE, chosen, OPTIONS)
    assert [result.name for result in results] == evaluate.result_names((name,), OPTIONS)
    for result in results:
        if result.value is None:
            assert result.reason
            continue
        assert np.isfinite(result.value) and np.isfinite(result.standard_error) and result.unit
        assert {"split", "data", "N"} <= result.protocol.keys()


def test_a_metric_of_other_families_is_a_row_even_without_options():
    """A config has options for the metrics of its own family only."""
    without, _ = data(model=known_model()._replace(log_weights=None))
    rows = evaluate.run(("iwae", "elbo"), STATE, without, {})
    assert rows[0].name == "iwae" and rows[0].reason == "this family has no log_weights"
    assert rows[1].value is not None


def test_missing_options_say_how_to_give_them():
    with pytest.raises(UserError, match=r"iwae: this run's config has no options for it; give them by --options=iwae"):
        evaluate.result_names(("iwae",), {})
    with pytest.raises(UserError, match=r"eval\.options\.iwae\.chunk.* is not known"):
        evaluate.result_names(("iwae",), {"iwae": {"num_samples": 5, "chnk": 5, "limit": 0}})


def test_a_mean_over_examples_that_have_no_number_is_not_defined():
    found = passport.mean("elbo", np.array([1.0, np.nan, 3.0]), "nats", {})
    assert found.value is None and "NaN for 1 of 3 examples, the first is number 1" in found.reason
    assert passport.mean("elbo", np.array([1.0, -np.inf]), "nats", {}).value == -np.inf


def test_samples_that_are_not_finite_give_rows_with_the_reason_and_stop_nothing():
    """A run whose samples overflow at one evaluation must not end for it."""
    nan = lambda params, extra, keys, condition: jnp.full((len(keys), DIM), jnp.nan)  # noqa: E731
    broken, _ = data(model=known_model()._replace(sample=nan))
    options = {"kid": {"extractor": "pixels", "num_samples": 40, "num_subsets": 0, "subset_size": 10}}
    (row,) = evaluate.run(["kid"], STATE, broken, options)
    assert row.value is None and "not finite for 40 of 40" in row.reason


def test_rows_are_gone_through_in_their_order_with_the_noise_of_their_places():
    """The subset of a map: the same examples and the same noise as in the whole split."""
    split, x = data()
    rows = np.array([41, 3, 3, 0, 49, 7, 8, 9, 12])
    found = split.map(_noisy, STATE, rows=rows)
    np.testing.assert_array_equal(found["x"], x[rows])
    np.testing.assert_array_equal(found["noise"], split.map(_noisy, STATE)["noise"][rows])
    np.testing.assert_array_equal(split.map(_noisy, STATE, rows=rows, limit=2)["x"], x[rows[:2]])


def _noisy(model, params, extra, batch, context):
    return {"x": batch["x"], "noise": jax.vmap(jax.random.normal)(context.keys("noise"))}
