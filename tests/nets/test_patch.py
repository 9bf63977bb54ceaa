"""The patch critic: a score per patch that sees its patch alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent.config import Section
from latent.errors import UserError
from latent.nets import patch
from tests.nets.awake import draw, initialise


def build(shape, channels=(4, 8), **options):
    return patch.critic(Section({"name": "patch", "channels": channels}), shape, **options)


@pytest.mark.parametrize(
    ("side", "channels", "scores"),
    [(8, (4,), 4), (8, (4, 4), 2), (28, (4, 4), 7), (28, (4, 4, 4), 4), (64, (4, 4, 4), 8), (256, (4, 4, 4), 32)],
)
def test_every_size_gives_a_grid_of_scores(side, channels, scores):
    net = build((side, side, 3), channels)
    x = jnp.zeros((1, side, side, 3))
    found = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), x)[0])
    assert {name: score.shape for name, score in found.items()} == {"score": (1, scores, scores, 1)}


@pytest.mark.parametrize(("channels", "field"), [((4,), 16), ((4, 4), 34)])
def test_a_score_sees_its_patch_alone(channels, field):
    """The gradient of one score is nonzero in a square of the documented side, and zero outside: nothing is
    normalised over the image or the batch."""
    net, x = build((64, 64, 1), channels), draw(2, 64, 64, 1)
    params = initialise(net, x)
    middle = 32 // 2 ** len(channels)
    gradient = jax.jit(jax.grad(lambda x: net.apply({"params": params}, x)["score"][0, middle, middle, 0]))(x)
    seen = np.asarray(gradient)[..., 0] != 0
    rows, columns = np.flatnonzero(seen[0].any(1)), np.flatnonzero(seen[0].any(0))
    assert rows[-1] - rows[0] + 1 == field and columns[-1] - columns[0] + 1 == field
    assert not seen[1].any()


def test_its_signal_keeps_its_size():
    """Without a norm, the initial weights have to: scores of unit images are of order one, at every depth."""
    for channels in ((64,), (64, 64, 64)):
        net, x = build((32, 32, 3), channels), draw(4, 32, 32, 3)
        scores = jax.jit(net.apply)({"params": initialise(net, x)}, x)["score"]
        assert 0.2 < float(jnp.sqrt(jnp.mean(scores**2))) < 3.0


def test_a_gradient_penalty_can_be_trained():
    net, x = build((8, 8, 1), (4,)), draw(3, 8, 8, 1)
    params = initialise(net, x)
    score = lambda p, x: jnp.sum(net.apply({"params": p}, x)["score"])  # noqa: E731
    penalty = lambda p: jnp.sum(jax.grad(score, argnums=1)(p, x) ** 2)  # noqa: E731
    gradients = jax.jit(jax.grad(penalty))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert float(jnp.abs(gradients["score"]["kernel"]).max()) > 0


def test_heads_have_their_names_and_channels():
    net, x = build((8, 8, 1), (4,), heads=(("score", 1), ("embedding", 5))), draw(2, 8, 8, 1)
    found = jax.jit(net.apply)({"params": initialise(net, x)}, x)
    assert {name: value.shape for name, value in found.items()} == {"score": (2, 4, 4, 1), "embedding": (2, 4, 4, 5)}


@pytest.mark.parametrize(
    ("shape", "channels", "words"),
    [
        ((6,), (4,), r"needs images \[H, W, C\]"),
        ((8, 8, 1), (4, 4, 4), "model.net.channels=.* after 3 halvings an image of 8x8"),
        ((8, 8, 1), (), "model.net.channels"),
    ],
)
def test_impossible_requests_are_refused(shape, channels, words):
    with pytest.raises(UserError, match=words):
        build(shape, channels)
