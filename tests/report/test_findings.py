"""What a report warns of: each warning on evidence that deserves it, none on evidence that does not."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from latent.analysis import projection, spread
from latent.analysis.neighbours import Neighbours
from latent.report import findings
from latent.report.evidence import Evidence
from latent.report.sections import map, metrics, neighbours, statistics

SECTIONS = ("overview", "statistics", "neighbours", "map", "metrics")
HEALTHY = np.random.default_rng(0).normal(size=(500, 4))


class Given(Evidence):
    """What a section would compute, handed over."""

    def __init__(self, **parts):
        self.__dict__.update(parts)


def evidence(means=HEALTHY, samples=None, kl=1.0, indices=None, halted=-1, step=10, model=None):
    codes = {
        "mean": means,
        "sample": means if samples is None else samples,
        "kl": np.full(means.shape, kl),
        "log_scale": means,
    }
    if indices is not None:
        codes["indices"] = indices
    config = {"train": {"steps": 10}, "model": model or {"prior": "standard_normal", "bottleneck": "gaussian"}}
    run = SimpleNamespace(state=SimpleNamespace(halted=halted), step=step, workdir="runs/x")
    return Given(
        codes=codes,
        config=config,
        run=run,
        sections=SECTIONS,
        split="test",
        examples={"x": means},
        samples=np.zeros((20, 4)),
    )


def told(monkeypatch, given, copied=0.0, stability=0.9, trustworthiness=0.95, rows=None):
    """{title: level} of the findings."""
    distance = np.ones((20, 5))
    distance[: round(20 * copied), 0] = 0.1
    near = Neighbours(np.zeros((20, 5), int), distance)
    far = Neighbours(np.zeros((20, 5), int), np.ones((20, 5)))
    shown = map.Shown(projection.Map(np.zeros((3, 2)), "tsne", trustworthiness, continuity=0.95), stability)
    monkeypatch.setattr(neighbours, "compared", lambda _: neighbours.Compared(near, far))
    monkeypatch.setattr(map, "drawn", lambda _: [shown])
    measured = [{"protocol": {"split": "test"}, "value": 1.0}] if rows is None else rows
    monkeypatch.setattr(metrics, "rows", lambda _: measured)
    return {finding.title: finding.level for finding in findings.of(given)}


def test_a_healthy_run_gets_no_warning(monkeypatch):
    found = told(monkeypatch, evidence())
    assert set(found.values()) == {"good"}
    assert {"Dimensions in use", "Codes fill the prior", "No copies", "Map can be read"} == set(found)


CASES = {
    "Posterior collapse": ({"kl": 0.001}, {}, "warning"),
    "Dead codes": (
        {"indices": np.zeros((500, 3), int), "model": {"bottleneck": "vq", "codebook": {"size": 16}}},
        {},
        "warning",
    ),
    "Codes miss the prior": ({"samples": HEALTHY + np.array([0.0, 0.0, 2.0, 0.0])}, {}, "warning"),
    "Memorisation": ({}, {"copied": 0.2}, "warning"),
    "Unstable map": ({}, {"stability": 0.2}, "warning"),
    "Map distorts": ({}, {"trustworthiness": 0.6}, "warning"),
    "Training broke off": ({"halted": 7}, {}, "warning"),
    "Not the last step": ({"step": 5}, {}, "note"),
    "Not evaluated": ({}, {"rows": [{"protocol": {"split": "validation"}, "value": 1.0}]}, "note"),
}


@pytest.mark.parametrize("title", CASES)
def test_what_is_wrong_is_said(monkeypatch, title):
    given, measured, level = CASES[title]
    assert told(monkeypatch, evidence(**given), **measured)[title] == level


def test_the_worst_dimension_is_one_of_those_that_miss_the_prior(monkeypatch):
    """z0 is off by as much as is allowed, z1 has a spread that is not."""
    standard = (HEALTHY - HEALTHY.mean(axis=0)) / HEALTHY.std(axis=0)
    given = evidence(samples=standard * [1.0, 1.62, 1.0, 1.0] + [0.495, 0.0, 0.0, 0.0])
    told(monkeypatch, given)
    (found,) = [finding for finding in findings.of(given) if finding.title == "Codes miss the prior"]
    assert "In 1 of 4 dimensions" in found.text and "(z1:" in found.text


def test_training_examples_are_not_taken_for_held_out_ones(monkeypatch):
    given = evidence()
    given.split = "train"
    found = told(monkeypatch, given, copied=0.2)
    assert not {"Memorisation", "No copies"} & found.keys()
    assert "held-out" in neighbours.section(given).reason


def test_unused_dimensions_are_a_note_and_warnings_come_first(monkeypatch):
    means = HEALTHY * [1.0, 0.0, 0.0, 1.0]
    given = evidence(means)
    del given.codes["kl"]
    found = told(monkeypatch, given, stability=0.1)
    assert found["Unused dimensions"] == "note"
    order = [("warning", "note", "good").index(level) for level in found.values()]
    assert order == sorted(order)
    assert statistics.measured(given).active.tolist() == [True, False, False, True]
    assert spread.ACTIVE == 0.01


def test_what_is_not_shown_is_not_checked(monkeypatch):
    given = evidence(kl=0.0, halted=3)
    given.sections = ("overview",)
    assert told(monkeypatch, given) == {"Training broke off": "warning"}
