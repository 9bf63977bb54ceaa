"""Runs on disk to tables: grouping, protocols that do not mix, formats, plots."""

from __future__ import annotations

import csv
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest

from latent.errors import UserError
from latent.tables import comparison, formats, measurements, plots
from scripts import table as command

PROTOCOL = {"data": "digits", "split": "test", "data_sha256": "a" * 64, "preprocessing": {"binarise": "none"}, "N": 385}


def settings(latent_dim, seed, **changes):
    train = {"steps": 10, "batch_size": 8, "microbatches": 1, "steps_per_dispatch": 0}
    sections = {"log": {"every": 1, "images": 0, "group": "g"}, "eval": {"every": 0, "batch_size": 8}}
    model = {"latent_dim": latent_dim, "net": {"hidden": [8, latent_dim]}, **changes}
    return {"seed": seed, "train": train, "checkpoint": {"every": 0}, "model": model, **sections}


def write(folder, latent_dim, seed, values, step=10, protocol=None, **changes):
    """A work directory with results {name: value}."""
    workdir = folder / f"{latent_dim}-{seed}{''.join(map(str, changes.values()))}"
    (workdir / "evaluation").mkdir(parents=True, exist_ok=True)
    (workdir / "config.json").write_text(json.dumps(settings(latent_dim, seed, **changes)))
    path = workdir / "evaluation" / f"{step}.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    for name, value in values.items():
        row = {"name": name, "value": value, "standard_error": 0.1, "unit": "nats"}
        rows.append({**row, "protocol": {**PROTOCOL, **(protocol or {})}, "reason": ""})
    path.write_text(json.dumps(rows))
    return workdir


@pytest.fixture
def sweep(tmp_path):
    """Three dimensions, four seeds: 8 is better than 2 by 1 in every seed, 32 is as good as 2 but for noise."""
    for seed, noise in enumerate([0.01, -0.02, 0.03, -0.02]):
        for dim, gain in ((8, 1.0 + noise), (2, 0.0), (32, 50 * noise)):
            write(tmp_path, dim, seed, {"elbo": seed + gain, "kl": 3.0 + gain, "iwae_50": seed + gain + 1})
    return tmp_path


def made(folder, metric="elbo", by=("model.latent_dim",), baseline=None):
    runs = measurements.find(folder)
    name = measurements.resolve(runs, metric, "test")
    return comparison.make(runs, [measurements.column(runs, name, "test")], by, baseline)


def test_groups_means_and_verdicts(sweep):
    table = made(sweep)
    assert [group.key for group in table.groups] == [(2,), (8,), (32,)]
    cells = [group.cells[0] for group in table.groups]
    assert [cell.verdict for cell in cells] == ["baseline", "higher", "not separable"]
    assert [cell.summary.n for cell in cells] == [4, 4, 4] and cells[0].summary.mean == pytest.approx(1.5)
    assert cells[1].comparison.difference == pytest.approx(1.0) and cells[1].p < 1e-4
    verdicts = [group.cells[0].verdict for group in made(sweep, baseline="8").groups]
    assert verdicts[:2] == ["lower", "baseline"]


def test_a_metric_may_be_named_by_its_beginning(sweep):
    assert made(sweep, "iwae").columns[0].name == "iwae_50"
    write(sweep, 2, 0, {"iwae_5000": 1.0})
    with pytest.raises(UserError, match="could be any of iwae_50, iwae_5000"):
        made(sweep, "iwae")
    with pytest.raises(UserError, match="elbow.*Did you mean 'elbo'".replace(".*", "[^|]*")):
        made(sweep, "elbow")


def test_protocols_are_never_mixed_and_the_differing_keys_are_named(sweep):
    write(sweep, 64, 0, {"elbo": 1.0}, protocol={"N": 1000, "data_sha256": "b" * 64})
    with pytest.raises(UserError, match="no protocol is common") as error:
        made(sweep)
    assert "N (385, 1000)" in str(error.value) or "N (1000, 385)" in str(error.value)
    assert "data_sha256" in str(error.value) and "binarise" not in str(error.value)


