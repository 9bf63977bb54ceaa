"""What every section of a report looks at, gathered once: examples, codes, copies, samples, training images.

Runs the model through `latent.run.Run` alone, so that a report needs nothing a notebook has not got.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from latent import pictures
from latent.analysis import clusters
from latent.errors import UserError
from latent.run import Run

BATCH = 250
"""Codes decoded at a time: one compiled program for all sections."""

SAMPLES = 500
"""Samples drawn; sections show the first of them."""

TRAIN = 20_000
"""Training examples that samples are compared with."""


class Evidence:
    """A run and one of its splits, `limit` examples of it; what is expensive is computed when first asked for.

    `rows` are the places of the examples in the split: all, or a subset that is the same every time. `sections` are
    those that are shown. `other` is a run to compare with, of the same split of the same data.
    """

    def __init__(self, run: Run, split: str, limit: int, sections: Sequence[str], other: Run | None = None):
        if limit < 20:
            raise UserError(f"--limit={limit} must be at least 20: fewer examples make no map.")
        if other is not None:
            told = [one.data(split).protocol["data_sha256"] for one in (run, other)]
            if told[0] != told[1]:
                raise UserError(
                    f"--against={other.workdir} has other examples in its {split} split than {run.workdir}."
                )
        self.sections, self.other = tuple(sections), other
        self.run, self.split, self.model, self.spec, self.config = run, split, run.model, run.spec, run.config
        size = len(run.data(split).split.x)
        chosen = np.random.default_rng(0).permutation(size)[:limit]
        self.rows: Int[np.ndarray, "N"] = np.sort(chosen).astype(np.int32)
        self.split_size = size
        self.is_image = pictures.is_image(self.spec)

    @functools.cached_property
    def examples(self) -> dict[str, np.ndarray]:
        """x, label, index and, where the set has them, factors."""
        return self.run.examples(self.split, rows=self.rows)

    @property
    def x(self) -> Float[np.ndarray, "N ..."]:
        """The examples as the model sees them."""
        return self.examples["x"]

    @property
    def label(self) -> Int[np.ndarray, "N"] | None:
        """Their classes; None where the set has none."""
        return self.examples["label"] if self.spec.num_classes else None

    @functools.cached_property
    def codes(self) -> dict[str, np.ndarray] | None:
        """What encode_split gives, "mean" and "sample" flattened to vectors; None without an encoder."""
        if self.model.encode is None:
            return None
        found = self.run.encode_split(self.split, rows=self.rows)
        flat = lambda z: z.reshape(len(z), -1)  # noqa: E731
        return {**found, "mean": flat(found["mean"]), "sample": flat(found["sample"])}

    @functools.cached_property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one code."""
        if self.model.encode is not None:
            return tuple(self.run.encode(self.x[:1]).mean.shape[1:])
        return (self.config["model"]["latent_dim"],)

    @functools.cached_property
    def copies(self) -> Float[np.ndarray, "N ..."] | None:
        """The examples' reconstructions from their mean codes; None for a family that has none."""
        if self.codes is None or self.model.decode is None:
            return None
        return self.decode(self.codes["mean"])

    @functools.cached_property
    def error(self) -> Float[np.ndarray, "N"] | None:
        """Mean squared error of every reconstruction."""
        if self.copies is None:
            return None
        return np.mean((self.copies - self.x).reshape(len(self.x), -1) ** 2, axis=1, dtype=np.float64)

    @functools.cached_property
    def cluster(self) -> Int[np.ndarray, "N"] | None:
        """The k-means cluster of every code, as many clusters as classes, 10 where there are none."""
        return None if self.codes is None else clusters.k_means(self.codes["mean"], self.spec.num_classes or 10)

    @functools.cached_property
    def space(self) -> Float[np.ndarray, "N d"] | None:
        """Codes that the decoder is used to: draws of q(z | x) over the examples, or of the normal prior of a decoder
        without an encoder; None without a decoder."""
        if self.model.decode is None:
            return None
        if self.codes is not None:
            return self.codes["sample"]
        return np.random.default_rng(0).normal(size=(1000, *self.latent_shape)).astype(np.float32)

    def decode(self, z: Float[np.ndarray, "... d"]) -> Float[np.ndarray, "..."]:
        """Flattened codes to examples, batch after batch of one size."""
        flat = np.asarray(z, np.float32).reshape(-1, z.shape[-1])
        found = []
        for start in range(0, len(flat), BATCH):
            part = flat[start : start + BATCH]
            padded = np.concatenate([part, np.zeros((BATCH - len(part), part.shape[1]), np.float32)])
            found.append(np.asarray(self.run.decode(padded.reshape(BATCH, *self.latent_shape)))[: len(part)])
        joined = np.concatenate(found)
        return joined.reshape(*z.shape[:-1], *joined.shape[1:])

    @functools.cached_property
    def sample_classes(self) -> Int[np.ndarray, "S"] | None:
        """The class that sample i was asked to be: i modulo the number of classes; None for an unconditional model."""
        return np.arange(SAMPLES, dtype=np.int32) % self.model.classes if self.model.classes else None

    @functools.cached_property
    def samples(self) -> Float[np.ndarray, "S ..."] | None:
        """Samples of the model, not selected; None for a family that cannot."""
        if self.model.sample is None:
            return None
        return np.asarray(self.run.sample(SAMPLES, 0, self.sample_classes))

    @functools.cached_property
    def train(self) -> Float[np.ndarray, "M ..."]:
        """Training examples, prepared as in evaluation: the first TRAIN."""
        return self.run.examples("train", TRAIN)["x"]

    @property
    def family(self) -> str:
        """The family's name, for people."""
        return self.config["model"]["name"].replace("_", " ")

    def without(self, function: str) -> str:
        """A sentence that says why what needs a function of the model is not shown."""
        if function == "decode" and self.model.classes and self.model.sample is not None:
            return "This model makes an example from noise and a class, not from a code alone."
        verbs = {"encode": "has no encoder", "decode": "has no decoder", "sample": "draws no samples"}
        told, model = f"This {self.family} {verbs[function]}", self.config["model"]
        if function == "encode" and model.get("first_stage"):
            return f"{told}: its codes are those of its first stage, {model['first_stage']}, which has its own report."
        if function == "encode" and "inversion" in model:
            return f"{told}; a run with model.inversion.steps above 0 finds codes by search."
        return f"{told}."
