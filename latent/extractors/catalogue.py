"""Every feature extractor by name: the LeNets that ship, raw pixels, and networks whose weights lie on this machine."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType

from latent.errors import unknown_name
from latent.extractors import inception, lenet, pixels
from latent.extractors.contract import Extractor

PRETRAINED = ("efficientnet_lite0", "inception", "vgg16")
"""Modules of this package with `load()` and `require(key)`; they see images of any size."""


def names() -> list[str]:
    """All that there can be."""
    return [pixels.NAME, *lenet.names(), *PRETRAINED]


def require(key: str, name: str) -> None:
    """Raises UserError, naming the config key, unless there is such an extractor and its weights are here."""
    if name in PRETRAINED:
        _module(name).require(f"{key}={name!r}")
    elif name not in names():
        raise unknown_name(key, name, names())


def knows_classes(name: str) -> bool:
    """Whether the extractor classifies."""
    return name not in (pixels.NAME, "vgg16")


def has_published_scores(name: str) -> bool:
    """Whether a distance on this extractor has the name that the literature gives it (FID, KID, Inception score): on
    the published weights of Inception only."""
    return name == inception.NAME and inception.is_published()


def load(name: str, shape: Sequence[int]) -> Extractor:
    """The extractor of that name, for examples of `shape` where it is "pixels"."""
    if name in PRETRAINED:
        return _module(name).load()
    return pixels.load(tuple(shape)) if name == pixels.NAME else lenet.load(name)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"latent.extractors.{name}")
