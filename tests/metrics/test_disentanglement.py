"""Disentanglement metrics: closed forms on codes that are perfect, duplicated or pure noise, and reference values."""

from __future__ import annotations

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent import config, evaluate, evaluation_data
from latent.data.arrays import Split
from latent.errors import UserError
from latent.metrics import betavae_score, dci, factorvae_score, mig, mig_sampled, modularity, sap
from latent.metrics.factor_codes import FactorCodes, SharedFactor
from latent.metrics.histograms import discretised, entropy, mutual_information, mutual_informations, top_gap
from latent.types import DataSpec, Latent, Model, State

REFERENCE = "tests/reference/disentanglement.npz"
CODES = ("perfect", "rotated", "noisy", "dead", "overcomplete", "duplicated", "constcol", "random")
SIZES = (3, 4, 5)
STATE = State(jnp.int32(3), {}, {}, {}, {}, {}, jnp.int32(-1))


@pytest.fixture(scope="module")
def reference(request):
    return np.load(request.config.rootpath / REFERENCE)


def draw_of(reference, name, split="train"):
    factors = reference[f"factors_{split}"].astype(np.int32)
    return FactorCodes(reference[f"{name}__codes_{split}"].astype(np.float64), factors)


def grid(copies=10):
    """Every combination of the factors, several times, in random order."""
    every = np.tile(np.indices(SIZES, np.int32).reshape(len(SIZES), -1).T, (copies, 1))
    return np.random.default_rng(0).permutation(every)


# Reference values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CODES)
def test_information_and_what_is_made_of_it(reference, name):
    draw = draw_of(reference, name)
    bins = reference[f"{name}__codes_discretized"].T.astype(np.int64)
    shared = mutual_informations(bins, draw.factors)
    np.testing.assert_allclose(shared, reference[f"{name}__mutual_info"], atol=1e-10)
    entropies = [entropy(factor) for factor in draw.factors.T]
    assert np.mean(top_gap(shared) / entropies) == pytest.approx(float(reference[f"{name}__mig"]), abs=1e-10)
    assert modularity.modularity(shared) == pytest.approx(float(reference[f"{name}__modularity"]), abs=1e-10)
    # From codes: a float32 bin edge may move a few points.
    assert np.mean(discretised(draw.codes) != bins) < 2e-3
    assert mig.mutual_information_gap(draw) == pytest.approx(float(reference[f"{name}__mig"]), abs=5e-3)


def test_modularity_of_a_code_that_tells_nothing(reference):
    found = modularity.modularity(reference["modularity_deadrow__mi"])
    assert found == pytest.approx(float(reference["modularity_deadrow__score"]), abs=1e-10)


