"""The variational bound of pixels under a diffusion model of pixels."""

from __future__ import annotations

from typing import Any

from latent.evaluation_data import EvaluationData
from latent.metrics import diffusion_likelihood, passport
from latent.types import Model, State

needs = {"likelihoods.vlb"}


def names(options: Any) -> tuple[str, ...]:
    """Names of the results; UserError for options that make no sense."""
    diffusion_likelihood.check("vlb", options)
    return ("vlb_bits_per_dim",)


def run(model: Model, state: State, data: EvaluationData, options: Any) -> list[passport.Result]:
    """Bits a dimension with `options.steps` steps (latent/diffusion/densities.py), of `options.limit` examples."""
    return [diffusion_likelihood.result("vlb", names(options)[0], state, data, options)]
