"""Whether a computation may stand inside a compiled loop: steps of a training, of a sampler, of a search. Knows
programs, not what they compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr


def rollable(function: Callable[..., Any], *arguments: Any) -> bool:
    """Whether function(*arguments) may stand inside scan, while or cond: everywhere but on CPU with convolutions, which
    XLA:CPU runs 5 to 13 times slower there than outside."""
    return jax.default_backend() != "cpu" or rollable_program(jax.make_jaxpr(function)(*arguments))


def rollable_program(program: ClosedJaxpr) -> bool:
    """`rollable`, of a function that is traced already."""
    if jax.default_backend() != "cpu":
        return True
    text = str(program)
    return not ("conv_general_dilated" in text or "convolution" in text)  # ours: latent/nets/conv.py
