"""Every feature extractor by name: the LeNets that ship, raw pixels, and networks whose weights lie on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from latent.errors import unknown_name
from latent.extractors import lenet, pixels
from latent.extractors.contract import Extractor


def names() -> list[str]:
    """All there are."""
    return [pixels.NAME, *lenet.names()]


def require(key: str, name: str) -> None:
    """Raises UserError, naming the config key, unless there is such an extractor."""
    if name not in names():
        raise unknown_name(key, name, names())


def load(name: str, shape: Sequence[int]) -> Extractor:
    """The extractor of that name, for examples of `shape` where it is "pixels"."""
    return pixels.load(tuple(shape)) if name == pixels.NAME else lenet.load(name)
