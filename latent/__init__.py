"""Latent-space generative models in JAX. Start with `latent/types.py`; `latent.load` opens a trained run."""

from __future__ import annotations

from typing import Any

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # Lazy, so that importing a part (a schedule, a net) does not import checkpoints and configs.
    if name == "load":
        from latent.run import load

        return load
    raise AttributeError(f"module 'latent' has no attribute {name!r}")
