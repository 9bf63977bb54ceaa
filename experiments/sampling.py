"""The flags that say how samples are drawn, shared by experiments.sample and experiments.evaluate."""

from __future__ import annotations

from typing import Any

from absl import flags

from latent.errors import UserError

OF_FAMILIES = (
    flags.DEFINE_float("temperature", None, "Scale of the prior's noise, where the family has one."),
    flags.DEFINE_float("truncation", None, "Largest absolute value in a GAN's z; larger ones are drawn again."),
    flags.DEFINE_string("sampler", None, "Of a diffusion model: ddim, dpmpp_2m, ddpm, heun, euler, unipc, ..."),
    flags.DEFINE_integer("steps", None, "Of a diffusion model: steps of the sampler."),
    flags.DEFINE_string("grid", None, "Of a diffusion model: trailing, leading, linspace, linear, log_snr, karras."),
    flags.DEFINE_float("guidance", None, "Classifier-free guidance; 1: the conditional model, 0: no labels."),
    flags.DEFINE_float("guidance_rescale", None, "Share of the unguided spread that is given back."),
    flags.DEFINE_float("autoguidance", None, "Scale away from the weaker model of model.weak; 1: off."),
    flags.DEFINE_float("classifier_scale", None, "Scale of model.classifier's gradient; 0: off."),
)
INTERVAL = flags.DEFINE_list("guidance_interval", None, "LOW,HIGH: noise levels at which guidance acts.")
DENSITY = flags.DEFINE_string(
    "density", None, "gaussian or mixture:K, fitted to the codes of the training split and drawn from, not the prior."
)


def options() -> dict[str, Any]:
    """The family's options that were given."""
    found = {flag.name: flag.value for flag in OF_FAMILIES if flag.value is not None}
    if INTERVAL.value is not None:
        try:
            found["guidance_interval"] = tuple(float(level) for level in INTERVAL.value)
        except ValueError as error:
            raise UserError(f"--guidance_interval={','.join(INTERVAL.value)} must be LOW,HIGH.") from error
    return found


def applied(run: Any) -> Any:
    """The run with its samples drawn as the flags ask."""
    return (run.with_density(DENSITY.value) if DENSITY.value else run).with_sampling(**options())