def test_the_protocol_that_all_runs_share_is_taken_and_of_several_one_must_be_chosen(sweep):
    write(sweep, 8, 0, {"elbo": 99.0}, protocol={"N": 1000})
    assert made(sweep).columns[0].protocol["N"] == 385
    for dim in (2, 8, 32):
        for seed in range(4):
            write(sweep, dim, seed, {"elbo": 99.0}, protocol={"N": 1000})
    with pytest.raises(UserError, match="several protocols"):
        made(sweep)
    chosen = measurements.column(measurements.find(sweep), "elbo", "test", {"N": "1000"})
    assert {found.value for found in chosen.values.values()} == {99.0}


def test_the_last_step_counts_and_unfinished_runs_are_said(sweep):
    write(sweep, 2, 0, {"elbo": -7.0}, step=5)
    assert made(sweep).groups[0].cells[0].summary.mean == pytest.approx(1.5)
    write(sweep, 64, 0, {"elbo": 0.0}, step=5)
    assert any("unfinished" in note for note in made(sweep).notes)


def test_a_group_may_differ_in_its_seed_alone(sweep):
    write(sweep, 8, 5, {"elbo": 1.0}, width=3)
    with pytest.raises(UserError, match="latent_dim=8 differ in model.width".replace(".", "[.]")):
        made(sweep)
    table = made(sweep, by=("model.latent_dim", "model.width"), baseline="8,None")
    assert len(table.groups) == 4


def test_a_seed_may_not_occur_twice(sweep):
    workdir = write(sweep, 8, 0, {"elbo": 1.0})
    workdir.rename(sweep / "copy")
    write(sweep, 8, 0, {"elbo": 1.0})
    with pytest.raises(UserError, match="seed 0 twice"):
        made(sweep)


def test_what_else_differs_between_groups_is_said(sweep):
    assert any("model.net.hidden" in note for note in made(sweep).notes)


def test_one_seed_gives_a_number_without_interval_or_test(tmp_path):
    for dim in (2, 8):
        write(tmp_path, dim, 0, {"elbo": dim})
    table = made(tmp_path)
    assert [group.cells[0].verdict for group in table.groups] == ["baseline", "untested: one pair"]
    assert any("n=1" in note for note in table.notes)
    rows = [line.split(" | ") for line in formats.markdown(table).splitlines()[2:4]]
    assert all(row[2:5] == ["", "", "1"] for row in rows), rows


def test_markdown_rounds_by_the_interval(sweep):
    lines = formats.markdown(made(sweep)).splitlines()
    assert lines[0].startswith("| model.latent_dim | elbo [nats] | 95% t | 95% bootstrap | n |")
    assert (
        lines[3].startswith("| 8 | 2.5 | [0.5, 4.5] | [1.5, 3.5] | 4 |")
        and "| +1.000 [0.96" in lines[3]
        and "higher" in lines[3]
    )
    assert "aaaaaaaa," in "\n".join(lines[5:]) and "a" * 9 not in "\n".join(lines[5:])


def test_csv_has_every_digit_and_the_protocol(sweep):
    rows = list(csv.DictReader(io.StringIO(formats.comma_separated(made(sweep)))))
    assert [row["model.latent_dim"] for row in rows] == ["2", "8", "32"]
    assert json.loads(rows[1]["protocol"]) == PROTOCOL
    values = json.loads(rows[1]["values"])
    np.testing.assert_equal(np.mean(list(values.values())), float(rows[1]["mean"]))


def test_latex_is_escaped(sweep):
    text = formats.latex(made(sweep))
    assert r"model.latent\_dim" in text and r"95\% t" in text and text.count(r"\\") == 4
    assert "_dim" not in text.replace(r"\_dim", "")


@pytest.mark.parametrize("kind", plots.PLOTS)
@pytest.mark.parametrize("by", [("model.latent_dim",), ("model.net.hidden", "model.latent_dim")])
def test_plots_are_drawn(sweep, tmp_path, kind, by):
    from PIL import Image

    runs = measurements.find(sweep)
    path = tmp_path / "plot.png"
    plots.PLOTS[kind](made(sweep, by=by), runs, "test", path)
    assert np.asarray(Image.open(path).convert("L")).std() > 5


