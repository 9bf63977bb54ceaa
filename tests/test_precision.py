"""`train.precision=bf16`, read off the program of a training step: what is computed in bfloat16, and what is not."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent import build, config, precision
from latent.errors import UserError
from latent.step import build_step
from latent.types import Codes
from tests.harness import thinned

CONFIGS = {
    "vae": ("configs/vae.py:tiny", {}),
    "conv vae": (
        "configs/vae.py:tiny",
        {"model.net.name": "convnet", "model.net.channels": (4, 8), "model.net.activation": "relu"},
    ),
    "gan": ("configs/gan.py:tiny", {}),
    "conditional gan": ("configs/gan.py:tiny_conditional", {"model.spectral_norm": False, "model.augment": "none"}),
    "unet": ("configs/diffusion_gpu.py:tiny", {}),
    "dit": ("configs/diffusion_gpu.py:tiny_edm", {"model.net.depth": 2, "model.net.qk_norm": True}),
    "rematerialised dit": ("configs/diffusion_gpu.py:tiny_edm", {"model.net.depth": 2, "model.net.remat": True}),
    "uvit": (
        "configs/latent_ddpm.py:tiny",
        {"model.net.name": "uvit", "model.net.depth": 3, "model.net.qk_norm": True},
    ),
    "residual mlp": (
        "configs/latent_ddpm.py:tiny",
        {"data.name": "mixture_2d", "model.conditional": False, "model.net.name": "residual_mlp", "eval.metrics": ()},
    ),
    "classifier": ("configs/classifier.py:tiny", {}),
}
PRODUCTS = {
    "dot_general",
    "conv_general_dilated",
    "strided_convolution",
    "transposed_convolution",
    "kernel_correlation",
}
WIDE = {"exp", "exp2", "log", "log1p", "rsqrt", "sqrt", "reduce_sum", "reduce_max", "cumsum", "scatter-add"}
"""Softmax and losses, statistics of normalisation, sums."""


def experiment(name, kind):
    path, changes = CONFIGS[name]
    return build.build(build.resolved(config.load(path, {**changes, "train.precision": kind}).to_dict()))


def step_of(name, kind):
    """(experiment, jaxpr of a step in which every player moves, shapes of the new state and the metrics)."""
    built = experiment(name, kind)
    rows = 16
    raw = {"x": jax.ShapeDtypeStruct((rows, *built.spec.shape), built.dataset.splits["train"].x.dtype)}
    raw |= {key: jax.ShapeDtypeStruct((rows,), jnp.int32) for key in ("label", "index", "position")}
    jaxpr, shapes = jax.make_jaxpr(build_step(built.recipe), return_shape=True)(
        built.abstract_state(), np.uint32(0), raw
    )
    return built, jaxpr.jaxpr, shapes


def equations(jaxpr):
    """All equations, those of inner programs included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(tuple(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def floating(variables):
    return {str(v.aval.dtype) for v in variables if jnp.issubdtype(v.aval.dtype, jnp.floating)}


def only_reshapes(equation):
    """A sum over axes of one number, as the gradient of a broadcast leaves behind."""
    axes = equation.params.get("axes", ())
    return equation.primitive.name == "reduce_sum" and all(equation.invars[0].aval.shape[axis] == 1 for axis in axes)


@pytest.mark.parametrize("name", thinned(CONFIGS, {"conv vae", "dit", "uvit", "classifier", "gan"}))
def test_products_are_of_bfloat16_and_all_else_is_float32(name):
    _, jaxpr, (state, metrics) = step_of(name, "bf16")
    found = [(e.primitive.name, floating(e.invars)) for e in equations(jaxpr) if not only_reshapes(e)]
    products = [kinds for primitive, kinds in found if primitive in PRODUCTS]
    assert len(products) > 3 and all(kinds == {"bfloat16"} for kinds in products)
    assert {primitive for primitive, kinds in found if primitive in WIDE and "bfloat16" in kinds} == set()
    assert {leaf.dtype for leaf in jax.tree.leaves((state, metrics)) if jnp.issubdtype(leaf.dtype, jnp.floating)} == {
        jnp.dtype("float32")
    }


@pytest.mark.parametrize("name", ["conv vae", "dit"])
def test_in_float32_there_is_no_bfloat16(name):
    built, jaxpr, _ = step_of(name, "float32")
    kinds = set().union(*(floating((*e.invars, *e.outvars)) for e in equations(jaxpr)))
    assert kinds == {"float32"}
    assert precision.computed(built.recipe.model, "float32") is built.recipe.model


def test_every_function_of_a_model_computes_in_its_precision():
    """Those that a field of `Model` gets later too: what draws data must follow the law that scores them."""
    plain, half = (experiment("vae", kind).recipe.model for kind in ("float32", "bf16"))
    functions = [name for name, value in plain._asdict().items() if callable(value)]
    assert {"simulate", "log_joint", "sample"} <= set(functions)
    for name in functions:
        assert getattr(half, name).__wrapped__.__name__ == getattr(plain, name).__name__
    codes = Codes(lambda params, extra, x: x, {"a": 1})
    coded = precision.computed(plain._replace(codes=codes), "bf16").codes
    assert coded.identity == {"a": 1, "precision": "bf16"} and coded.encode.__wrapped__ is codes.encode


def test_losses_and_what_a_model_returns_are_those_of_float32_within_rounding():
    found = {}
    for kind in ("float32", "bf16"):
        built = experiment("vae", kind)
        state, split = build.initial_state(built), built.dataset.splits["train"]
        places = np.arange(16, dtype=np.int32)
        raw = {"x": split.x[:16], "label": split.label[:16], "index": places, "position": places}
        state, metrics = jax.jit(build_step(built.recipe))(state, np.uint32(0), raw)
        found[kind] = float(metrics[built.recipe.model.players[0].name]["loss"])
        keys = jax.random.split(jax.random.key(0), 2)
        assert jax.eval_shape(built.recipe.model.sample, state.params, state.extra, keys).dtype == jnp.float32
    assert found["bf16"] != found["float32"]
    assert found["bf16"] == pytest.approx(found["float32"], rel=2e-2)


def test_a_precision_that_is_not_known():
    with pytest.raises(UserError, match=r"train\.precision.*bf16"):
        experiment("vae", "fp8")
