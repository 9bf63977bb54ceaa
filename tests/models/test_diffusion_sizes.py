"""The configs that were never trained here: every one builds, with the sizes its paper states."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent import config, optim
from latent.models import latent_ddpm, vae
from latent.types import DataSpec

FILE = "configs/diffusion_gpu.py"


def built(family, variant, shape, support):
    """The model and its parameters' shapes; nothing is computed."""
    settings = config.load(f"{FILE}:{variant}").to_dict()
    classes = 1000 if "imagenet" in variant else 10
    spec = DataSpec("toy", shape, classes, 50_000, np.zeros(shape, np.float32), support)
    model = family.build(config.Section(settings["model"]), spec)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), {"x": jnp.zeros((1, *shape))})
    for player in model.players:
        optim.optimizer(config.Section(settings["optimizer"])[player.name], "optimizer", settings["train"]["steps"])
    return model, params


@pytest.mark.parametrize(
    ("variant", "shape", "support", "millions"),
    [
        ("imagenet256_dit_b2", (32, 32, 4), "real", 130),  # Peebles & Xie 2023, table 1
        pytest.param("imagenet256_dit_xl2", (32, 32, 4), "real", 675, marks=pytest.mark.slow),
        ("cifar10", (32, 32, 3), "unit", 38),  # DDPM's 35.7 and adaptive normalisation
        pytest.param("cifar10_edm", (32, 32, 3), "unit", 38, marks=pytest.mark.slow),
        ("celeb_a64", (16, 16, 3), "real", None),
    ],
)
def test_denoisers_have_the_sizes_they_state(variant, shape, support, millions):
    model, params = built(latent_ddpm, variant, shape, support)
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert millions is None or round(count / 1e6) == millions
    assert model.sample is not None and set(model.edits) == {"invert", "img2img", "inpaint", "interpolate"}


@pytest.mark.parametrize(
    ("variant", "side", "latents"),
    [("first_stage_celeb_a64", 64, (16, 16, 3)), ("first_stage_imagenet256", 256, (32, 32, 4))],
)
def test_first_stages_have_the_latents_that_are_diffused(variant, side, latents):
    model, params = built(vae, variant, (side, side, 3), "unit")
    x, keys = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32), jax.random.split(jax.random.key(0), 2)
    code = jax.eval_shape(lambda p, x: model.encode(p, {}, x, keys), params, x)
    assert code.mean.shape == (2, *latents)
