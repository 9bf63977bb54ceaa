"""Experiments as data: each names what exists, measures once, mixes no protocols, shows the table of its results."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from experiments import reproduce
from latent import config, evaluate, reproduction
from latent.errors import UserError
from latent.reproduction import Paper, Row, Training
from latent.tables import paper_plots, papers
from tests.harness import QUIET

ROOT = Path(__file__).parent.parent
SLUGS = reproduce.slugs()
LATENTS = {"model.net.name": "residual_mlp", "model.net.self_conditioning": False}
TINY = Paper(
    title="tiny",
    budget="4 steps",
    trainings=(
        Training("first", "configs/vae.py:tiny", QUIET),
        Training("second", "configs/latent_ddpm.py:tiny", QUIET | LATENTS, first_stage="first"),
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


@pytest.mark.parametrize("budget", (*reproduce.BUDGETS, reproduce.SMOKE))
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
            names = evaluate.result_names(paper.metrics, merged)
            results |= {f"{name} {configs[training]['data']['name']}" if paper.by_data else name for name in names}
        assert set(paper.columns) <= results
        assert set(row.published) <= set(paper.columns)


@pytest.mark.parametrize("slug", SLUGS)
def test_every_page_shows_the_results_that_are_kept_or_says_that_there_are_none(slug, monkeypatch):
    monkeypatch.chdir(ROOT)
    folder = reproduce.PAPERS / slug
    lines = reproduction.read(folder / reproduction.FILE)
    text = (folder / "README.md").read_text()
    assert any(papers.section(reproduce.load(slug, budget), lines) in text for budget in reproduce.BUDGETS)
    assert (papers.UNRUN in text) == (not lines) == (not (folder / papers.PICTURE).exists())
    assert f"python -m experiments.reproduce {slug}" in text and re.search("Cost:", text)


def test_a_table_has_intervals_verdicts_and_published_numbers():
    values = {"prior": (10.0, 12.0, 14.0), "density": (5.0, 7.1, 9.0), "diffusion": (11.0, 12.0, 12.0)}
    lines = [line(row, seed, value) for row, seeds in values.items() for seed, value in enumerate(seeds)]
    told = papers.table(TINY, lines).splitlines()
    assert told[2] == "| prior | 3 | 12 +- 5 | fd_lenet_digits 3.1 (nowhere) |"  # t(2) = 4.303, s = 2
    assert told[-2].startswith("| density | -4.97 [") and told[-2].endswith("lower |")
    assert told[-1].endswith("not separable |")


def test_protocols_are_not_mixed_but_samples_may_be_drawn_differently():
    drawn = [line("prior", 0, 1.0), line("density", 0, 1.0, sampling={"density": "gaussian"})]
    assert "density" in papers.table(TINY, drawn)
    with pytest.raises(UserError, match="several protocols"):
        papers.table(TINY, [*drawn, line("diffusion", 0, 1.0, N=5)])


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


@pytest.mark.slow
def test_runs_are_trained_and_measured_once(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    quiet, names = {"log.wandb": "disabled"}, ["first", "second"]
    for _ in range(2):
        for name in names:
            assert reproduction.train(TINY, [name], tmp_path, quiet) == 0
        reproduction.measure(TINY, names, tmp_path)
        lines = reproduction.gather(TINY, tmp_path)
        assert [found["row"] for found in lines] == ["prior", "density", "diffusion"]
        monkeypatch.setattr("latent.run.Run.evaluate", lambda *_: pytest.fail("measured again"))
        monkeypatch.setattr("latent.train.Training.loop", lambda *_: pytest.fail("trained again"))
    values = {found["row"]: found["value"] for found in lines}
    assert len(set(values.values())) == 3
    assert lines[1]["protocol"]["sampling"]["density"] == "gaussian"
    with pytest.raises(UserError, match=r"train\.steps=0"):
        reproduction.train(TINY, ["first"], tmp_path / "bad", {"train.steps": 0})


@pytest.mark.slow
def test_seeds_and_hparams_are_one_population_whose_examples_are_paired(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    beta = Training("beta", "configs/vae.py:tiny", {**QUIET, "hparams.autoencoder.beta": 4.0})
    paper = TINY._replace(
        trainings=(TINY.trainings[0], beta, TINY.trainings[1]),
        rows=(Row("vae", ("first",)), Row("beta", ("beta",))),
        metrics=("elbo",),
        options={},
        columns=("elbo", "kl"),
        baseline="vae",
        tested=("elbo",),
        correlated=("elbo", "kl"),
        seeds=(0, 1),
    )
    assert reproduction.groups(paper) == [("first", "beta"), ("second",)]
    assert reproduction.train(paper, ["first", "beta"], tmp_path, {"log.wandb": "disabled"}) == 0
    reproduction.measure(paper, ["first", "beta"], tmp_path)
    lines = reproduction.gather(paper, tmp_path)
    found = {(line["row"], line["seed"]): line for line in lines if line["name"] == "elbo"}
    pairs = {line["seed"]: line for line in lines if line["name"] == reproduction.difference("elbo", "vae")}
    for seed in paper.seeds:
        expected = found["beta", seed]["value"] - found["vae", seed]["value"]
        np.testing.assert_allclose(pairs[seed]["value"], expected, rtol=1e-9)
        spread = np.hypot(found["beta", seed]["standard_error"], found["vae", seed]["standard_error"])
        assert pairs[seed]["standard_error"] < 0.5 * spread, "images that are hard for one are hard for the other"
    told = papers.table(paper, lines)
    assert "paired by example" in told and "| rank correlation over 4 runs | elbo | kl |" in told
    paper_plots.draw(paper, lines, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_a_series_has_one_colour_in_every_panel(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    rows = [Row(f"{model}, {place}", (), series=model, place=place) for model in ("AE", "VAE") for place in (1, 2)]
    paper = TINY._replace(rows=tuple(rows), columns=("mse", "elbo"), axis="latent dimensions")
    lines = [
        line(row.name, seed, 1.0 + seed, name)
        for row in rows
        for name in paper.columns
        for seed in (0, 1)
        if (row.series, name) != ("AE", "elbo")  # an autoencoder has no bound
    ]
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **keywords: drawn.append(figure))
    paper_plots.draw(paper, lines, tmp_path / "plot.png")
    colours = [
        {line.get_label(): line.get_color() for line in panel.lines if not line.get_label().startswith("_")}
        for panel in drawn[0].axes
    ]
    assert list(colours[0]) == ["AE", "VAE"] and list(colours[1]) == ["VAE"]
    assert colours[0]["VAE"] == colours[1]["VAE"] != colours[0]["AE"]


@pytest.mark.slow
def test_a_run_beside_another_gives_the_numbers_of_its_own(tmp_path, monkeypatch):
    import latent

    monkeypatch.chdir(ROOT)
    # Drawn anew for every seed: neither codes of the training split nor features of the test split may be shared.
    noisy = {"data.binarise": "dynamic", "model.likelihood": "bernoulli", "log.wandb": "disabled"}
    assert reproduction.train(TINY._replace(seeds=(0, 1)), ["first"], tmp_path, noisy) == 0
    first, second = (reproduction.directory(tmp_path, "first", seed) for seed in (0, 1))
    one = latent.load(first)
    one.evaluate(("elbo", "frechet_distance"), "test", TINY.options)
    beside = one.beside(second).evaluate(("elbo", "probes", "frechet_distance"), "test", TINY.options)
    alone = latent.load(second).evaluate(("elbo", "probes", "frechet_distance"), "test", TINY.options)
    assert beside == alone


def test_the_tasks_of_a_paper_wait_for_what_they_need(tmp_path):
    paper = TINY._replace(seeds=(0, 1))
    for places in (1, 8):
        found = {task.name: task for task in reproduce.tasks("tiny", paper, tmp_path, places, ["--budget=short"])}
        assert found["train second"].after == ("train first",) and found["train first"].after == ()
        alone = [found[f"measure first:{seed}"] for seed in (0, 1) if places == 8]
        assert len(found) == (6 if places == 8 else 2) and all(task.after == ("train first",) for task in alone)
        commands = [task.command[-1] for task in alone] or [found["train first"].command[-1]]
        assert ",".join(commands).replace("--measure=", "") == "first:0,first:1"


def test_a_page_keeps_what_stands_around_its_results():
    lines = [line("prior", 0, 12.0)]
    text = papers.page(f"before\n{papers.BEGIN}\nold\n{papers.END}\nafter", TINY, lines)
    assert (
        text.startswith("before\n") and text.endswith("\nafter") and "old" not in text and "| prior | 1 | 12 |" in text
    )
    assert papers.UNRUN in papers.page(text, TINY, [])
    with pytest.raises(UserError, match="has no"):
        papers.page("nothing", TINY, lines)
