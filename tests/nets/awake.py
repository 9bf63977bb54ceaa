"""Parameters of a net whose zero-initialised layers have been moved off zero, so that every path of it counts.

Made by numpy: op by op, JAX compiles a program for every shape, 20 ms each.
"""

import jax
import numpy as np

from tests.harness import key


def draw(*shape, seed=0):
    return jax.device_put(_normal(shape, seed))


def _normal(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def initialise(net, *inputs):
    return jax.jit(net.init)(key(0), *inputs)["params"]


def apply(net, params, *inputs):
    return jax.jit(lambda params, *inputs: net.apply({"params": params}, *inputs))(params, *inputs)


def awake(params, scale=0.1):
    """The parameters plus noise: none of them is zero any more."""
    leaves, structure = jax.tree.flatten(params)
    moved = [leaf + np.float32(scale) * _normal(leaf.shape, i) for i, leaf in enumerate(jax.device_get(leaves))]
    return jax.device_put(structure.unflatten(moved))


def stirred(net, *inputs, scale=0.1):
    """Parameters about as large as initial ones, none of them zero, and nothing to compile for them."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)["params"]
    paths, structure = jax.tree_util.tree_flatten_with_path(shapes)

    def leaf(seed, path, shape):
        if path[-1].key == "kernel":
            return _normal(shape, seed) / np.sqrt(np.prod(shape[:-1]), dtype=np.float32)
        return np.float32(path[-1].key == "scale") + np.float32(scale) * _normal(shape, seed)

    return jax.device_put(structure.unflatten([leaf(i, path, each.shape) for i, (path, each) in enumerate(paths)]))


def count(params):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
