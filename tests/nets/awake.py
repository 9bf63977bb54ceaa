"""Parameters of a net whose zero-initialised layers have been moved off zero, so that every path of it counts."""

import jax
import jax.numpy as jnp
import numpy as np


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))  # nothing to compile


def initialise(net, *inputs):
    """Initial parameters. This kind of key compiles several times faster than the default one."""
    return jax.jit(net.init)(jax.random.key(0, impl="rbg"), *inputs)["params"]


def apply(net, params, *inputs):
    return jax.jit(lambda params, *inputs: net.apply({"params": params}, *inputs))(params, *inputs)


def awake(params, scale=0.1):
    """The parameters plus noise: none of them is zero any more."""
    leaves, structure = jax.tree.flatten(params)
    return structure.unflatten([leaf + scale * draw(*leaf.shape, seed=i) for i, leaf in enumerate(leaves)])


def count(params):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