@pytest.mark.parametrize("name", [name for name in CODES if name != "constcol"])
def test_explicitness(reference, name):
    found = modularity.explicitness(draw_of(reference, name), draw_of(reference, name, "test"))
    expected = reference[f"{name}__explicitness_per_factor_train_test"][:, 1]
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize("name", ["identity", "uniform", "zero", "random", "deadrow"])
def test_importances_become_scores(reference, name):
    importance = reference[f"dcimat_{name}__importance"]
    expected = reference[f"dcimat_{name}__dis_comp"]
    np.testing.assert_allclose(
        [dci.disentanglement(importance), dci.completeness(importance)], expected, rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("name", CODES)
def test_stored_importances(reference, name):
    importance = reference[f"{name}__dci_importance"]
    found = [dci.disentanglement(importance), dci.completeness(importance)]
    np.testing.assert_allclose(found, reference[f"{name}__dci_scores"][:2], rtol=0, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", CODES)
def test_trees(reference, name):
    importance, accuracy = dci.importances(draw_of(reference, name), draw_of(reference, name, "test"))
    found = [dci.disentanglement(importance), dci.completeness(importance), accuracy]
    np.testing.assert_allclose(found, reference[f"{name}__dci_scores"][[0, 1, 3]], atol=0.05)


@pytest.mark.parametrize("name", CODES)
def test_separated_attributes(reference, name):
    train, test = draw_of(reference, name), draw_of(reference, name, "test")
    correlations = sap.squared_correlations(train)
    np.testing.assert_allclose(correlations, reference[f"{name}__sap_matrix_cont"], rtol=0, atol=1e-10)
    assert np.mean(top_gap(correlations)) == pytest.approx(float(reference[f"{name}__sap_cont"]), abs=1e-10)
    accuracies = sap.accuracies(train, test)
    np.testing.assert_allclose(accuracies, reference[f"{name}__sap_matrix_disc"], atol=0.02)
    assert np.mean(top_gap(accuracies)) == pytest.approx(float(reference[f"{name}__sap_disc"]), abs=0.02)


@pytest.mark.parametrize("case", [
    "perfect_thr0.0", "noisy_thr0.0", "rotated_thr0.0", "dead_thr0.0", "dead_thr0.05", "constcol_thr0.05"
])  # fmt: skip
def test_votes(reference, case):
    part = {key: reference[f"factorvae_{case}__{key}"] for key in (
        "batches", "factor_index", "argmin_in_active", "global_var", "active", "votes_train", "votes_eval",
        "acc_train_eval",
    )}  # fmt: skip
    name, threshold = case.split("_thr")
    codes = draw_of(reference, name).codes
    np.testing.assert_array_equal(factorvae_score.active_codes(codes, float(threshold)), part["active"])
    found = factorvae_score.least_varying(part["batches"].astype(np.float64), part["global_var"], part["active"])
    np.testing.assert_array_equal(found, part["argmin_in_active"])
    first, second = reference["split_sizes"][:2]
    fixed, active = part["factor_index"].astype(np.int64), int(part["active"].sum())
    train = factorvae_score.votes(found[:first], fixed[:first], active, 4)
    test = factorvae_score.votes(found[first : first + second], fixed[first : first + second], active, 4)
    # The reference counts pruned codes too, as rows that stay empty.
    np.testing.assert_array_equal(train, part["votes_train"].T[:active])
    assert not part["votes_train"].T[active:].any()
    assert factorvae_score.accuracy(train, test) == pytest.approx(part["acc_train_eval"][1], abs=1e-10)


@pytest.mark.parametrize("name", ["perfect", "noisy", "dead", "rotated", "constcol"])
def test_pairs_of_groups(reference, name):
    part = {key: reference[f"betavae_{name}__{key}"] for key in (
        "features", "labels", "acc_train_eval_converged", "coef", "pair_example_1", "pair_example_2", "feature_example"
    )}  # fmt: skip
    example = betavae_score.features(part["pair_example_1"].astype(float), part["pair_example_2"].astype(float))
    np.testing.assert_allclose(example, part["feature_example"], atol=1e-6)
    first = reference["split_sizes"][2]
    x, label = part["features"].astype(np.float64), part["labels"].astype(np.int64)
    fitted = betavae_score.classifier(x[:first], label[:first])
    np.testing.assert_allclose(fitted.coef_, part["coef"], atol=1e-4)
    accuracy = np.mean(fitted.predict(x[first:]) == label[first:])
    assert accuracy == pytest.approx(part["acc_train_eval_converged"][1], abs=0.03)


# Closed forms -----------------------------------------------------------------------------------------------------


def test_information_of_a_known_joint():
    """p(0,0) = 1/2, p(0,1) = p(1,1) = 1/4."""
    first, second = np.array([0, 0, 0, 1] * 3), np.array([0, 0, 1, 1] * 3)
    expected = 0.5 * np.log(0.5 / (0.75 * 0.5)) + 0.25 * np.log(0.25 / (0.75 * 0.5)) + 0.25 * np.log(0.25 / 0.125)
    assert mutual_information(first, second) == pytest.approx(expected, abs=1e-12)
    assert entropy(second) == pytest.approx(np.log(2), abs=1e-12)


def test_a_perfect_code_and_its_duplicate():
    """One code a factor has gap 1, modularity 1; every code twice has gap 0 and the same modularity."""
    factors = grid()
    perfect = FactorCodes(factors * np.array([1.0, -2.0, 0.1]), factors)
    assert mig.mutual_information_gap(perfect) == pytest.approx(1.0, abs=1e-12)
    shared = mutual_informations(discretised(perfect.codes), factors)
    assert modularity.modularity(shared) == pytest.approx(1.0, abs=1e-12)
    twice = FactorCodes(np.tile(perfect.codes, 2), factors)
    assert mig.mutual_information_gap(twice) == pytest.approx(0.0, abs=1e-12)
    importance, accuracy = dci.importances(*perfect.halves(300))
    assert accuracy == 1.0
    assert dci.disentanglement(importance) > 0.98 and dci.completeness(importance) > 0.98


def test_half_of_a_factor():
    """A code that tells whether a factor of four values is above the middle: half of its entropy; the others all."""
    factors = grid()
    codes = np.stack([factors[:, 0], factors[:, 1] // 2, factors[:, 2]], axis=1).astype(np.float64)
    assert mig.mutual_information_gap(FactorCodes(codes, factors)) == pytest.approx((1 + 0.5 + 1) / 3, abs=1e-12)


def test_sampled_gap_of_gaussian_posteriors():
    """Posteriors far apart by factor: gap 1. Far wider than their means are spread: 0."""
    factors = grid(copies=2)
    generator = np.random.default_rng(1)
    noise = generator.normal(size=(len(factors), 3)).astype(np.float32)
    groups = jnp.asarray(factors[:40, None] == factors)
    for mean, scale, expected in ((100.0 * factors, 0.1, 1.0), (0.01 * factors, 1.0, 0.0)):
        mean = mean.astype(np.float32)
        log_scale = jnp.full(mean.shape, np.log(scale), jnp.float32)
        ratios = mig_sampled.log_ratios(jnp.asarray((mean + scale * noise)[:40]), jnp.asarray(mean), log_scale, groups)
        assert mig_sampled.gap(np.asarray(ratios, np.float64), np.array(SIZES, float)) == pytest.approx(
            expected, abs=2e-3
        )


def test_sampled_information_of_a_binary_channel():
    """z ~ N(+-1, 1) by the sign of a factor: the information of this channel by quadrature."""
    factors = np.repeat(np.array([[0], [1]], np.int32), 50, axis=0)
    mean = jnp.asarray(2.0 * factors - 1.0, jnp.float32)
    samples = jax.random.normal(jax.random.key(0), (4000, 1)) + jnp.tile(mean, (40, 1))
    groups = jnp.asarray(np.tile(factors, (40, 1))[:, None] == factors)
    ratios = np.asarray(mig_sampled.log_ratios(samples, mean, jnp.zeros_like(mean), groups), np.float64)
    z = np.linspace(-9, 9, 20_001)
    density = lambda centre: np.exp(-0.5 * (z - centre) ** 2) / np.sqrt(2 * np.pi)  # noqa: E731
    given, marginal = density(1.0), 0.5 * (density(1.0) + density(-1.0))
    expected = np.trapezoid(given * np.log(given / marginal), z)
    error = ratios.std() / np.sqrt(len(ratios))
    assert ratios.mean() == pytest.approx(expected, abs=4 * error)


def test_partners_share_the_factor_and_nothing_else():
    factors = grid()
    shared, generator = SharedFactor(factors), np.random.default_rng(0)
    rows = np.arange(100)
    for factor in range(3):
        found = factors[shared.partners(factor, rows, 50, generator)]
        assert (found[..., factor] == factors[rows, factor][:, None]).all()
        for other in set(range(3)) - {factor}:
            share = np.bincount(found[..., other].ravel(), minlength=SIZES[other]) / found[..., other].size
            np.testing.assert_allclose(share, 1 / SIZES[other], atol=5 * np.sqrt(0.25 / found[..., other].size))


# Through evaluation ---------------------------------------------------------------------------------------------

OPTIONS = {
    "mig": {"num_points": 600, "repeats": 3},
    "mig_sampled": {"num_points": 0, "num_samples": 200},
    "dci": {"num_train": 100, "num_test": 50, "repeats": 2},
    "sap": {"num_train": 400, "num_test": 200, "repeats": 3},
    "modularity": {"num_train": 400, "num_test": 200, "repeats": 3},
    "factorvae_score": {"num_points": 600, "batch": 16, "num_train": 200, "num_test": 200, "repeats": 3},
    "betavae_score": {"num_points": 600, "batch": 16, "num_train": 200, "num_test": 200, "repeats": 3},
}


def evaluated(encode, names, options=OPTIONS, factors=True):
    """Results of metrics on a set whose x are its factors, each of its own scale, and noise."""
    known = grid(copies=30)
    x = np.concatenate([known, np.random.default_rng(2).normal(size=(len(known), 3))], axis=1).astype(np.float32)
    split = Split(x, np.zeros(len(x), np.int32), known if factors else None)
    model = Model(lambda *_: ({}, {}), (), lambda *_: {}, encode=encode)
    data = evaluation_data.EvaluationData(
        model, split, lambda raw, streams, train: raw, {"split": "test", "data": "toy"}, seed=0, batch_size=256
    )
    return {result.name: result for result in evaluate.run(names, STATE, data, options)}


def code(columns, scale):
    def encode(params, extra, x, keys):
        mean = 3.0 * x[:, jnp.array(columns)]
        sample = mean + scale * jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(keys)
        return Latent(mean, sample, {"log_scale": jnp.full_like(mean, np.log(scale))})

    return encode


def test_a_perfect_encoder_is_perfect_and_a_blind_one_is_not():
    names = ("mig", "mig_sampled", "factorvae_score", "betavae_score", "modularity", "sap")
    perfect = evaluated(code((2, 0, 1), 0.1), names)
    for name in ("mig", "mig_sampled", "factorvae_score", "betavae_score", "modularity", "explicitness"):
        lowest = 0.9 if name == "explicitness" else 0.98
        assert lowest < perfect[name].value <= 1.0 + 1e-6, name
    blind = evaluated(code((3, 4, 5), 0.5), names)
    assert blind["mig"].value < 0.03 and blind["mig_sampled"].value < 0.03 and blind["sap"].value < 0.1
    for name in ("factorvae_score", "betavae_score"):
        assert abs(blind[name].value - 1 / 3) < 0.15, name
    assert abs(blind["explicitness"].value - 0.5) < 0.1


def test_a_collapsed_code_has_no_score():
    results = evaluated(lambda p, e, x, k: Latent(jnp.zeros((len(x), 2)), jnp.zeros((len(x), 2)), {}), tuple(OPTIONS))
    for name in ("mig", "sap", "modularity", "factorvae_score"):
        assert results[name].value == 0.0, name
    assert results["explicitness"].value == 0.5
    assert results["mig_sampled"].value is None and "log_scale" in results["mig_sampled"].reason


def test_what_is_not_defined_says_why():
    names = tuple(OPTIONS)
    for result in evaluated(code((0, 1, 2), 0.1), names, factors=False).values():
        assert result.value is None and "no known factors" in result.reason
    small = {name: {**options, "num_points": 10**6, "num_train": 10**6} for name, options in OPTIONS.items()}
    for name, result in evaluated(code((0, 1, 2), 0.1), names, small).items():
        assert name == "mig_sampled" or (result.value is None and "1800 examples" in result.reason)


def test_a_set_without_factors_is_refused_by_name():
    spec = DataSpec("digits", (8, 8, 1), 10, 100, np.zeros((8, 8, 1)), "unit")
    with pytest.raises(UserError, match=r"eval\.metrics: mig needs known factors.*'digits'.*dsprites_rendered"):
        evaluate.require_factors(("elbo", "mig"), "eval.metrics", spec)
    evaluate.require_factors(("elbo", "mig"), "eval.metrics", spec._replace(factors={"shape": 3}))
    evaluate.require_factors(("elbo", "code_dependence"), "eval.metrics", spec)


@pytest.mark.parametrize("name, key", [("mig", "num_points"), ("dci", "num_train"), ("betavae_score", "repeats")])
def test_options_are_checked(name, key):
    for wrong in (0, 2.5, True):
        with pytest.raises(UserError, match=rf"{name}\.{key}={wrong}"):
            evaluate.result_names((name,), {name: {**OPTIONS[name], key: wrong}})


def test_every_metric_has_options_in_the_config():
    from configs import vae

    found = config.load("configs/vae.py:tiny").eval.options
    modules = [importlib.import_module(f"latent.metrics.{name}") for name in config.names("latent.metrics")]
    names = {
        module.__name__.rpartition(".")[2]
        for module in modules
        if evaluation_data.FACTORS in getattr(module, "needs", ())
    }
    assert names and names <= set(vae.FACTOR_METRICS)
    assert set(vae.FACTOR_METRICS) <= set(found)
