"""Whether a computation may stand inside a compiled loop: steps of a training, of a sampler, of a search. Knows
programs, not what they compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr

from latent.nets import conv_primitives


def rollable(function: Callable[..., Any], *arguments: Any) -> bool:
    """Whether function(*arguments) may stand inside scan, while or cond: everywhere but on CPU with convolutions, which
    XLA:CPU runs 5 to 13 times slower there than outside."""
    return jax.default_backend() != "cpu" or rollable_program(jax.make_jaxpr(function)(*arguments))


def rollable_program(program: ClosedJaxpr) -> bool:
    """`rollable`, of a function that is traced already."""
    return jax.default_backend() != "cpu" or not _convolves(program.jaxpr)


def inside(equation: Any) -> Iterator[Any]:
    """The programs that one equation of a program holds: bodies of loops, branches, functions."""
    for value in jax.tree.leaves(tuple(equation.params.values()), is_leaf=lambda value: hasattr(value, "eqns")):
        program = getattr(value, "jaxpr", value)
        if hasattr(program, "eqns"):
            yield program


def _convolves(program: Any) -> bool:
    """Whether a program holds a convolution, lax's or ours."""
    return any(
        equation.primitive.name == "conv_general_dilated"
        or equation.primitive in conv_primitives.PRIMITIVES
        or any(map(_convolves, inside(equation)))
        for equation in program.eqns
    )
