"""Both forms of the convolutions agree with lax and flax, to second order and under every transformation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from latent.errors import UserError
from latent.nets.conv import Conv, ConvTranspose, conv, conv_of_upsampled, conv_transpose
from latent.nets.conv_primitives import UNROLLED_MEMBERS
from tests.harness import thinned

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
OURS = {"strided_convolution", "transposed_convolution", "kernel_correlation"}

# kernel, stride, padding, image, channels in, channels out. Six channels: more than FEW_CHANNELS, which stride 1 minds;
# sixteen: as many as PATCHES asks for.
CASES = [
    ((3, 3), (1, 1), "SAME", (5, 6), 2, 6),
    ((3, 3), (1, 1), "VALID", (5, 6), 6, 1),
    ((4, 4), (2, 2), "SAME", (8, 8), 1, 6),
    ((4, 4), (2, 2), "SAME", (7, 5), 6, 3),
    ((4, 4), (2, 2), "VALID", (9, 6), 6, 6),
    ((3, 3), (2, 2), "SAME", (7, 6), 6, 6),
    ((3, 3), (2, 2), "VALID", (6, 6), 6, 2),
    ((5, 5), (2, 2), "SAME", (6, 7), 3, 6),
    ((5, 5), (1, 1), "SAME", (4, 4), 2, 5),
    ((4, 4), (4, 4), "SAME", (8, 10), 5, 6),
    ((5, 4), (4, 2), "VALID", (9, 9), 5, 6),
    ((2, 2), (3, 3), "SAME", (5, 7), 5, 6),
    ((3, 5), (2, 1), ((1, 1), (2, 2)), (7, 6), 5, 6),
    ((4, 3), (2, 2), ((0, 3), (2, 0)), (6, 7), 5, 6),
    ((3, 3), (2, 2), ((4, 3), (3, 5)), (5, 4), 5, 6),
    ((3, 3), (2, 2), 1, (7, 7), 6, 6),
    ((4, 4), (2, 2), ((-1, 1), (1, -1)), (9, 8), 5, 6),
    ((3, 3), (1, 1), "SAME", (5, 6), 2, 16),
    ((4, 4), (2, 2), ((-1, 1), (1, -1)), (9, 8), 3, 16),
    ((4, 3), (2, 1), ((0, 3), (2, 0)), (6, 7), 1, 16),
    ((1, 1), (1, 1), "SAME", (4, 5), 3, 6),
    ((1, 1), (2, 2), "SAME", (5, 4), 6, 6),
    ((1, 1), (2, 2), ((1, 0), (0, 2)), (5, 4), 6, 2),
    ((6, 5), (2, 1), ((0, 3), (2, 0)), (6, 7), 3, 6),
    ((4, 3), (1, 1), ((5, -1), (0, 3)), (6, 7), 5, 6),
]


def lax_conv(x, kernel, stride, padding):
    padding = [(padding, padding)] * 2 if isinstance(padding, int) else padding
    return lax.conv_general_dilated(x, kernel, stride, padding, dimension_numbers=DIMENSIONS)


def lax_conv_transpose(x, kernel, stride, padding):
    padding = [(padding, padding)] * 2 if isinstance(padding, int) else padding
    return lax.conv_transpose(x, kernel, stride, padding, dimension_numbers=DIMENSIONS)


PAIRS = {
    "conv": (lambda *a: conv(*a, backend="cpu"), lax_conv),
    "conv_transpose": (lambda *a: conv_transpose(*a, backend="cpu"), lax_conv_transpose),
}


def draw(*shape, seed=0):
    return jax.device_put(np.random.default_rng(seed).standard_normal(shape, np.float32))  # nothing to compile


def draw_case(case, batch=3):
    kernel, _, _, image, channels, features = case
    return draw(batch, *image, channels), draw(*kernel, channels, features, seed=1)


def assert_close(got, want, tolerance):
    """Equal up to `tolerance` of the largest entry."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max() + 1e-30)


def bounded(function, case):
    """A scalar of a convolution that is not quadratic, so that its second derivatives depend on everything."""
    return lambda x, kernel: jnp.sum(jnp.sin(function(x, kernel, *case[1:3])))


