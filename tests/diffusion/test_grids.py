"""Sampling grids: right at both ends, and at the reference's points."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent.diffusion.grids import GRIDS
from latent.errors import UserError
from tests.diffusion import exact
from tests.harness import thinned

PATHS = exact.every_path()


@pytest.mark.parametrize("path", thinned(PATHS, {"linear", "cosine", "edm", "rectified_flow_shifted"}))
@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_descends_from_noise_to_data(name, path):
    path = PATHS[path]
    if name == "leading" and path.num_timesteps is None:
        with pytest.raises(UserError, match="leading"):
            GRIDS[name](path, 5)
        return
    for steps in (1, 2, 7):
        times = np.asarray(GRIDS[name](path, steps))
        assert times.shape == (steps + 1,) and times[-1] == 0 and times[-2] >= 0.99 * path.min_time
        assert (np.diff(times) < 0).all()
        if name in ("trailing", "linspace", "linear"):
            assert times[0] == 1
        elif name != "leading":
            np.testing.assert_allclose(times[0], 1.0, atol=0.02)


@pytest.mark.parametrize("steps", [10, 20, 30, 50])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "DPMSolverMultistepScheduler"])
def test_table_grids_hit_the_reference_points(scheduler, spacing, steps):
    options = {"skip_last": True} if scheduler.startswith("DPM") and spacing != "trailing" else {}
    times = GRIDS[spacing](PATHS["linear"], steps, **options)
    expected = exact.SCHEDULE_VALUES[f"timesteps__{scheduler}__{spacing}__{steps}"]
    np.testing.assert_allclose(times[:-1] * 1000 - 1, expected, atol=1e-3)


@pytest.mark.parametrize("steps", [10, 50])
def test_karras_levels_equal_the_reference(steps):
    low, high, rho = exact.SCHEDULE_VALUES["karras_params"]
    with jax.enable_x64(True):
        for path in (PATHS["edm"], PATHS["rectified_flow"]):
            times = GRIDS["karras"](path, steps, sigma_min=float(low), sigma_max=float(high), rho=float(rho))
            level = path.sigma(times) / path.alpha(times)
            np.testing.assert_allclose(level, exact.SCHEDULE_VALUES[f"karras_sigmas__{steps}"], rtol=1e-8)
        path = PATHS["edm"]
        np.testing.assert_allclose(GRIDS["linear"](path, steps), GRIDS["karras"](path, steps), atol=1e-12)
        levels = np.append(np.geomspace(high, low, steps), 0.0)
        np.testing.assert_allclose(path.sigma(GRIDS["log_snr"](path, steps)), levels, rtol=1e-8)


def test_a_grid_may_end_before_the_data():
    path = PATHS["linear"]
    for name in ("linear", "log_snr"):
        times = GRIDS[name](path, 5, to_data=False)
        assert times.shape == (6,)
        np.testing.assert_allclose(times[jnp.array([0, -1])], [1.0, path.min_time], rtol=1e-5)
    np.testing.assert_allclose(GRIDS["leading"](path, 5, offset=1, to_data=False)[-2:], [0.002, 0.001], rtol=1e-5)
    times = GRIDS["leading"](path, 999, skip_last=True, to_data=False)
    np.testing.assert_allclose(times, np.arange(1000, 0, -1) / 1000, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "steps", "options"),
    [
        ("leading", 1000, {"skip_last": True}),
        ("leading", 5, {"to_data": False}),
        ("leading", 5, {"offset": -1}),
        ("linspace", 1000, {"skip_last": True}),
    ],
)
def test_no_two_points_of_a_grid_are_the_same(name, steps, options):
    with pytest.raises(UserError, match="two points"):
        GRIDS[name](PATHS["linear"], steps, **options)


@pytest.mark.parametrize(
    "build",
    [
        lambda: GRIDS["trailing"](PATHS["linear"], 0),
        lambda: GRIDS["trailing"](PATHS["linear"], 1001),
        lambda: GRIDS["leading"](PATHS["linear"], 1000, offset=1),
        lambda: GRIDS["karras"](PATHS["edm"], 5, sigma_min=2.0, sigma_max=1.0),
        lambda: GRIDS["linear"](PATHS["edm"], 5, start=0.1, end=0.5),
    ],
)
def test_bad_input_is_refused(build):
    with pytest.raises(UserError):
        build()
