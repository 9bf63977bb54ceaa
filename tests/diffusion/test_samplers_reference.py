"""Trajectories of established implementations, computed in double precision with the exact denoiser of a mixture."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent.config import select
from latent.diffusion import predictions
from latent.diffusion.grids import GRIDS
from latent.diffusion.predictions import PREDICTIONS
from latent.diffusion.schedules import SCHEDULES
from tests.diffusion import exact
from tests.harness import thinned

CASES = {case["id"]: case for case in exact.CASES}
KINDS = {(case["class"], case["kwargs"].get("prediction_type")): name for name, case in CASES.items()}
"""One case of each sampler and prediction: what the quick suite holds."""

EXPLODING = ("EulerDiscreteScheduler", "HeunDiscreteScheduler", "EulerAncestralDiscreteScheduler")
MEANINGS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@functools.cache
def schedule(name, *options):
    return SCHEDULES[name](*options)


@functools.cache
def table(name, zero_terminal_snr):
    return SCHEDULES[name](zero_terminal_snr=zero_terminal_snr)


def path_of(case):
    kwargs, kind = case["kwargs"], case["class"]
    if kind.startswith("Flow"):
        shift = float(np.exp(case["settings"]["mu"])) if kwargs.get("use_dynamic_shifting") else kwargs["shift"]
        return schedule("rectified_flow", shift)
    if kind.startswith("EDM") or kind == "edm_sampler":
        return schedule("edm", kwargs["sigma_min"], kwargs["sigma_max"], kwargs["rho"])
    names = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
    return table(names[kwargs["beta_schedule"]], kwargs.get("rescale_betas_zero_snr", False))


def times_of(case, path):
    """Our own grid, whose points are then checked against the reference's."""
    kwargs, name, steps = case["kwargs"], case["class"], case["steps"]
    if name.startswith("Flow"):
        return GRIDS["trailing" if "sigmas" in case["settings"] else "linear"](path, steps)
    if name.startswith("EDM") or name == "edm_sampler":
        return GRIDS["linear"](path, steps)
    sigmas = exact.SAMPLERS.get(f"{case['id']}__sigmas")
    if kwargs.get("use_karras_sigmas"):
        return GRIDS["karras"](path, steps, sigma_min=float(sigmas[-2]), sigma_max=float(sigmas[0]))
    multistep = name in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")
    spacing = kwargs["timestep_spacing"]
    if kwargs.get("final_sigmas_type") == "sigma_min" or kwargs.get("use_lu_lambdas") or name in EXPLODING:
        unique = sigmas if name != "HeunDiscreteScheduler" else np.append(sigmas[:-1:2], 0.0)
        return path.time(-2 * jnp.log(unique))
    if spacing == "leading" and not multistep:
        to_data = kwargs.get("set_alpha_to_one", True)
        return GRIDS["leading"](path, steps, offset=kwargs.get("steps_offset", 0), to_data=to_data)
    return GRIDS[spacing](path, steps, **({"skip_last": True} if multistep and spacing != "trailing" else {}))


def options_of(case):
    kwargs, name = case["kwargs"], case["sampler"]
    if name == "ddim":
        return {"eta": 1.0 if case["class"].startswith("EulerAncestral") else case["eta"]}
    if name == "ddpm":
        return {"variance": kwargs["variance_type"]}
    if name == "dpmpp_2m":
        return {"lower_order_final": None if kwargs.get("lower_order_final", True) else False}
    if name == "unipc":
        return {"order": kwargs["solver_order"]}
    if case["class"] == "HeunDiscreteScheduler":
        return {"variance_exploding": True}
    if "S_churn" in kwargs:
        return dict(zip(("churn", "churn_min", "churn_max", "churn_noise"), list(kwargs.values())[-4:], strict=True))
    return {}


def sampler_of(case):
    kwargs, name = case["kwargs"], case["sampler"]
    if kwargs.get("algorithm_type") == "sde-dpmsolver++":
        return "dpmpp_2m_sde", {}
    if name == "dpmpp_2m" and kwargs.get("solver_order") == 1:
        return "ddim", {}
    return name, options_of(case)