def primitives(jaxpr):
    names = set()
    for equation in jaxpr.eqns:
        names.add(equation.primitive.name)
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "jaxpr") or hasattr(leaf, "eqns")
        ):
            if hasattr(inner, "jaxpr"):
                names |= primitives(inner.jaxpr)
            elif hasattr(inner, "eqns"):
                names |= primitives(inner)
    return names


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("case", thinned(CASES, [*CASES[1::2], CASES[24]]), ids=str)
def test_values_and_gradients_equal_lax(name, case):
    x, kernel = draw_case(case)
    ours, reference = PAIRS[name]

    def outputs(function, x, kernel):
        return function(x, kernel, *case[1:3]), jax.grad(bounded(function, case), (0, 1))(x, kernel)

    both = jax.jit(lambda *arrays: (outputs(ours, *arrays), outputs(reference, *arrays)))
    (y, gradients), (wanted_y, wanted_gradients) = both(x, kernel)
    assert_close(y, wanted_y, 1e-5)
    assert_close(gradients, wanted_gradients, 1e-4)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("case", thinned([CASES[i] for i in (0, 3, 4, 9, 13, 18, 21, 23, 24)], CASES[1::2]), ids=str)
def test_reverse_over_reverse_equals_lax(name, case):
    x, kernel = draw_case(case, batch=2)

    def penalised(function, x, kernel):  # gradient penalty in x (R1) and in the kernel
        def penalty(x, kernel):
            gradients = jax.grad(bounded(function, case), (0, 1))(x, kernel)
            return sum(jnp.sum(jnp.cos(g)) for g in gradients)

        return jax.grad(penalty, (0, 1))(x, kernel)

    got, want = jax.jit(lambda *arrays: tuple(penalised(function, *arrays) for function in PAIRS[name]))(x, kernel)
    assert_close(got, want, 1e-4)


@pytest.mark.parametrize("name", PAIRS)
def test_forward_mode_and_forward_over_reverse_equal_lax(name):
    case = CASES[3]
    x, kernel = draw_case(case, batch=2)
    tangents = (draw(*x.shape, seed=2), draw(*kernel.shape, seed=3))

    def both(function, x, kernel, *tangents):
        scalar = bounded(function, case)
        first = jax.jvp(lambda *a: function(*a, *case[1:3]), (x, kernel), tangents)
        return first, jax.jvp(jax.grad(scalar, (0, 1)), (x, kernel), tangents)

    pair = jax.jit(lambda *arrays: tuple(both(function, *arrays) for function in PAIRS[name]))
    got, want = pair(x, kernel, *tangents)
    assert_close(got, want, 1e-4)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(("case", "members"), [(CASES[5], 3), (CASES[5], UNROLLED_MEMBERS + 1), (CASES[24], 3)])
def test_vmap_over_examples_kernels_and_both(name, case, members):
    x, kernel = draw_case(case, batch=2)
    xs, kernels = draw(members, *x.shape, seed=4), draw(members, *kernel.shape, seed=5)

    def all_maps(function, x, kernel, xs, kernels):
        apply = lambda x, kernel: function(x, kernel, *case[1:3])  # noqa: E731
        gradient = jax.grad(bounded(function, case), (0, 1))
        shared = lambda kernel: jnp.sum(jax.vmap(lambda x: bounded(function, case)(x, kernel))(xs))  # noqa: E731
        return (
            jax.vmap(apply, (1, None), 1)(jnp.moveaxis(xs, 0, 1), kernel),
            jax.vmap(apply, (None, 0))(x, kernels),
            jax.vmap(gradient, (0, None))(xs, kernel),
            jax.vmap(gradient)(xs, kernels),
            jax.grad(shared)(kernel),
        )

    pair = jax.jit(lambda *arrays: tuple(all_maps(function, *arrays) for function in PAIRS[name]))
    got, want = pair(x, kernel, xs, kernels)
    assert_close(got, want, 1e-4)


@pytest.mark.parametrize("name", PAIRS)
def test_gradients_under_pmap_are_those_of_the_whole_batch(name):
    case, devices = CASES[3], jax.local_device_count()
    x, kernel = draw_case(case, batch=2 * devices)
    ours, reference = PAIRS[name]
    step = jax.pmap(
        lambda x, kernel: lax.psum(jax.grad(bounded(ours, case), 1)(x, kernel), "data"),
        axis_name="data",
        in_axes=(0, None),
        out_axes=None,
    )
    got = step(x.reshape(devices, 2, *x.shape[1:]), kernel)
    assert_close(np.asarray(got), np.asarray(jax.jit(jax.grad(bounded(reference, case), 1))(x, kernel)), 1e-4)


def test_eager_calls_and_remat_work():
    case = CASES[3]
    x, kernel = draw_case(case, batch=1)
    scalar = bounded(PAIRS["conv"][0], case)
    want = jax.jit(jax.grad(scalar, 1))(x, kernel)
    assert_close(jax.grad(scalar, 1)(x, kernel), want, 1e-5)
    assert_close(jax.jit(jax.grad(jax.checkpoint(scalar), 1))(x, kernel), want, 1e-5)


