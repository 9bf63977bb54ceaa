"""Many runs as one: states that differ in seed and hparams, stacked, and one step over all of them.

Pure functions of arrays, on top of the step of one run, which is not written again. `step` is one scalar that all
members share, so that players and schedules which follow it stay what they are in one program; components that another
run trained are shared too; everything else has a leading axis of members.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from latent.step import StepFn
from latent.types import State


def axes(state: State, shared: Sequence[str]) -> State:
    """Which axis of a leaf belongs to the members: 0, or None where all share it (`step` and the components `shared`).

    A tree prefix of the stacked state.
    """
    components = lambda tree: {name: None if name in shared else 0 for name in tree}  # noqa: E731
    return State(
        step=None, params=components(state.params), extra=components(state.extra), opt=0, ema=0, hparams=0, halted=0
    )


def over(axes: State, function: Callable[..., Any], *trees: State) -> State:
    """function(axis, leaf of each tree) for every leaf of trees that `axes` is a prefix of."""
    each = lambda axis, *parts: jax.tree.map(lambda *leaves: function(axis, *leaves), *parts)  # noqa: E731
    return jax.tree.map(each, axes, *trees, is_leaf=lambda node: node is None)


def stack(axes: State, states: Sequence[State]) -> State:
    """The states of members at the same step, on the host, as one."""
    return over(axes, lambda axis, *leaves: np.asarray(leaves[0]) if axis is None else np.stack(leaves), *states)


def pick(axes: State, state: State, number: Any) -> State:
    """What of the stacked state one member's step reads."""
    return over(axes, lambda axis, leaf: leaf if axis is None else leaf[number], state)


def member(axes: State, state: State, number: int) -> State:
    """One member's state. A member that was halted stands at the step it was halted at, as a run of its own would."""
    mine = pick(axes, state, number)
    return mine._replace(step=np.where(mine.halted < 0, mine.step, mine.halted))


def lift(axes: State, mapped: bool) -> Callable[[StepFn], StepFn]:
    """The step of one run -> the step of stacked states, seeds [M] and raw batches [M, B, ...]; metrics are [M].

    `mapped`: by vmap. Otherwise the members are unrolled, one after another in the same program: on CPU a convolution
    whose kernels have an axis of members is several times slower than as many convolutions (latent/loops.py).
    """
    own_step = axes._replace(step=0)  # what a step returns: a halted member keeps its own, the others count on

    def lifted(step: StepFn) -> StepFn:
        def together(state: State, seeds: Any, raw_batches: Any, phase: int | None = None):
            one = lambda *arguments: step(*arguments, phase)  # noqa: E731
            if mapped:
                new, metrics = jax.vmap(one, in_axes=(axes, 0, 0), out_axes=(own_step, 0))(state, seeds, raw_batches)
            else:
                parts = [
                    one(pick(axes, state, number), *take((seeds, raw_batches), number))
                    for number in range(seeds.shape[0])
                ]
                join = lambda axis, *leaves: leaves[0] if axis is None else jnp.stack(leaves)  # noqa: E731
                new = over(own_step, join, *(new for new, _ in parts))
                metrics = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(metrics for _, metrics in parts))
            return new._replace(step=state.step + 1), metrics

        return together

    return lifted


def take(tree: PyTree, number: Any) -> PyTree:
    """Element `number` of every leaf."""
    return jax.tree.map(lambda leaf: leaf[number], tree)
