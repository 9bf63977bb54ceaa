"""Multilayer perceptrons of gated layers, (W x + b) * sigmoid(V x + c): those of Tomczak & Welling (2018, arXiv
1705.07120) and Norouzi et al. (2020, arXiv 2004.04795). `model.net.activation` is not read."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import numpy as np

from latent.nets import mlp


def encoder(section: Any, shape: tuple[int, ...], heads: tuple[tuple[str, int], ...]) -> nn.Module:
    """Builds the encoder from `section.hidden`."""
    return mlp.Encoder(_both(section), nn.glu, heads)


def decoder(section: Any, shape: tuple[int, ...], output_bias: np.ndarray) -> nn.Module:
    """Builds the mirror of the encoder."""
    return mlp.Decoder(_both(section)[::-1], nn.glu, shape, mlp.constant(output_bias))


def latent_shape(section: Any, shape: tuple[int, ...], latent_dim: int) -> tuple[int, ...]:
    """The shape of one latent: a vector."""
    return (latent_dim,)


def _both(section: Any) -> tuple[int, ...]:
    """Widths of values and gates together: one product makes both."""
    return tuple(2 * width for width in mlp.widths(section, "hidden"))
