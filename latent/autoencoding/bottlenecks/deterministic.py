"""z is the encoder's output: the plain autoencoder, and the encoder of WAE, RAE and AAE."""

from __future__ import annotations

from typing import Any

from latent.autoencoding.contract import Bottleneck, Code


def bottleneck(section: Any, latent_shape: tuple[int, ...]) -> Bottleneck:
    """Reads nothing from the config."""

    def encode(params: Any, extra: Any, heads: Any, keys: Any, num_samples: int) -> Code:
        return Code(heads["code"], heads["code"][:, None], None, {}, {})

    return Bottleneck(("code",), encode)
