"""State, the training step over a model's players, and its diagnosis: pure functions of arrays.

Nothing here knows a family, a device count, a file or a config. A step takes the raw batch, lets every player move
in order, averages the weights and counts; when a loss or a gradient is not finite it keeps the whole old state and
marks it as halted (law 11), with no message to the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Integer, PyTree

from latent import rng
from latent.optim import Average, Optimizer, update_average
from latent.types import Batch, Context, Extra, Hparams, Loss, Model, Params, Player, PrepareFn, Seed, State

StepFn = Callable[..., tuple[State, dict[str, Any]]]


class Recipe(NamedTuple):
    """Everything a training step is made of, besides arrays.

    `prepare` turns a raw batch into what the model sees (scaling, augmentation, binarisation). `microbatches` is
    gradient accumulation: the batch is walked in that many parts. `axis` names the device axis of a per-device
    step; None means that the batch is already the global one.
    """

    model: Model
    optimizers: Mapping[str, Optimizer]
    averages: Mapping[str, Average]
    prepare: PrepareFn
    microbatches: int = 1
    axis: str | None = None


def owned(tree: Mapping[str, Any], player: Player) -> dict[str, Any]:
    """The components of `tree` (params or extra) that the player owns."""
    return {name: tree[name] for name in player.owns if name in tree}


def all_owned(tree: Mapping[str, Any], model: Model) -> dict[str, Any]:
    """The components of `tree` that any player owns: what moves, what is averaged."""
    return {name: value for player in model.players for name, value in owned(tree, player).items()}


def init_state(recipe: Recipe, hparams: Hparams, seed: Seed, batch: Batch) -> State:
    """The state before the first step, for a prepared `batch`. Run it under jit: eagerly it compiles op by op."""
    params, extra = recipe.model.init(rng.init_key(seed), batch)
    moving = {"params": all_owned(params, recipe.model), "extra": all_owned(extra, recipe.model)}
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        extra=extra,
        opt={p.name: recipe.optimizers[p.name].transform.init(owned(params, p)) for p in recipe.model.players},
        ema={name: jax.tree.map(jnp.copy, moving) for name in recipe.averages},
        hparams=jax.tree.map(lambda value: jnp.asarray(value, jnp.float32), dict(hparams)),
        halted=-jnp.ones((), jnp.int32),
    )


def cycle_length(model: Model) -> int:
    """Steps after which the pattern of who moves repeats: lcm of every player's `every`."""
    return math.lcm(*(player.every for player in model.players))


def moves(player: Player, step: Int[Array, ""] | int) -> Bool[Array, ""] | bool:
    """Whether the player moves at `step`: at the last of every `every` steps."""
    return (step + 1) % player.every == 0


def build_step(recipe: Recipe) -> StepFn:
    """Builds step(state, seed, raw_batch, phase=None) -> (state, metrics).

    `metrics` is {player: {"moved": 0 or 1, term: mean over the global batch}}, of the parameters before their
    update. With `phase` None a player with `every > 1` is resolved by `lax.cond`; with an int (the step modulo the
    cycle, known at trace time) it is resolved while tracing and an idle player is absent from the metrics. Both
    give equal values.
    """

    def step(state: State, seed: Seed, raw_batch: Batch, phase: int | None = None):
        new, finite, metrics = state, jnp.bool_(True), {}
        for player in recipe.model.players:
            turn = lambda s, player=player: _turn(recipe, player, s, seed, raw_batch)  # noqa: E731
            if player.every == 1 or (phase is not None and moves(player, phase)):
                new, good, values = turn(new)
            elif phase is not None:
                continue
            else:
                new, good, values = lax.cond(moves(player, state.step), turn, lambda s, t=turn: _idle(t, s), new)
            finite, metrics[player.name] = finite & good, values
        return _commit(recipe, state, new, finite), metrics

    return step


