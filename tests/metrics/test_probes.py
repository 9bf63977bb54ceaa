"""Probes, clusters and neighbours against reference values, and on codes whose classes are known."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from latent import config, evaluation_data
from latent.analysis import neighbours
from latent.data import dataset
from latent.data.arrays import Split
from latent.errors import UserError
from latent.metrics import clustering, effective_rank, memorisation, probes
from latent.types import Latent, Model, State

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "probing.npz")
STATE = State(jnp.int32(0), {}, {}, {}, {}, {}, jnp.int32(-1))


def run(metric, draw, sample=None, sizes=(300, 200), **options):
    """The metric on data that `draw(generator, size)` gives (x and label); the code of x is x."""

    def encode(params, extra, x, keys):
        return Latent(x, x, {"responsibilities": jnp.eye(3)[jnp.argmax(x[:, :3], axis=1)]})

    model = Model(lambda *_: ({}, {}), (), lambda *_: {}, sample, encode=encode)
    found, training = [], None
    for name, size in zip(("train", "test"), sizes, strict=True):
        split = Split(*draw(np.random.default_rng(len(found)), size))
        protocol = {"split": name, "data": "toy", "data_sha256": name}
        training = evaluation_data.EvaluationData(
            model, split, lambda *a: a[0], protocol, seed=0, batch_size=64, training=training
        )
        found.append(training)
    results = metric.run(model, STATE, found[1], config.Section(options))
    assert [result.name for result in results] == list(metric.names(config.Section(options)))
    return {result.name: result for result in results}


def three_classes(generator, size, apart=8.0):
    labels = np.arange(size) % 3
    return np.float32(apart * np.eye(3, 4)[labels] + generator.normal(size=(size, 4))), labels.astype(np.int32)


def test_votes_equal_the_reference():
    found = neighbours.classified(REFERENCE["probe_V"], REFERENCE["probe_X"], REFERENCE["probe_y"], counts=(1, 5, 20))
    for k, guess in found.items():
        np.testing.assert_array_equal(guess, REFERENCE[f"knn_k{k}__pred"])


def test_neighbours_are_exact_and_ties_go_to_the_smallest_label():
    x = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0], [0.0, 0.0]])
    indices, distances = neighbours.nearest(x[:1], x[1:3], 2)
    np.testing.assert_array_equal(distances, [[1.0, 5.0]])
    np.testing.assert_array_equal(indices, [[1, 0]])
    np.testing.assert_allclose(neighbours.nearest_others(x), [0.0, np.sqrt(18), 1.0, 0.0])
    np.testing.assert_array_equal(neighbours.vote(np.array([[2, 1], [1, 2], [0, 0], [2, 2]])), [1, 1, 0, 2])
    with pytest.raises(UserError, match="at least 5 examples"):
        neighbours.nearest(x, x, 5)


def test_a_linear_probe_equals_the_reference_on_scaled_codes():
    codes, others = REFERENCE["probe_X"].astype(np.float64), REFERENCE["probe_V"].astype(np.float64)
    scaled = (codes - codes.mean(axis=0)) / codes.std(axis=0)
    from sklearn.linear_model import LogisticRegression

    expected = LogisticRegression(C=1.0, max_iter=5000, tol=1e-10).fit(scaled, REFERENCE["probe_y"])
    rescaled = [values * 10.0 ** np.arange(12) + 3.0 for values in (codes, others)]
    found = probes.linear(rescaled[0], REFERENCE["probe_y"], rescaled[1])
    expected = expected.predict((others - codes.mean(axis=0)) / codes.std(axis=0))
    np.testing.assert_array_equal(found, expected)


def test_probes_find_classes_that_are_there_and_no_others():
    found = run(probes, three_classes, limit=0)
    assert all(row.value > 0.98 for row in found.values())
    assert found["linear_probe"].protocol["fitted_N"] == 300 and found["linear_probe"].protocol["N"] == 200
    found = run(probes, lambda generator, size: three_classes(generator, size, apart=0.0), limit=150)
    assert all(abs(row.value - 1 / 3) < 4 * row.standard_error for row in found.values())
    assert found["knn_probe_5"].protocol["fitted_N"] == 150


@pytest.mark.parametrize("name", ["perfect", "noisy", "over", "under", "single", "random", "singletons"])
def test_cluster_scores_equal_the_reference(name):
    found = clustering.scores(REFERENCE["labels"], REFERENCE[f"clus_{name}__pred"])
    expected = [float(REFERENCE[f"clus_{name}__{score}"]) for score in ("acc", "nmi_arithmetic", "ari")]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_clusters_far_apart_are_found():
    found = run(clustering, three_classes, clusters=0, limit=0)
    assert all(row.value > 0.95 for row in found.values())
    assert found["kmeans_accuracy"].protocol["clusters"] == 3
    found = run(clustering, three_classes, clusters=2, limit=0)
    assert found["gmm_accuracy"].value == pytest.approx(2 / 3, abs=0.02)


def test_effective_rank_equals_the_reference():
    assert effective_rank.effective_rank(REFERENCE["cka_X"]) == pytest.approx(float(REFERENCE["effective_rank_X"]))


def normal(generator, size):
    return generator.normal(size=(size, 4)).astype(np.float32), np.zeros(size, np.int32)


def memorised(sample, **changes):
    options = {"extractor": "pixels", "num_samples": 200, "duplicate_below": 0.1} | changes
    return run(memorisation, normal, sample, **options)


def test_fresh_samples_are_as_far_from_training_as_unseen_data():
    import jax

    fresh = lambda params, extra, keys, condition: jax.vmap(lambda key: jax.random.normal(key, (4,)))(keys)  # noqa: E731
    ratio, copies = memorised(fresh).values()
    assert abs(ratio.value - 1.0) < 4 * ratio.standard_error and ratio.standard_error < 0.1
    assert copies.value < 0.05


def test_copies_of_training_examples_and_of_each_other_show():
    seen = jnp.asarray(normal(np.random.default_rng(0), 300)[0])
    copying = lambda params, extra, keys, condition: seen[jnp.arange(len(keys)) % 20] + 1e-3  # noqa: E731
    ratio, copies = memorised(copying).values()
    assert ratio.value < 0.01 and copies.value == 1.0
    assert ratio.protocol["fitted_sha256"] == "train" and ratio.protocol["N"] == 200


def test_shares_that_are_none_are_refused():
    with pytest.raises(UserError, match=r"duplicate_below=1\.0"):
        memorised(None, duplicate_below=1.0)


@pytest.mark.slow
def test_raw_pixels_of_mnist_have_the_known_errors():
    """3.09, 2.95, 3.12 and 3.35% at k = 1, 3, 5, 10 on the official 60,000 / 10,000 split."""
    if not (dataset.data_directory(None) / "mnist" / dataset.source("mnist").version / dataset.ARRAYS).is_dir():
        pytest.skip("MNIST is not prepared: python -m scripts.prepare_data mnist")
    splits = dataset.load("mnist").splits
    parts = splits["train"], splits["validation"]  # the official training set, in another order
    x, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "label"))
    assert len(x) == 60_000
    found = neighbours.classified(splits["test"].x, x, labels, probes.NEIGHBOURS)
    errors = [100 * np.mean(guess != splits["test"].label) for guess in found.values()]
    np.testing.assert_allclose(errors, [3.09, 2.95, 3.12, 3.35], atol=0.02)