def test_a_delta_kernel_shifts():
    x = draw(2, 5, 6, 3)
    kernel = jnp.zeros((3, 3, 3, 3)).at[0, 2].set(jnp.eye(3))  # reads the pixel above and to the right
    y = jax.jit(lambda x: conv(x, kernel, backend="cpu"))(x)
    np.testing.assert_allclose(y[:, 1:, :-1], x[:, :-1, 1:], atol=1e-6)
    assert not y[:, 0].any() and not y[:, :, -1].any()


def test_an_all_ones_kernel_sums_windows():
    x = draw(2, 8, 8, 3)
    y = jax.jit(lambda x: conv(x, jnp.ones((4, 4, 3, 5)), 4, "VALID", backend="cpu"))(x)
    sums = x.reshape(2, 2, 4, 2, 4, 3).sum((2, 4, 5))
    np.testing.assert_allclose(y, np.broadcast_to(sums[..., None], y.shape), atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_one_pixel_stamps_the_transposed_kernel(stride):
    kernel = draw(3, 3, 1, 6)
    x = jnp.zeros((1, 3, 3, 1)).at[0, 1, 1].set(2.0)
    y = jax.jit(lambda x: conv_transpose(x, kernel, stride, "VALID", backend="cpu"))(x)
    reached = slice(stride, stride + 3)
    stamp = np.zeros((2 * stride + 3, 2 * stride + 3, 6))
    stamp[reached, reached] = 2 * kernel[::-1, ::-1, 0]  # lax does not flip the kernel, so its stamp is flipped
    np.testing.assert_allclose(y[0], stamp, atol=1e-6)


def test_the_transposed_convolution_is_the_adjoint():
    x, y, kernel = draw(2, 8, 6, 5), draw(2, 4, 3, 7, seed=2), draw(4, 4, 5, 7, seed=1)
    up = jax.jit(lambda y: conv_transpose(y, kernel[::-1, ::-1].swapaxes(2, 3), 2, backend="cpu"))(y)
    down = jax.jit(lambda x: conv(x, kernel, 2, backend="cpu"))(x)
    np.testing.assert_allclose(jnp.vdot(up, x), jnp.vdot(down, y), rtol=1e-4)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize(("image", "kernel"), [((4, 3), (3, 3)), ((1, 5), (5, 3)), ((3, 2), (1, 1))])
def test_an_upsampled_image_need_not_be_made(image, kernel, backend):
    x, weights = draw(2, *image, 5), draw(*kernel, 5, 4, seed=1)
    bend = draw(2, 2 * image[0], 2 * image[1], 4, seed=2)  # a loss under which every pixel counts differently

    def loss(function):
        return jax.jit(jax.value_and_grad(lambda x, k: jnp.sum(jnp.sin(function(x, k)) * bend), (0, 1)))(x, weights)

    made = loss(lambda x, k: lax_conv(x.repeat(2, 1).repeat(2, 2), k, (1, 1), "SAME"))
    assert_close(loss(lambda x, k: conv_of_upsampled(x, k, backend=backend)), made, 1e-4)


def test_sums_of_a_bfloat16_kernel_are_of_float32():
    """1 + 1/256 + 1/256 is a bfloat16; summed in bfloat16 it stays at 1. Not under jit, where XLA may round later."""
    kernel = jnp.zeros((3, 3, 1, 1), jnp.bfloat16).at[2, 2].set(1.0).at[1, 2].set(1 / 256).at[2, 1].set(1 / 256)
    y = conv_of_upsampled(jnp.ones((1, 3, 3, 1), jnp.bfloat16), kernel, backend="cpu")
    assert float(y[0, 2, 2, 0]) == 1 + 1 / 128  # all three read the same pixel there


def test_what_an_upsampling_convolution_cannot_be():
    x = draw(1, 4, 4, 2)
    with pytest.raises(ValueError, match="odd sides"):
        conv_of_upsampled(x, draw(2, 2, 2, 2))
    for layer in (Conv(2, (3, 3), 2, upsample=True), Conv(2, (3, 3), padding="VALID", upsample=True)):
        with pytest.raises(ValueError, match="upsample=True"):
            layer.init(jax.random.key(0), x)


LAYERS = [(Conv, nn.Conv), (ConvTranspose, nn.ConvTranspose)]


@pytest.mark.parametrize(("ours", "flaxs"), LAYERS)
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize(
    ("stride", "padding", "use_bias"), [(1, "SAME", True), (2, "VALID", False), (2, ((1, 2), (0, 1)), True)]
)
def test_layers_are_interchangeable_with_flax(ours, flaxs, backend, stride, padding, use_bias):
    x, key = draw(2, 7, 6, 3), jax.random.key(9)
    bias = {"bias_init": nn.initializers.normal()}
    layer = ours(6, (4, 3), stride, padding, use_bias, backend=backend, **bias)
    reference = flaxs(6, (4, 3), (stride, stride), padding, use_bias=use_bias, **bias)
    params, wanted = jax.jit(lambda *arguments: (layer.init(*arguments), reference.init(*arguments)))(key, x)
    jax.tree.map(np.testing.assert_array_equal, params, wanted)
    outputs = lambda module, params, x: (module.apply(params, x), module.apply(params, x[0]))  # noqa: E731
    got, want = jax.jit(lambda ours, flaxs, x: (outputs(layer, flaxs, x), outputs(reference, ours, x)))(
        params, wanted, x
    )
    assert_close(got, want, 1e-5)


def test_unnamed_layers_get_flaxs_names():
    class Ours(nn.Module):
        @nn.compact
        def __call__(self, x):
            return ConvTranspose(2, 3, 2)(Conv(2, 3)(x))

    params = jax.jit(Ours().init)(jax.random.key(0), draw(1, 4, 4, 1))["params"]
    assert set(params) == {"Conv_0", "ConvTranspose_0"}


@pytest.mark.parametrize(("ours", "flaxs"), LAYERS)
def test_bfloat16_computes_and_float32_keeps(ours, flaxs):
    x = draw(2, 8, 8, 3)
    layer, reference = ours(6, (4, 4), 2, backend="cpu"), flaxs(6, (4, 4), (2, 2))
    params = jax.jit(layer.init)(jax.random.key(0), x)

    def outputs(apply, params, x):
        loss = lambda params: jnp.mean(apply(params, x).astype(jnp.float32) ** 2)  # noqa: E731
        return apply(params, x), jax.grad(loss)(params)

    narrow = lambda params, x: layer.apply(params, x, dtype=jnp.bfloat16)  # noqa: E731
    both = jax.jit(lambda params, x: (outputs(narrow, params, x), outputs(reference.apply, params, x)))
    (y, got), (want_y, want) = both(params, x)
    assert y.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((params, got)))
    assert_close(y.astype(jnp.float32), want_y, 2e-2)
    assert_close(got, want, 6e-2)


