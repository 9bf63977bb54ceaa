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


def stirred(net, *inputs, scale=0.1):
    """Parameters about as large as initial ones, none of them zero, and nothing to compile for them."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)["params"]
    paths, structure = jax.tree_util.tree_flatten_with_path(shapes)

    def leaf(seed, path, shape):
        if path[-1].key == "kernel":
            return draw(*shape, seed=seed) / np.sqrt(np.prod(shape[:-1]))
        return (path[-1].key == "scale") + scale * draw(*shape, seed=seed)

    return structure.unflatten([leaf(i, path, each.shape) for i, (path, each) in enumerate(paths)])


def count(params):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
