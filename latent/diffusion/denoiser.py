"""A net as a denoiser: what its output means at a time of a path, alone and under guidance."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent.diffusion import guidance, predictions, schedules
from latent.diffusion.paths import Schedule
from latent.diffusion.predictions import Denoised
from latent.diffusion.schedules import Path
from latent.errors import UserError
from latent.types import Batch, Condition, Extra, Params

DENOISER, WEAK, CLASSIFIER = "denoiser", "weak", "classifier"
"""Components of params: the denoiser, and the two that may guide it, which other runs trained."""

Previous = Float[Array, "B ..."] | None


class Denoiser(NamedTuple):
    """The net, the schedule of the path its x comes from, and the meaning of its output. Its weights are the net's own
    pytree; the path is that of the model's parameters, `schedule.of(params)`. Of a condition it is told the label where
    it is `conditional`, and the text where it `reads_text`.

    With `learns_variance` the net returns twice the channels, of which the second half is `Denoised.variance`.
    """

    net: nn.Module
    schedule: Schedule
    prediction: predictions.Prediction
    conditional: bool
    self_conditioning: bool
    learns_variance: bool
    reads_text: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of a condition that it knows, by name."""
        return ("label",) * self.conditional + ("text",) * self.reads_text

    def told(self, condition: Condition) -> Condition:
        """The part of a condition that it knows."""
        return Condition(condition.label if self.conditional else None, condition.text if self.reads_text else None)

    def told_of(self, batch: Batch) -> Condition:
        """What it is told of examples."""
        return Condition(batch["label"] if self.conditional else None, batch["text"] if self.reads_text else None)

    def output(
        self,
        path: Path,
        weights: Any,
        x: Float[Array, "B ..."],
        t: Float[Array, "B"],
        condition: Condition,
        previous: Previous = None,
    ) -> tuple[Float[Array, "B ..."], Float[Array, "B ..."] | None]:
        """The net at x, scaled to unit variance: its prediction, and where in [-1, 1] it puts the log-variance."""
        scale = predictions.input_scale(path.alpha(t), path.sigma(t))
        inputs = (schedules.expand(scale, x) * x, path.clock(t), self.told(condition), previous)
        output = self.net.apply({"params": weights}, *inputs)
        return tuple(jnp.split(output, 2, axis=-1)) if self.learns_variance else (output, None)

    def __call__(
        self,
        path: Path,
        weights: Any,
        x: Float[Array, "B ..."],
        t: Float[Array, "B"],
        condition: Condition,
        previous: Previous = None,
    ) -> Denoised:
        output, variance = self.output(path, weights, x, t, condition, previous)
        return predictions.denoised(self.prediction, output, x, path.alpha(t), path.sigma(t), variance)


class Guidance(NamedTuple):
    """How a denoiser is guided; the defaults leave it alone.

    classifier_free   scale of classifier-free guidance: 1 the conditional model, 0 neither label nor text
    autoguidance      scale away from a weaker model
    classifier        scale of a classifier's gradient
    interval          (low, high]: the noise levels sigma / alpha at which all three act; () everywhere
    rescale           share of the conditional estimate's spread that is given back afterwards
    """

    classifier_free: float = 1.0
    autoguidance: float = 1.0
    classifier: float = 0.0
    interval: tuple[float, ...] = ()
    rescale: float = 0.0


class Guides(NamedTuple):
    """What may guide besides the denoiser itself: a weaker denoiser, and log p(y | z) of a classifier of clean data,
    (params, extra, z, label) -> [N]."""

    weak: Denoiser | None = None
    log_prob: Callable[[Params, Extra, Array, Array], Float[Array, "N"]] | None = None


