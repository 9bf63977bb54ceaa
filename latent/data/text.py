"""Captions as numbers: the words of a training split, and any text as its words' places in that list.

A vocabulary follows from the training captions alone, so a prepared set needs no more than its captions and a run that
knows its data set can read a prompt. There is no number for an unknown word, which is left out: where every caption
comes twice (emoji, in two styles) no training example would hold that number, and its row of an embedding would stay
the noise it began as.
"""

from __future__ import annotations

import collections
import difflib
import logging
import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int

from latent.errors import UserError

NONE = -1
"""Where a text holds no further word."""

LEAST = 2
"""How often the training captions must hold a word."""

WORD = re.compile(r"[^\W_]+(?:[-'][^\W_]+)*")
"""Letters and digits, with hyphens and apostrophes (of either kind) between them: "medium-light", "o'clock"."""

log = logging.getLogger(__name__)


def words(text: str) -> list[str]:
    """The words of a text, in order, in lower case."""
    return WORD.findall(unicodedata.normalize("NFC", text).lower().replace("\u2019", "'"))


def vocabulary(captions: Iterable[str]) -> tuple[str, ...]:
    """Every word that the captions hold at least twice, the most frequent first, equals in order of the alphabet."""
    counts = collections.Counter(word for caption in captions for word in words(caption))
    known = (word for word, count in counts.items() if count >= LEAST)
    return tuple(sorted(known, key=lambda word: (-counts[word], word)))


def numbers(texts: Iterable[str], known: Sequence[str], length: int = 1) -> Int[np.ndarray, "N T"]:
    """The places of every text's words in the list `known`, in order, without the words it does not hold.

    Rows end with `NONE`, at least `length` long and as long as the longest text.
    """
    place = {word: number for number, word in enumerate(known)}
    rows = [[place[word] for word in words(text) if word in place] for text in texts]
    found = np.full((len(rows), max([length, *map(len, rows)])), NONE, np.int32)
    for row, places in zip(found, rows, strict=True):
        row[: len(places)] = places
    return found


def prompts(texts: Sequence[str], known: Sequence[str]) -> Int[np.ndarray, "N T"]:
    """`numbers` of what a user asks for; an empty text asks for nothing in particular.

    One line of the log names the words that are left out and the nearest known ones. Raises UserError naming the text
    of which nothing would be left.
    """
    unknown = list(dict.fromkeys(word for text in texts for word in words(text) if word not in known))
    for text in texts:
        if text.strip() and not any(word in known for word in words(text)):
            reason = f"none of its words is known: {_beside_nearest(words(text), known)}" if words(text) else "no words"
            raise UserError(f"--prompt={text!r}: {reason}.")
    if unknown:
        log.warning("--prompt: left out, for no training caption holds it: %s.", _beside_nearest(unknown, known))
    return numbers(texts, known)


def _beside_nearest(unknown: Sequence[str], known: Sequence[str]) -> str:
    """ "hart (nearest: heart, hare), xyzzy"."""
    near = {word: difflib.get_close_matches(word, known, n=3, cutoff=0.6) for word in dict.fromkeys(unknown)}
    return ", ".join(f"{word} (nearest: {', '.join(found)})" if found else word for word, found in near.items())
