"""emoji: 7,572 colour pictures of 64x64 pixels, 3,786 emoji in two art styles, with English names as captions.

One emoji comes in two styles and in up to 26 forms of skin tone. Splits are cut by the code point of the base emoji,
so that none of them is seen in training and tested in another form.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from latent.data import images
from latent.data.arrays import Split
from latent.data.dataset import Source
from latent.errors import UserError

STYLES = {"google": "emoji-datasource-google", "twitter": "emoji-datasource-twitter"}
"""Art styles and the npm packages that hold them."""

NAMES = "emojibase-data"
ARCHIVES = {
    "emoji-datasource-google": ("16.0.0", "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"),
    "emoji-datasource-twitter": ("16.0.0", "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877"),
    NAMES: ("17.0.0", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a"),
}
"""npm packages: version and SHA-256 of the archive that `npm pack` writes."""

GROUPS = (
    "Smileys & Emotion",
    "People & Body",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
    "Symbols",
    "Flags",
    "Component",
)
"""The labels, Unicode's groups; `Component` are five swatches of skin tone in each style."""

TONES = ("1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF")
SIDE = 64


class Picture(NamedTuple):
    """One emoji in one style. `base` is the code point without skin tones, `tone` 0 where it has none or several."""

    base: str
    group: int
    style: int
    tone: int
    caption: str
    pixels: UInt8[np.ndarray, "64 64 3"]


def read(directory: Path | None) -> dict[str, Split]:
    """The three splits from the archives of three npm packages: 80% train, 10% validation, 10% test of the emoji."""
    if directory is None:
        packages = " ".join(f"{name}@{version}" for name, (version, _) in ARCHIVES.items())
        raise UserError(f"--from=DIRECTORY is required: `npm pack {packages}` in it makes the three files.")
    files = {name: _verified(directory, name) for name in ARCHIVES}
    names = _names(files[NAMES])
    pictures = [
        picture
        for style, package in enumerate(STYLES.values())
        for picture in _pictures(files[package], list(STYLES)[style], style, names)
    ]
    bucket = np.array([_bucket(base) for base in _families(pictures)])
    chosen = {"train": bucket >= 2, "validation": bucket == 1, "test": bucket == 0}
    return {split: _split([pictures[row] for row in np.flatnonzero(rows)]) for split, rows in chosen.items()}


def _verified(directory: Path, package: str) -> bytes:
    version, expected = ARCHIVES[package]
    path = directory / f"{package}-{version}.tgz"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"--from={directory}: there is no {path.name}; `npm pack {package}@{version}` makes it.") from (
            error
        )
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise UserError(f"{path} is damaged or another version: SHA-256 {found[:12]}, expected {expected[:12]}.")
    return data


def _names(archive: bytes) -> dict[str, str]:
    """The English name of every emoji by its code points; the variation selector FE0F is left out, as sources differ
    in where they write it."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        entries = json.load(_member(files, "package/en/data.json"))
    every = [form for entry in entries for form in (entry, *entry.get("skins", ()))]
    return {_plain(form["hexcode"]): form["label"] for form in every}


def _pictures(archive: bytes, style: str, number: int, names: dict[str, str]) -> Iterator[Picture]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        for entry in json.load(_member(files, "package/emoji.json")):
            for form in (entry, *entry.get("skin_variations", {}).values()):
                tones = [tone for tone in form["unified"].split("-") if tone in TONES and form is not entry]
                yield Picture(
                    base=entry["unified"],
                    group=GROUPS.index(entry["category"]),
                    style=number,
                    tone=1 + TONES.index(tones[0]) if len(set(tones)) == 1 else 0,
                    caption=names[_plain(form["unified"])],
                    pixels=images.decoded(_member(files, f"package/img/{style}/{SIDE}/{form['image']}")),
                )


def _member(files: tarfile.TarFile, name: str) -> Any:
    found = files.extractfile(name)
    assert found is not None
    return found


def _plain(code: str) -> str:
    return code.replace("-FE0F", "")


def _families(pictures: list[Picture]) -> list[str]:
    """The base of every picture, with one name for bases that share a picture (flags of territories that fly their
    country's): they must not be parted either."""
    families: dict[str, str] = {}
    seen: dict[bytes, str] = {}

    def first(base: str) -> str:
        while families.setdefault(base, base) != base:
            base = families[base]
        return base

    for picture in pictures:
        mine, other = first(picture.base), first(seen.setdefault(picture.pixels.tobytes(), picture.base))
        families[max(mine, other)] = min(mine, other)
    return [first(picture.base) for picture in pictures]


def _bucket(base: str) -> int:
    return int.from_bytes(hashlib.sha256(base.encode()).digest()[:8]) % 10


def _split(pictures: list[Picture]) -> Split:
    """The pictures in an order that carries nothing: the first N are a random sample."""
    order = np.random.default_rng(0).permutation(len(pictures))
    chosen = [pictures[row] for row in order]
    return Split(
        x=np.stack([picture.pixels for picture in chosen]),
        label=np.array([picture.group for picture in chosen], np.int32),
        factors=np.array([(picture.style, picture.tone) for picture in chosen], np.int32),
        caption=np.array([picture.caption for picture in chosen]),
    )


SOURCE = Source(
    version="1.0.0",
    shape=(SIDE, SIDE, 3),
    dtype=np.uint8,
    num_classes=len(GROUPS),
    factors={"style": len(STYLES), "tone": 1 + len(TONES)},
    captioned=True,
    card={
        "title": "Emoji in the styles of Noto and Twemoji, with English names",
        "source": "npm " + ", ".join(f"{name} {version}" for name, (version, _) in ARCHIVES.items()),
        "licence": "Noto Emoji: Apache-2.0; Twemoji: CC BY 4.0; names: MIT (emojibase), after Unicode CLDR",
        "attribution": "Google (Noto Emoji); Twitter, Inc. and other contributors (Twemoji)",
        "splits": "by SHA-256 of the base emoji's code point, 80/10/10; labels are Unicode's ten groups: "
        + ", ".join(GROUPS),
    },
    read=read,
)
