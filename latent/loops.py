"""Whether a computation may stand inside a compiled loop: steps of a training, of a sampler, of a search. Knows
programs, not what they compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def rollable(function: Callable[..., Any], *arguments: Any) -> bool:
    """Whether function(*arguments) may stand inside scan, while or cond: everywhere but on CPU with convolutions, which
    XLA:CPU runs 5 to 13 times slower there than outside."""
    if jax.default_backend() != "cpu":
        return True
    program = str(jax.make_jaxpr(function)(*arguments))
    return not ("conv_general_dilated" in program or "convolution" in program)  # ours: latent/nets/conv.py
