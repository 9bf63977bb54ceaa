"""The contract: what a model is, what a training state is, and what the engine asks of both.

Read this file first. Everything here is data: named tuples of arrays and of pure functions. The engine
(`step.py`, `train.py`, `evaluate.py`) works on these types alone and never learns the name of a family; a
family (`models/<family>.py`) returns a `Model` and never learns how many devices, steps or hosts there are.

Shapes use one vocabulary throughout: B examples in the part of the batch that a function sees, N samples,
K importance samples, `...` the shape of one example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Integer, Key, PyTree, Shaped

Params = dict[str, Any]
"""Trainable arrays: a dict of named components ("encoder", "critic", ...), each a pytree."""

Extra = dict[str, Any]
"""Arrays that are not trained by gradient, keyed by component like `Params` (batch statistics, spectral-norm
vectors, codebooks, measured latent statistics)."""

Batch = dict[str, Any]
"""One batch: `x` [B, ...] data in the model's range, `label` [B] int32 (-1 where the set has none), `index` [B]
place in the split, `position` [B] place in the global batch (while training) or in the split (in evaluation).
Where the training split was encoded once (`Model.codes`), training batches have `codes` [B, ...] in the place of `x`.
Where the set has factors of variation (`DataSpec.factors`), `factors` [B, F] int32 are the indices of their values; no
model may need them: they are what its codes are judged by. Where it has captions (`DataSpec.vocabulary`), `text` [B, T]
int32 are the places of their words in the vocabulary, -1 behind the last one."""

Seed = Integer[Array, ""] | np.integer | int
"""A seed: below 2**32, traced or not."""

Indices = Integer[Array | np.ndarray, "B"]
"""Places of examples in a split or in the global batch."""

StreamFn = Callable[[str], Key[Array, "B"]]
"""Name of a random stream -> one key per example, so that noise depends on the example and not on the device."""

PrepareFn = Callable[[Batch, StreamFn, bool], Batch]
"""(raw batch, random streams, training?) -> the batch as a model sees it: scaled, augmented, binarised."""

Hparams = Mapping[str, Mapping[str, Any]]
"""Scalars by player: {"autoencoder": {"learning_rate": ..., "beta": ...}}."""


class Context(NamedTuple):
    """What a loss may know of its surroundings.

    `mean` and `gather` speak of the global batch: `mean` averages a local mean over all devices and `gather`
    concatenates [B, ...] to the whole batch in order (pmean/all_gather under pmap, identity where the batch is
    already global). Every term that couples examples must use them: batch statistics, MMD, total correlation,
    free bits, codebook counts. `batch_size` counts the examples of a training step over all devices and microbatches;
    None where there is no step, in evaluation, and what an example gets may then not depend on others.
    """

    keys: StreamFn
    step: Int[Array, ""]
    hparams: Hparams
    train: bool
    mean: Callable[[PyTree], PyTree]
    gather: Callable[[PyTree], PyTree]
    batch_size: int | None = None


class Loss(NamedTuple):
    """What a player's loss returns.

    `objective` is the mean over the examples this call has seen, never reduced over devices: the engine reduces
    its gradient. `terms` are logged as `<player>/<term>`. `extra` is the new `Extra`; of it the engine keeps the
    components that the player owns.
    """

    objective: Float[Array, ""]
    terms: dict[str, Float[Array, "B"]]
    extra: Extra


LikelihoodFn = Callable[..., Float[Array, "B"]]
"""See `Model.likelihoods`."""

EditFn = Callable[..., dict[str, Array]]
"""See `Model.edits`."""

LossFn = Callable[[Params, Extra, Batch, Context], Loss]


class Player(NamedTuple):
    """Who updates what, with which loss, how often.

    `owns` names top-level keys of `Params` (and of `Extra`): gradients are taken for these only, and nothing else
    changes. Players move in order, each seeing the updates of those before it. A player with `every=k` moves at
    the steps k-1, 2k-1, ...: `critic_steps=k` of the GAN literature is the generator's `every=k`.
    """

    name: str
    owns: tuple[str, ...]
    loss: LossFn
    every: int = 1


class Latent(NamedTuple):
    """What an encoder says of x: the posterior's `mean`, one `sample` (the mean again where encoding is
    deterministic), and whatever else the family knows in `info`, all with a leading B."""

    mean: Float[Array, "B ..."]
    sample: Float[Array, "B ..."]
    info: dict[str, Any]


class Condition(NamedTuple):
    """What a sample is told to be, or an example is said to be: a class and the words of a text. None, a negative class
    and a text without words all stand for nothing told."""

    label: Int[Array | np.ndarray, "N"] | None = None
    text: Int[Array | np.ndarray, "N T"] | None = None

    @classmethod
    def of(cls, told: Condition | Int[Array | np.ndarray, "N"] | None) -> Condition:
        """Classes alone, or nothing, as a condition."""
        return told if isinstance(told, Condition) else cls(told)


UNTOLD = Condition()
"""The condition that tells nothing."""


class Codes(NamedTuple):
    """What training needs of an example where a frozen component is all that looks at it: computed once for the
    training split, it may stand in a batch as `codes` in the place of `x`.

    encode    (params, extra, x [B, ...]) -> [B, ...] float32, of the frozen components of params and extra alone
    identity  what the numbers depend on besides x: digests and settings, for JSON
    """

    encode: Callable[[Params, Extra, Shaped[Array, "B ..."]], Float[Array, "B ..."]]
    identity: Mapping[str, Any]


class Model(NamedTuple):
    """A generative model as pure functions; what a family cannot do is None.

    init        (key, batch) -> (params, extra)
    terms       (params, extra, batch, context) -> {term: [B]}: the evaluation view, built from the same functions
                as the losses
    sample      (params, extra, keys [N], condition [N] or None, **options) -> x [N, ...]; one key a sample, so
                sample i cannot depend on the batch it was made in. It compiles itself, as one program or as steps,
                and keeps what it compiled for each choice of options: callers never put it under `jit`. A condition is
                the classes, or of a model that can be told a text a `Condition`
    encode      (params, extra, x [B, ...], keys [B]) -> Latent
    decode      (params, extra, z [B, ...]) -> x [B, ...], the mean of p(x | z)
    log_weights (params, extra, batch, context, num_samples) -> [K, B]: log p(x, z_k) - log q(z_k | x)
    log_prob    (params, extra, batch, context) -> [B]: exact log p(x)
    log_joint   (params, extra, x [B, ...], z [B, ...]) -> [B]: log p(x, z), nats, differentiable in z
    simulate    (params, extra, keys [N]) -> (x [N, ...], z [N, ...]): exact draws of p(x, z), the law of `log_joint`
    measure     what exp of every bound above is: the "mass" of discrete x, a "density", or "neither" (soft targets)
    likelihoods {name: (params, extra, batch, keys [B], **options) -> [B]}: bits per dimension, bounds or estimates;
                they compile themselves, as `sample` does
    edits       {name: (params, extra, keys [N], x [N, ...], condition [N] or None, **options) -> {"x": [M, ...], ...}}:
                what can be made of given examples; they compile themselves, as `sample` does
    classes     how many classes `sample` can be asked for; 0: none
    text        whether `sample` can be told a text, in words of `DataSpec.vocabulary`
    told        the parts of a `Condition`, by name, that `terms` and `likelihoods` are told of an example
    sample_prior  `sample` of the frozen first stage alone: decoded draws of its own prior, where it has one
    codes       what the losses and `terms` take in the place of x, where a frozen component alone looks at x
    loads       components of params and extra whose arrays another run trained; their config key `model.<name>` names
                its work directory, and no player owns them
    """

    init: Callable[[Key[Array, ""], Batch], tuple[Params, Extra]]
    players: tuple[Player, ...]
    terms: Callable[[Params, Extra, Batch, Context], dict[str, Float[Array, "B"]]]
    sample: Callable[..., Shaped[Array, "N ..."]] | None = None
    encode: Callable[..., Latent] | None = None
    decode: Callable[..., Shaped[Array, "B ..."]] | None = None
    log_weights: Callable[..., Float[Array, "K B"]] | None = None
    log_prob: Callable[..., Float[Array, "B"]] | None = None
    log_joint: Callable[..., Float[Array, "B"]] | None = None
    simulate: Callable[..., tuple[Float[Array, "N ..."], Float[Array, "N ..."]]] | None = None
    measure: str = "neither"
    likelihoods: Mapping[str, LikelihoodFn] = MappingProxyType({})
    edits: Mapping[str, EditFn] = MappingProxyType({})
    classes: int = 0
    text: bool = False
    told: tuple[str, ...] = ()
    sample_prior: Callable[..., Shaped[Array, "N ..."]] | None = None
    codes: Codes | None = None
    loads: tuple[str, ...] = ()


class State(NamedTuple):
    """Exactly what a checkpoint holds: arrays only, no key, function or config inside.

    step     updates done so far, scalar int32
    opt      {player: optax state}
    ema      {average: {"params": ..., "extra": ...}} over the owned components
    hparams  scalars that may differ between members of a population without a new compilation
    halted   -1, or the first step whose loss or gradient was not finite: that step and all later ones keep the
             state as it was before
    """

    step: Int[Array, ""]
    params: Params
    extra: Extra
    opt: dict[str, Any]
    ema: dict[str, Any]
    hparams: dict[str, dict[str, Float[Array, ""]]]
    halted: Int[Array, ""]


class DataSpec(NamedTuple):
    """What a model may know of the data set when it is built: the shape of one example after preprocessing, the
    number of classes (0: unlabelled), the number of training examples, the mean training example in the model's
    range, whether every value of x is 0 or 1 (`binary`), in [0, 1] (`unit`) or any real number (`real`), the number
    of values of every factor of variation by name (empty: the set has none), how many levels x has, 0, 1 / (levels
    - 1), ..., 1 (0: x is no level of an image), and the words that its texts number (empty: it has no captions)."""

    name: str
    shape: tuple[int, ...]
    num_classes: int
    size: int
    mean: np.ndarray
    support: str
    factors: Mapping[str, int] = MappingProxyType({})
    levels: int = 0
    vocabulary: tuple[str, ...] = ()