def _idle(turn: Callable[[State], tuple], state: State) -> tuple:
    _, _, shapes = jax.eval_shape(turn, state)
    return state, jnp.bool_(True), jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _turn(
    recipe: Recipe, player: Player, state: State, seed: Seed, raw_batch: Batch
) -> tuple[State, Bool[Array, ""], dict[str, Any]]:
    """One player's update of what it owns; whether its loss and gradient were finite; its metrics."""
    gradient, extra, terms = _gradient(recipe, player, state, seed, raw_batch)
    gradient, terms = _mean(recipe.axis)((gradient, terms))
    optimizer = recipe.optimizers[player.name]
    mine = owned(state.params, player)
    updates, opt = optimizer.transform.update(gradient, state.opt[player.name], mine)
    rate = optimizer.schedule(state.step) * (
        1.0 if optimizer.owns_rate else state.hparams[player.name]["learning_rate"]
    )
    mine = jax.tree.map(lambda p, u: (p - rate * u).astype(p.dtype), mine, updates)
    norm = optax.tree.norm(gradient)
    # The new weights too: a finite gradient times a finite rate can overflow.
    finite = jnp.isfinite(terms["loss"]) & jnp.isfinite(norm) & _all_finite((mine, extra))
    metrics = {**terms, "gradient_norm": norm, "learning_rate": jnp.float32(rate), "moved": jnp.float32(1.0)}
    state = state._replace(
        params={**state.params, **mine}, extra={**state.extra, **extra}, opt={**state.opt, player.name: opt}
    )
    return state, finite, metrics


def _gradient(
    recipe: Recipe, player: Player, state: State, seed: Seed, raw_batch: Batch
) -> tuple[Params, Extra, dict[str, Float[Array, ""]]]:
    """Gradient of the owned params, new owned extra and mean terms, over the local batch in microbatches."""

    def part(extra: Extra, raw: Batch) -> tuple[Params, Extra, dict[str, Float[Array, ""]]]:
        batch, context = prepared(recipe, state, seed, player.name, raw, batch_size)

        def objective(mine: Params) -> tuple[Float[Array, ""], Loss]:
            loss = player.loss({**state.params, **mine}, {**state.extra, **extra}, batch, context)
            return loss.objective, loss

        gradient, loss = jax.grad(objective, has_aux=True)(owned(state.params, player))
        means = {name: jnp.mean(term) for name, term in loss.terms.items()}
        return gradient, owned(loss.extra, player), {"loss": loss.objective, **means}

    extra, parts = owned(state.extra, player), []
    batch_size = len(raw_batch["position"]) * _devices(recipe.axis)
    # Unrolled: a handful of microbatches, and a convolution inside a rolled loop is 5-13 times slower on CPU.
    for raw in _split(raw_batch, recipe.microbatches):
        gradient, extra, terms = part(extra, raw)
        parts.append((gradient, terms))
    gradient, terms = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *parts)
    return gradient, extra, terms


def prepared(
    recipe: Recipe, state: State, seed: Seed, player: str, raw_batch: Batch, batch_size: int | None = None
) -> tuple[Batch, Context]:
    """The batch, or a part of it, as a player's loss sees it at this step, and the loss's context."""
    positions = raw_batch["position"]
    data_streams = rng.training_stream(seed, state.step, "data", positions)
    context = Context(
        keys=rng.training_stream(seed, state.step, player, positions),
        step=state.step,
        hparams=state.hparams,
        train=True,
        mean=_mean(recipe.axis),
        gather=_gather(recipe.axis),
        batch_size=batch_size,
    )
    return recipe.prepare(raw_batch, data_streams, True), context


def _commit(recipe: Recipe, old: State, new: State, finite: Bool[Array, ""]) -> State:
    """Averages the weights and counts the step, or keeps the old state and marks it."""
    moving = {"params": all_owned(new.params, recipe.model), "extra": all_owned(new.extra, recipe.model)}
    ema = {
        name: update_average(old.ema[name], moving, average.decay(old.step))
        for name, average in recipe.averages.items()
    }
    new = new._replace(ema=ema, step=old.step + 1)
    running = old.halted < 0
    halted = jnp.where(running & ~finite, old.step, old.halted)
    # What no player owns (a frozen first stage) is the same array in both: selecting it would only copy it.
    keep = lambda n, o: n if n is o else jnp.where(running & finite, n, o)  # noqa: E731
    return jax.tree.map(keep, new, old)._replace(halted=halted)