@functools.cache
def denoiser_of(path, meaning, limit):
    """Through the case's own prediction: what it goes through must not matter."""

    @jax.jit
    def denoise(x, t):
        alpha, sigma = path.alpha(t), path.sigma(t)
        found = exact.denoise(exact.MIXTURE, x, alpha, sigma)
        output = predictions.target(PREDICTIONS[meaning], found.x0, found.eps, alpha, sigma)
        found = predictions.denoised(PREDICTIONS[meaning], output, x, alpha, sigma)
        return predictions.from_x0(jnp.clip(found.x0, -limit, limit), x, alpha, sigma) if limit else found

    return denoise


@pytest.mark.parametrize("name", thinned(CASES, set(KINDS.values())))
def test_trajectories_equal_the_reference(name):
    case = CASES[name]
    kwargs, kind = case["kwargs"], case["class"]
    path = path_of(case)
    times = times_of(case, path)
    meaning = "velocity" if kind.startswith("Flow") else MEANINGS[kwargs.get("prediction_type", "epsilon")]
    module, options = sampler_of(case)
    denoise = denoiser_of(path, meaning, kwargs.get("clip_sample_range"))
    sampler = select("latent.diffusion.samplers", module, "sampler", "sampler")(path, times, **options)

    reference = exact.SAMPLERS[f"{name}__traj"]
    if kind in ("DDIMScheduler", "DDPMScheduler"):
        np.testing.assert_allclose(times[:-1] * 1000 - 1, exact.SAMPLERS[f"{name}__timesteps"], atol=1e-9)
    # In the variance-exploding form x_t / alpha is what moves.
    scale = np.asarray(path.alpha(times)) if kind in EXPLODING else np.ones(len(times))
    if kind in ("HeunDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"):  # without the half steps
        reference = np.concatenate([reference[:1], reference[2::2], reference[-1:]])
    found = exact.walk(sampler, denoise, jnp.asarray(reference[0] * scale[0]), jnp.asarray(exact.SAMPLERS["noise"]))
    found = found / scale[:, None, None]
    if kwargs.get("variance_type") == "fixed_large" and kwargs["timestep_spacing"] == "trailing":
        # The library adds noise to its last step unless that is the table's first; ours ends in the mean.
        mean = denoise(jnp.asarray(found[-2]), times[-2]).x0
        np.testing.assert_allclose(found[-1], mean, atol=1e-12)
        found, reference = found[:-1], reference[:-1]
    np.testing.assert_allclose(found, reference, atol=1e-8 * max(1.0, np.abs(reference).max()))


CONTINUOUS = [key for key in exact.SAMPLERS.files if key.startswith("continuous__g") and key.endswith("__final")]


@pytest.mark.parametrize("key", CONTINUOUS)
def test_the_continuous_schedule_equals_the_reference(key):
    _, data, _, method, skip, calls, _ = key.split("__")
    mixture = exact.MIXTURE if data == "gmm2d" else exact.GAUSSIAN
    start = exact.SAMPLERS["x_T" if data == "gmm2d" else "gauss8d_x_T"]
    path = schedule("continuous_linear")
    grid = {"time_uniform": "linear", "logSNR": "log_snr"}[skip]
    times = GRIDS[grid](path, int(calls), to_data=False)
    np.testing.assert_allclose(times, exact.SAMPLERS[f"continuous__timesteps__{skip}__{calls}"], atol=1e-9)
    module, options = ("ddim", {}) if method == "multistep1" else ("dpmpp_2m", {"lower_order_final": False})
    sampler = select("latent.diffusion.samplers", module, "sampler", "sampler")(path, times, **options)
    found = exact.walk(sampler, exact.denoiser(mixture, path), jnp.asarray(start))
    np.testing.assert_allclose(found[-1], exact.SAMPLERS[key], atol=1e-8)
    whole = key.replace("__final", "__traj")
    if whole in exact.SAMPLERS:
        np.testing.assert_allclose(found, exact.SAMPLERS[whole], atol=1e-8)


def test_the_continuous_schedule_has_the_reference_levels():
    path = schedule("continuous_linear")
    t = jnp.asarray(exact.SAMPLERS["continuous__schedule_t"])
    level = 2 * exact.SAMPLERS["continuous__schedule_lambda"]
    np.testing.assert_allclose(jnp.log(path.alpha(t)), exact.SAMPLERS["continuous__schedule_log_alpha"], atol=1e-12)
    np.testing.assert_allclose(path.log_snr(t), level, atol=1e-9)
    np.testing.assert_allclose(path.time(jnp.asarray(level)), t, atol=1e-9)