def check(asked: Guidance, denoiser: Denoiser, guides: Guides) -> None:
    """Raises UserError for guidance that this model cannot give, naming the flag."""
    scales = {
        "guidance": asked.classifier_free,
        "autoguidance": asked.autoguidance,
        "classifier_scale": asked.classifier,
    }
    for name, scale in scales.items():
        if not math.isfinite(scale):
            raise UserError(f"--{name}={scale} must be finite.")
    if asked.classifier_free != 1.0 and not (denoiser.conditional or denoiser.reads_text):
        raise UserError(
            f"--guidance={asked.classifier_free} needs a model that was trained with model.conditional=True or "
            "model.text=True."
        )
    if asked.autoguidance != 1.0 and guides.weak is None:
        raise UserError(f"--autoguidance={asked.autoguidance} needs a model trained with model.weak=RUN.")
    if asked.classifier and guides.log_prob is None:
        raise UserError(f"--classifier_scale={asked.classifier} needs a model trained with model.classifier=RUN.")
    told = ",".join(f"{level:g}" for level in asked.interval)
    if asked.interval and not (len(asked.interval) == 2 and 0 <= asked.interval[0] < asked.interval[1]):
        raise UserError(f"--guidance_interval={told} must be two noise levels LOW,HIGH with 0 <= LOW < HIGH.")
    if not 0.0 <= asked.rescale <= 1.0:
        raise UserError(f"--guidance_rescale={asked.rescale} must lie in [0, 1].")


def guided(denoiser: Denoiser, guides: Guides, asked: Guidance) -> Callable[..., Denoised]:
    """((params, extra, condition), x, one t, previous estimate) -> Denoised, with everything that was asked for.

    Each guide pushes the conditional estimate away from its own reference; the pushes add up. A weaker denoiser is
    asked on this one's path: on a learned one it is told the level, which both paths have.
    """

    scale, untold = asked.classifier_free, asked.classifier_free == 0.0 and not asked.interval

    def estimate(inputs: Any, x: Float[Array, "N ..."], t: Float[Array, ""], previous: Previous = None) -> Denoised:
        params, extra, condition = inputs
        # Guidance 0 is the model that is told nothing: what else it is asked with it is not told either.
        told = guidance.nothing(condition) if untold else condition
        path = denoiser.schedule.of(params)
        alpha, sigma, times = path.alpha(t), path.sigma(t), jnp.full(len(x), t)
        within = lambda scale: (  # noqa: E731
            guidance.limited_to_interval(scale, alpha, sigma, *asked.interval) if asked.interval else scale
        )
        conditional, found = _classifier_free(
            partial(denoiser, path, params[DENOISER]), x, times, told, previous, 1.0 if untold else scale, within
        )
        if asked.autoguidance != 1.0:
            weak = guides.weak(path, params[WEAK][DENOISER], x, times, told, previous)
            pushed = guidance.autoguidance(conditional, weak, within(asked.autoguidance))
            found = found._replace(
                x0=found.x0 + pushed.x0 - conditional.x0, eps=found.eps + pushed.eps - conditional.eps
            )
        if asked.classifier:
            # The classifier has seen clean data only: it judges what the denoiser makes of x (Bansal et al. 2023).
            clean = lambda y: denoiser(path, params[DENOISER], y, times, told, previous).x0  # noqa: E731
            wanted = lambda y: guides.log_prob(params, extra, clean(y), condition.label)  # noqa: E731
            gradient = guidance.classifier_gradient(wanted, x)
            found = guidance.classifier(found, gradient, alpha, sigma, within(1.0 + asked.classifier) - 1.0)
        if asked.rescale:
            found = guidance.rescaled(found, conditional, x, alpha, sigma, asked.rescale)
        return found

    return estimate


def _classifier_free(
    ask: Callable[..., Denoised], x: Array, t: Array, told: Condition, previous: Previous, scale: float, within: Any
) -> tuple[Denoised, Denoised]:
    """The conditional and the guided estimate, both questions in one batch; scale 1 asks only one."""
    if scale == 1.0 or not jax.tree.leaves(told):
        alone = ask(x, t, told, previous)
        return alone, alone
    null = guidance.nothing(told)
    twice = lambda a: None if a is None else jnp.concatenate([a, a])  # noqa: E731
    both = ask(twice(x), twice(t), jax.tree.map(lambda *parts: jnp.concatenate(parts), told, null), twice(previous))
    first, second = (jax.tree.map(lambda a, s=s: a[s : s + len(x)], both) for s in (0, len(x)))
    return first, guidance.classifier_free(first, second, within(scale))