def _mean(axis: str | None) -> Callable[[PyTree], PyTree]:
    return (lambda tree: tree) if axis is None else (lambda tree: lax.pmean(tree, axis))


def _gather(axis: str | None) -> Callable[[PyTree], PyTree]:
    return (lambda tree: tree) if axis is None else (lambda tree: lax.all_gather(tree, axis, tiled=True))


def _devices(axis: str | None) -> int:
    return 1 if axis is None else lax.axis_size(axis)


def _split(tree: PyTree, parts: int) -> list[PyTree]:
    if parts == 1:
        return [tree]
    leaves, structure = jax.tree.flatten(tree)
    split = [leaf.reshape(parts, -1, *leaf.shape[1:]) for leaf in leaves]
    return [structure.unflatten([leaf[i] for leaf in split]) for i in range(parts)]


def build_dispatch(
    recipe: Recipe,
    fetch: Callable[[PyTree, PyTree], Batch],
    num_steps: int,
    rolled: bool,
    phase: int = 0,
    lift: Callable[[StepFn], StepFn] = lambda step: step,
) -> StepFn:
    """Builds dispatch(state, seed, resident, inputs) -> (state, metrics): several steps as one program.

    `inputs` has a leading axis of `num_steps`; fetch(resident, inputs[i]) is the raw batch. Rolled: a `lax.scan`
    with players resolved by `cond`. Unrolled: plain repetition with players fixed at trace time, starting at
    `phase` of the cycle. Metrics are those of the last step, so that they do not depend on the dispatch's length.
    `lift` turns the step of one run into what is repeated (population.py: the step of many).
    """
    step = lift(build_step(recipe))
    cycle = cycle_length(recipe.model)

    def dispatch(state: State, seed: Seed | Integer[Array, "M"], resident: PyTree, inputs: PyTree):
        if rolled:
            state, history = lax.scan(lambda s, i: step(s, seed, fetch(resident, i)), state, inputs)
            return state, jax.tree.map(lambda values: values[-1], history)
        metrics: dict[str, Any] = {}
        for number in range(num_steps):
            raw_batch = fetch(resident, jax.tree.map(lambda leaf, n=number: leaf[n], inputs))
            state, metrics = step(state, seed, raw_batch, (phase + number) % cycle)
        return state, metrics

    return dispatch


def diagnose(recipe: Recipe, state: State, seed: Seed, raw_batch: Batch, phase: int) -> dict[str, Bool[Array, ""]]:
    """Whether each part of one step is finite, in the order in which a step computes them: the state's components,
    the batch, then for each moving player its terms, loss, gradient by component and learning rate."""
    report: dict[str, Any] = {}
    for part in ("params", "extra", "opt", "hparams"):
        report |= {f"{part}/{name}": value for name, value in getattr(state, part).items()}
    report["batch"] = prepared(recipe, state, seed, "data", raw_batch)[0]
    for player in recipe.model.players:
        if not moves(player, phase):
            continue
        gradient, _, terms = _gradient(recipe, player, state, seed, raw_batch)
        state, _, metrics = _turn(recipe, player, state, seed, raw_batch)
        report |= {f"{player.name}/terms/{name}": value for name, value in terms.items() if name != "loss"}
        report[f"{player.name}/loss"] = terms["loss"]
        report |= {f"{player.name}/gradient/{name}": value for name, value in gradient.items()}
        report[f"{player.name}/learning_rate"] = metrics["learning_rate"]
    return {name: _all_finite(value) for name, value in report.items()}


def _all_finite(tree: PyTree) -> Bool[Array, ""]:
    # By its sum, which is finite only where every element is: half the passes over an array, and a sum beyond the
    # largest float counts as infinite, as that of a norm does.
    leaves = [jnp.isfinite(jnp.sum(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(leaves)) if leaves else jnp.bool_(True)
