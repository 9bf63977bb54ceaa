"""U-ViT: published sizes, the long skips, and what it refuses."""

import jax
import jax.numpy as jnp
import pytest

from latent.config import Section
from latent.errors import UserError
from latent.nets import uvit
from tests.nets.awake import count, draw, stirred

TINY = {
    "name": "uvit",
    "patch": 2,
    "width": 8,
    "depth": 5,
    "heads": 2,
    "qk_norm": False,
    "self_conditioning": False,
}


def build(shape, num_classes=0, **changes):
    return uvit.denoiser(Section(TINY | changes), shape, num_classes)


@pytest.mark.parametrize(
    ("depth", "width", "heads", "millions"),
    [(13, 512, 8, 44), (17, 768, 12, 131), (21, 1024, 16, 287), (29, 1152, 16, 501)],
    ids=["S/2", "M/2", "L/2", "H/2"],
)
def test_the_papers_sizes_have_the_papers_parameters(depth, width, heads, millions):
    """Table 1 of Bao et al. 2023, on latents of 256x256 ImageNet; our biases and time perceptron make the rest."""
    net = build((32, 32, 4), 1000, depth=depth, width=width, heads=heads)
    x, t = jax.ShapeDtypeStruct((2, 32, 32, 4), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.float32)
    y, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), x, t)
    assert y.shape == x.shape
    assert count(variables["params"]) / 1e6 == pytest.approx(millions, rel=0.03)


def test_skips_join_the_first_layer_with_the_last():
    """With the last layer's view of its own input cut off, all that is left came over the skip from the first."""
    net, inputs = build((4, 4, 2)), (draw(2, 4, 4, 2), jnp.linspace(0.2, 0.9, 2))
    params = stirred(net, *inputs, scale=0.3)
    last = params["out"]["skip"]
    assert last["kernel"].shape == (2, 16, 8)
    params["out"]["skip"] = {**last, "kernel": last["kernel"].at[1, :8].set(0.0)}
    apply = jax.jit(lambda params: net.apply({"params": params}, *inputs))
    y = apply(params)

    def moved(part, layer):
        """How much the output moves with a bias of one layer."""
        bias = params[part]["contract"]["bias"].at[layer].add(1.0)
        other = {**params[part], "contract": {**params[part]["contract"], "bias": bias}}
        return float(jnp.abs(apply({**params, part: other}) - y).max())

    assert moved("in", 0) > 1e-2
    assert moved("in", 1) == moved("middle", ...) == 0.0


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        ((6,), {}, "needs grids"),
        ((5, 4, 2), {}, "patch=2 must divide"),
        ((4, 4, 2), {"depth": 4}, "depth=4 must be odd"),
        ((4, 4, 2), {"depth": 1}, "depth=1 must be odd and at least 3"),
        ((4, 4, 2), {"heads": 3}, "heads=3"),
    ],
)
def test_what_does_not_fit_is_refused(shape, changes, message):
    with pytest.raises(UserError) as caught:
        build(shape, **changes)
    assert message in str(caught.value)