@pytest.mark.parametrize("ours", [Conv, ConvTranspose])
@pytest.mark.parametrize("kernel", [(1, 1), (4, 4)])
def test_other_backends_get_the_plain_lax_form(ours, kernel):
    x = draw(1, 8, 8, 3)

    def names(backend):
        layer = ours(6, kernel, 2, use_bias=False, backend=backend)
        params = jax.jit(layer.init)(jax.random.key(0), x)
        return primitives(jax.make_jaxpr(jax.grad(lambda p: jnp.sum(layer.apply(p, x) ** 2)))(params).jaxpr)

    for backend in ("gpu", "tpu"):
        assert "conv_general_dilated" in names(backend)
        assert not names(backend) & (OURS | {"dot_general", "pad"})
    # On CPU the gradient, too, is made of our forms, or it would be slow again.
    assert "conv_general_dilated" not in names("cpu")
    assert "dot_general" in names("cpu") if kernel == (1, 1) else len(names("cpu") & OURS) == 2


@pytest.mark.parametrize("function", [conv, conv_transpose])
def test_the_default_form_is_that_of_the_default_backend(function, monkeypatch):
    x, kernel = draw(1, 4, 4, 2), draw(3, 3, 2, 2)
    for backend, fast in (("cpu", True), ("gpu", False)):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        names = primitives(jax.make_jaxpr(lambda x, k: function(x, k, 2))(x, kernel).jaxpr)
        assert bool(names & OURS) is fast


@pytest.mark.parametrize("function", [conv, conv_transpose])
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_what_the_user_must_change(function, backend):
    x, kernel = draw(1, 2, 2, 1), draw(4, 4, 1, 1)
    with pytest.raises(UserError, match=r"padding='SMAE' is not known. Did you mean 'SAME'\?"):
        function(x, kernel, 1, "SMAE", backend=backend)
    with pytest.raises(UserError, match="2x2 pixels is too small for a 4x4"):
        function(x, kernel, 1, 0, backend=backend)