def test_a_plot_is_of_the_protocol_that_was_chosen(sweep, monkeypatch, tmp_path):
    for seed in range(4):
        for dim in (8, 2, 32):
            write(sweep, dim, seed, {"elbo": 100.0 + seed, "kl": 50.0}, protocol={"N": 7})
    drawn = []
    monkeypatch.setitem(plots.PLOTS, "rate_distortion", lambda table, runs, split, path: drawn.extend(runs))
    words = [str(sweep), "--metric=elbo", "--by=model.latent_dim", "--protocol", "N=7", "--kind=rate_distortion"]
    monkeypatch.setattr("sys.argv", ["table", *words, f"--plot={tmp_path / 'x.png'}"])
    assert command.main() == 0
    column = measurements.column(drawn, "kl", "test")  # one protocol is left, so nothing is to be chosen
    assert column.protocol["N"] == 7 and {value.value for value in column.values.values()} == {50.0}


def test_what_is_measured_may_be_what_a_config_has_options_for(tmp_path, monkeypatch):
    workdir = write(tmp_path, 2, 0, {"elbo": 1.0})
    described = json.loads((workdir / "config.json").read_text())
    described["eval"] |= {"metrics": ["elbo"], "options": {"iwae": {"num_samples": 50, "chunk": 50, "limit": 0}}}
    (workdir / "config.json").write_text(json.dumps(described))
    asked = []
    run = lambda path: SimpleNamespace(evaluate=lambda names, split: asked.append((names, split)))  # noqa: E731
    monkeypatch.setattr("latent.run.load", run)
    for word in ("iwae", "iwae_50", "elbo"):
        command._evaluate(measurements.find(tmp_path), [word], "test")
    assert asked == [(["iwae"], "test")] * 2 + [(["elbo"], "test")]  # elbo has no kl beside it yet
    asked.clear()
    for word in ("reconstruction_mse", "codebook_perp", "codebook", "ais", "elbow"):
        command._evaluate(measurements.find(tmp_path), [word], "test")
    assert asked == [(["reconstruction"], "test"), (["codebook"], "test")]  # ais lacks its options


def test_a_result_that_several_metrics_give_is_measured_once():
    produced = {"frechet_distance": ["fd_a"], "frechet_prior": ["fd_a", "fd_a_prior"], "iwae": ["iwae_50"]}
    words = ("fd_a", "fd_a_prior", "fd", "frechet_prior", "iwae_50", "iwa", "kid")
    given = ["frechet_distance", "frechet_prior", "frechet_distance", "frechet_prior", "iwae", "", ""]
    assert [command._giving(word, produced) for word in words] == given


BAD = {
    "split": (["--metric=elbo", "--split=train"], ["--split=train", "test"]),
    "metric": (["--metric=elbow"], ["elbow", "'elbo'"]),
    "key": (["--metric=elbo", "--by=model.latent"], ["model.latent_dim"]),
    "baseline": (["--metric=elbo", "--baseline=9"], ["--baseline", "2, 32, 8"]),
    "format": (["--metric=elbo", "--format=tex"], ["tex", "latex"]),
    "kind": (["--metric=elbo", "--kind=curves"], ["'curve'"]),
    "plot": (["--metric=elbo", "--plot=/nowhere/x.png"], ["--plot=/nowhere/x.png"]),
    "no metric": ([], ["--metric and --by"]),
    "protocol": (["--metric=elbo", "--protocol", "N=7"], ["N=7"]),
}


@pytest.mark.parametrize(("words", "told"), BAD.values(), ids=BAD)
def test_bad_requests_are_named(sweep, monkeypatch, words, told):
    by = [] if any(word.startswith("--by") for word in words) else ["--by=model.latent_dim"]
    monkeypatch.setattr("sys.argv", ["table", str(sweep), *by, *words])
    with pytest.raises(UserError) as error:
        command.main()
    assert all(word in str(error.value) for word in told), str(error.value)


def test_the_command_prints_a_table_of_several_metrics(sweep, monkeypatch, capsys, tmp_path):
    plot = tmp_path / "x.png"
    words = [str(sweep), "--metric=elbo,iwae", "--by=model.latent_dim", "--baseline=8", f"--plot={plot}"]
    monkeypatch.setattr("sys.argv", ["table", *words])
    assert command.main() == 0 and plot.exists()
    assert "iwae_50 [nats]" in capsys.readouterr().out.splitlines()[0]


def test_a_folder_without_runs_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        measurements.find(tmp_path)
