"""Reconstructed averages: profiles in closed form, weights against averages that were tracked, and a run's files."""

from __future__ import annotations

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

import latent
from latent import config, optim, posthoc_ema
from latent.checkpoint import digest
from latent.errors import UserError
from latent.train import train

SECTION = {"ema.decays": (), "ema.relative_widths": (0.05, 0.1), "ema.snapshot_every": 2}
AVERAGE = {"eval.average": "width_0.1"}


def load_config(**changes):
    return config.load("configs/vae.py:tiny", {**SECTION, **AVERAGE, **changes}).to_dict()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ema") / "run"
    assert train(load_config(**{"train.steps": 8}), folder) == 0
    return folder


def test_inner_products_are_the_integrals_of_the_profiles():
    profile = lambda tau, gamma, t: (gamma + 1) * tau**gamma / t ** (gamma + 1) if tau <= t else 0.0  # noqa: E731
    for first, second in (((3.0, 10.0), (7.0, 4.0)), ((16.0, 2.0), (6.5, 9.0)), ((5.0, 6.0), (5.0, 6.0))):
        both = lambda tau, a=first, b=second: profile(tau, *a) * profile(tau, *b)  # noqa: E731
        expected = scipy.integrate.quad(both, 0.0, min(first[1], second[1]))[0]
        assert posthoc_ema.inner_product(*first, *second) == pytest.approx(expected, rel=1e-8)
        assert posthoc_ema.inner_product(*second, *first) == pytest.approx(expected, rel=1e-8)


def walk(steps=4000, every=250, tracked=(0.05, 0.1), wanted=(0.03, 0.07, 0.15, 0.2)):
    """A random walk of 20 weights, its snapshots, and averages of other widths tracked beside them."""
    widths = (*tracked, *wanted)
    decays = [optim._power_decay(optim.power_exponent(width)) for width in widths]
    weights = jnp.cumsum(jax.random.normal(jax.random.key(0), (steps, 20)), axis=0)

    def advance(averages, both):
        step, current = both
        moved = [optim.update_average(a, current, d(step)) for a, d in zip(averages, decays, strict=True)]
        return moved, jnp.stack(moved)

    start = [jnp.full(20, 1e3) for _ in widths]  # forgotten at the first update
    _, history = jax.jit(lambda: jax.lax.scan(advance, start, (jnp.arange(steps), weights)))()
    history = np.asarray(history)
    times = list(range(every, steps + 1, every))
    snapshots = [history[time - 1, i] for time in times for i in range(len(tracked))]
    pairs = [(time, width) for time in times for width in tracked]
    return (
        snapshots,
        pairs,
        {width: history[-1, len(tracked) + i] for i, width in enumerate(wanted)},
        np.asarray(weights),
    )


def test_other_widths_are_reconstructed_to_a_per_cent():
    """Of the spread of the weights over the training; and the residual says how near the profile comes."""
    snapshots, pairs, expected, weights = walk()
    times, widths = zip(*pairs, strict=True)
    for width, average in expected.items():
        found, residual = posthoc_ema.coefficients(widths, times, width, times[-1])
        assert found.sum() == pytest.approx(1.0, abs=0.02)
        error = np.abs(np.tensordot(found, np.stack(snapshots), axes=1) - average).max() / weights.std()
        assert error < 0.01 and residual < (0.25 if width < 0.05 else 0.05), (width, error, residual)


def test_a_tracked_width_is_itself():
    found, residual = posthoc_ema.coefficients((0.05, 0.1) * 4, np.repeat([250, 500, 750, 1000], 2).tolist(), 0.1, 1000)
    np.testing.assert_allclose(found, [0, 0, 0, 0, 0, 0, 0, 1], atol=1e-6)
    assert residual < 1e-5


@pytest.mark.slow
def test_snapshots_outlive_checkpoints_and_give_the_tracked_average_back(workdir):
    assert sorted(int(path.name) for path in (workdir / "ema").iterdir()) == [2, 4, 6, 8]
    assert len(list((workdir / "checkpoints").glob("[0-9]*"))) < 4
    tracked = latent.load(workdir).state
    assert digest(latent.load(workdir, average="posthoc_0.1").state.params) == digest(tracked.params)


@pytest.mark.slow
def test_another_width_is_the_stated_mixture_of_snapshots(workdir):
    run = latent.load(workdir, average="posthoc_0.15")
    snapshots = posthoc_ema.Snapshots(workdir)
    tracked = posthoc_ema.power_averages(run.state)
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tracked)
    pairs = [(step, width) for step in (2, 4, 6, 8) for width in (0.05, 0.1)]
    found, _ = posthoc_ema.coefficients([w for _, w in pairs], [s for s, _ in pairs], 0.15, 8)
    parts = [snapshots.restore(step, target)[f"width_{width:g}"]["params"] for step, width in pairs]
    snapshots.close()
    mixed = jax.tree.map(
        lambda *leaves: sum(w * np.float64(leaf) for w, leaf in zip(found, leaves, strict=True)), *parts
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), run.state.params, mixed)
    assert run.data("test").protocol["weights"] == "posthoc_0.15"


@pytest.mark.slow
def test_a_resumed_run_has_the_same_snapshots(workdir, tmp_path):
    horizon = {key: 8 for key in config.flatten(load_config()) if key.endswith("schedule.horizon")}
    for steps in (4, 8):
        assert train(load_config(**horizon, **{"train.steps": steps}), tmp_path / "parts") == 0
    one, two = (latent.load(path, average="posthoc_0.2").state.params for path in (workdir, tmp_path / "parts"))
    assert digest(one) == digest(two)


@pytest.mark.slow
def test_what_cannot_be_reconstructed_is_refused(workdir, tmp_path):
    for name in ("posthoc_0.5", "posthoc_wide"):
        with pytest.raises(UserError, match=name):
            latent.load(workdir, average=name)
    without = tmp_path / "without"
    shutil.copytree(workdir, without)
    shutil.rmtree(without / "ema")
    with pytest.raises(UserError, match=r"ema\.snapshot_every"):
        latent.load(without, average="posthoc_0.15")
    with pytest.raises(UserError, match=r"ema\.snapshot_every=2 needs ema\.relative_widths"):
        train(load_config(**{"ema.relative_widths": (), "eval.average": ""}), tmp_path / "none")
    assert not (tmp_path / "none" / "config.json").exists()
    missing = tmp_path / "missing"
    shutil.copytree(workdir, missing)
    shutil.rmtree(missing / "ema" / "8")
    with pytest.raises(UserError, match=r"no snapshot at step 8\. Allowed: \[2, 4, 6\]"):
        latent.load(missing, average="posthoc_0.15")


@pytest.mark.slow
def test_a_run_of_before_there_were_snapshots_still_loads(workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "old")
    settings = json.loads((workdir / "config.json").read_text())
    del settings["ema"]["snapshot_every"]
    (tmp_path / "old" / "config.json").write_text(json.dumps(settings))
    assert latent.load(tmp_path / "old").step == 8
