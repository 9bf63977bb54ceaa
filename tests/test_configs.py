"""Every family keeps the protocol: its tiny config trains, resumes exactly, moves only what is owned, evaluates and
does what its functions promise. New config files are picked up by themselves."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import latent
from latent import build, checkpoint, config
from latent.checkpoint import digest
from latent.train import train
from tests.harness import QUIET

ROOT = Path(__file__).parent.parent
# Every variant called tiny or tiny_something: between them they exercise the axes of a family.
CONFIGS = sorted(
    f"configs/{path.name}:{variant}"
    for path in ROOT.glob("configs/*.py")
    for variant in re.findall(r"^def (tiny\w*)\(", path.read_text(), re.M)
)


# A U-net of four levels, by far the longest to compile; families that have a config in the quick suite already; and
# the classifier, the plainest.
SLOW = {
    f"configs/{name}.py:tiny"
    for name in ("classifier", "diffusion_gpu", "disentanglement", "first_stage", "vae", "vae_colour")
}
# In the quick suite one of a family; --all runs the others too.
QUICK = {path for path in CONFIGS if path.endswith(":tiny")} - SLOW
PARAMETERS = [pytest.param(path, marks=() if path in QUICK else pytest.mark.slow) for path in CONFIGS]


@pytest.fixture(scope="module", params=PARAMETERS)
def run(request, tmp_path_factory):
    """(the run trained to 4 steps at once, the work directory of one that went on from its checkpoint of step 2).

    From there on that is neither evaluated nor drawn, which must not make a difference.
    """
    folder = tmp_path_factory.mktemp("runs")
    length = {"train.steps": 4, "checkpoint.every": 2}
    assert train(config.load(request.param, length).to_dict(), folder / "whole") == 0
    shutil.copytree(folder / "whole", folder / "parts")
    shutil.rmtree(folder / "parts" / checkpoint.DIRECTORY / "4")
    assert checkpoint.Checkpoints(folder / "parts").steps() == [2]
    assert train(config.load(request.param, {**length, **QUIET}).to_dict(), folder / "parts") == 0
    return latent.load(folder / "whole"), folder / "parts"


def test_resume_is_exact(run):
    whole, parts = run
    assert digest(latent.load(parts).state) == digest(whole.state)


def test_only_what_is_owned_moves(run):
    whole, _ = run
    before = build.initial_state(whole.experiment)
    after = latent.load(whole.workdir, average="").state
    owned = {name for player in whole.model.players for name in player.owns}
    for name, component in after.params.items():
        moved = jax.tree.leaves(jax.tree.map(lambda a, b: not np.array_equal(a, b), component, before.params[name]))
        assert any(moved) if name in owned else not any(moved), name
    assert set(after.opt) == {player.name for player in whole.model.players}


def test_every_metric_of_the_config_is_defined(run):
    whole, _ = run
    results = whole.evaluate(split="test")
    assert results and all(result.value is not None and np.isfinite(result.value) for result in results)


def test_the_terms_of_an_example_do_not_depend_on_those_beside_it(run):
    whole, _ = run
    settings = {**whole.config, "eval": {**whole.config["eval"], "batch_size": 24}}
    fewer = whole.experiment._replace(config=settings).evaluation_data("test", whole.config["seed"], whole.average)
    found, expected = fewer.terms(whole.state), whole.data("test").terms(whole.state)
    assert found.keys() == expected.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-4, err_msg=name)


def test_what_a_family_offers_has_the_right_shapes(run):
    whole, _ = run
    x, shape = whole.examples("test", limit=5)["x"], whole.spec.shape
    assert x.shape == (5, *shape)
    if whole.model.encode is not None:
        latent_codes = whole.encode(x)
        assert latent_codes.mean.shape == latent_codes.sample.shape and latent_codes.mean.shape[0] == 5
        one = whole.encode(x[:1])
        np.testing.assert_allclose(one.mean[0], latent_codes.mean[0], atol=1e-5)
        if whole.model.decode is not None:
            assert whole.decode(latent_codes.mean).shape == x.shape
    if whole.model.sample is not None:
        assert whole.sample(3, seed=1).shape == (3, *shape)
        np.testing.assert_allclose(whole.sample(3, seed=1)[:2], whole.sample(2, seed=1), atol=1e-5)


@pytest.mark.slow
def test_the_dry_run_describes_it(run):
    from latent import dry_run

    text = dry_run.describe(run[0].config, ())
    assert f"{build.count_parameters(run[0].state):,}" in text
    assert all(player.name in text for player in run[0].model.players)
