"""A net as a denoiser: what its output means at a time of a path, alone and under guidance."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from latent.diffusion import predictions, schedules
from latent.diffusion.guidance import NULL, classifier_free
from latent.diffusion.predictions import Denoised

Labels = Int[Array, "B"] | None
Previous = Float[Array, "B ..."] | None


class Denoiser(NamedTuple):
    """The net, the path its x comes from, and the meaning of its output. Its weights are the net's own pytree."""

    net: nn.Module
    path: schedules.Path
    prediction: predictions.Prediction
    self_conditioning: bool

    def output(
        self, weights: Any, x: Float[Array, "B ..."], t: Float[Array, "B"], label: Labels, previous: Previous = None
    ) -> Float[Array, "B ..."]:
        """The net at x, scaled to unit variance."""
        scale = predictions.input_scale(self.path.alpha(t), self.path.sigma(t))
        return self.net.apply({"params": weights}, schedules.expand(scale, x) * x, t, label, previous)

    def __call__(
        self, weights: Any, x: Float[Array, "B ..."], t: Float[Array, "B"], label: Labels, previous: Previous = None
    ) -> Denoised:
        output = self.output(weights, x, t, label, previous)
        return predictions.denoised(self.prediction, output, x, self.path.alpha(t), self.path.sigma(t))


def guided(
    denoiser: Denoiser,
    weights: Any,
    x: Float[Array, "B ..."],
    t: Float[Array, "B"],
    label: Labels,
    previous: Previous,
    scale: float,
) -> Denoised:
    """Classifier-free guidance with both questions in one batch; scale 1 and 0 ask only one."""
    if label is None or scale == 1.0:
        return denoiser(weights, x, t, label, previous)
    null = jnp.full(len(x), NULL)
    if scale == 0.0:
        return denoiser(weights, x, t, null, previous)
    twice = lambda a: None if a is None else jnp.concatenate([a, a])  # noqa: E731
    both = denoiser(weights, twice(x), twice(t), jnp.concatenate([label, null]), twice(previous))
    half = lambda start: Denoised(*(a[start : start + len(x)] for a in both[:2]))  # noqa: E731
    return classifier_free(half(0), half(len(x)), scale)
