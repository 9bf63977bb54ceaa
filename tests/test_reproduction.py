"""Experiments as data: each names what exists, measures once, mixes no protocols, shows the table of its results."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from experiments import reproduce
from latent import config, evaluate, reproduction
from latent.errors import UserError
from latent.reproduction import Paper, Row, Training

ROOT = Path(__file__).parent.parent
SLUGS = reproduce.slugs()
TINY = Paper(
    title="tiny",
    budget="4 steps",
    trainings=(
        Training("first", "configs/vae.py:tiny"),
        Training("second", "configs/latent_ddpm.py:tiny", {"model.net.patch": 2}, first_stage="first"),
    ),
    rows=(
        Row("prior", ("first",), published={"fd_lenet_digits": "3.1 (nowhere)"}),
        Row("density", ("first",), density="gaussian"),
        Row("diffusion", ("second",), sampling={"steps": 2}),
    ),
    metrics=("frechet_distance",),
    options={"frechet_distance": {"num_samples": 200}},
    columns=("fd_lenet_digits",),
    baseline="prior",
    tested=("fd_lenet_digits",),
    seeds=(0,),
)


def line(row, seed, value, name="fd_lenet_digits", **protocol):
    return {"row": row, "seed": seed, "name": name, "value": value, "protocol": {"split": "test", **protocol}}


@pytest.mark.parametrize("budget", reproduce.BUDGETS)
@pytest.mark.parametrize("slug", SLUGS)
def test_every_paper_names_configs_metrics_and_rows_that_exist(slug, budget, monkeypatch):
    monkeypatch.chdir(ROOT)
    paper = reproduce.load(slug, budget)
    configs = {}
    for training in paper.trainings:
        configs[training.name] = config.load(training.config, training.overrides).to_dict()
    for row in paper.rows:
        results = set()
        for training in row.trainings:
            options = configs[training]["eval"]["options"]
            merged = options | {name: {**options[name], **values} for name, values in paper.options.items()}
            results |= set(evaluate.result_names(paper.metrics, merged))
        assert set(paper.columns) <= results
        assert set(row.published) <= set(paper.columns)


@pytest.mark.parametrize("slug", SLUGS)
def test_every_readme_shows_the_table_of_its_results(slug, monkeypatch):
    monkeypatch.chdir(ROOT)
    folder = reproduce.PAPERS / slug
    lines = reproduction.read(folder / reproduction.FILE)
    assert lines, "results of real runs are kept beside the sweep"
    text = (folder / "README.md").read_text()
    assert reproduction.table(reproduce.load(slug, "short"), lines) in text
    assert f"python -m experiments.reproduce {slug}" in text and re.search("Cost:", text)


def test_a_table_has_intervals_verdicts_and_published_numbers():
    values = {"prior": (10.0, 12.0, 14.0), "density": (5.0, 7.1, 9.0), "diffusion": (11.0, 12.0, 12.0)}
    lines = [line(row, seed, value) for row, seeds in values.items() for seed, value in enumerate(seeds)]
    told = reproduction.table(TINY, lines).splitlines()
    assert told[2] == "| prior | 3 | 12 +- 5 | fd_lenet_digits 3.1 (nowhere) |"  # t(2) = 4.303, s = 2
    assert told[-2].startswith("| density | -4.97 [") and told[-2].endswith("lower |")
    assert told[-1].endswith("not separable |")


def test_protocols_are_not_mixed_but_samples_may_be_drawn_differently():
    drawn = [line("prior", 0, 1.0), line("density", 0, 1.0, sampling={"density": "gaussian"})]
    assert "density" in reproduction.table(TINY, drawn)
    with pytest.raises(UserError, match="several protocols"):
        reproduction.table(TINY, [*drawn, line("diffusion", 0, 1.0, N=5)])


@pytest.mark.parametrize(
    "wrong", [{"baseline": "nobody"}, {"tested": ("nothing",)}, {"trainings": TINY.trainings[1:]}], ids=str
)
def test_parts_that_are_named_must_exist(wrong):
    reproduction.check(TINY)
    with pytest.raises(UserError, match="named but not defined"):
        reproduction.check(TINY._replace(**wrong))


def test_an_unknown_experiment_is_named():
    with pytest.raises(UserError, match=r"experiments\.reproduce='nothing' is not known"):
        reproduce.load("nothing", "short")


@pytest.mark.parametrize("slug", SLUGS)
def test_an_unknown_budget_lists_the_known_ones(slug):
    with pytest.raises(UserError, match="Allowed: full, short"):
        reproduce.load(slug, "medium")


def test_runs_are_trained_and_measured_once(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    quiet = ("--config.log.wandb=disabled",)
    for _ in range(2):
        assert reproduction.train(TINY, tmp_path, 0, quiet) == 0
        reproduction.measure(TINY, tmp_path, 0)
        lines = reproduction.read(tmp_path / reproduction.FILE)
        assert [found["row"] for found in lines] == ["prior", "density", "diffusion"]
        monkeypatch.setattr("latent.run.Run.evaluate", lambda *_: pytest.fail("measured again"))
    values = {found["row"]: found["value"] for found in lines}
    assert len(set(values.values())) == 3
    assert lines[1]["protocol"]["sampling"]["density"] == "gaussian"
    assert reproduction.train(TINY, tmp_path / "bad", 0, ("--config.train.steps=0",)) == 2
