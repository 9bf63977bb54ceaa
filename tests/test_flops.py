"""Operations are counted as often as they run, and their rate is logged; MFU only where a device's peak is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from latent import build, config, flops, logs
from latent.logs import Timing
from latent.nets import conv
from latent.train import train

PRODUCT = 2 * 8 * 16 * 16


def chained(length, unroll=1):
    def function(x, w):
        return lax.scan(lambda carry, _: (carry @ w, None), x, None, length=length, unroll=unroll)[0]

    return function


def counted(function):
    shapes = jax.ShapeDtypeStruct((8, 16), jnp.float32), jax.ShapeDtypeStruct((16, 16), jnp.float32)
    return flops.of_program(jax.make_jaxpr(function)(*shapes))


@pytest.mark.parametrize(
    ("function", "products"),
    [
        (lambda x, w: x @ w, 1),
        (chained(6), 6),
        (chained(7, unroll=3), 7),
        (chained(4, unroll=4), 4),
        (lambda x, w: chained(3)(jax.jit(chained(2))(x, w), w) @ w, 6),
        (lambda x, w: lax.scan(lambda c, _: (chained(5)(c, w) @ w, None), x, None, length=3)[0], 18),
    ],
)
def test_loops_count_as_often_as_they_run(function, products):
    assert counted(function) == products * PRODUCT


def test_of_branches_the_largest_counts():
    branches = lambda x, w: lax.cond(x[0, 0] > 0, lambda: x @ w @ w, lambda: x @ w)  # noqa: E731
    assert counted(branches) == 2 * PRODUCT


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize(
    ("operation", "padding", "pairs"),
    [
        # Offsets that meet a pixel, along one axis: 3 + 3 + 3 + 2 of four windows, and of the eight of the other.
        (conv.conv, "SAME", 11),
        (conv.conv, "VALID", 9),
        (conv.conv_transpose, "SAME", 8 * 3 - 1),
        (conv.conv_transpose, "VALID", 8 * 3),
    ],
)
def test_a_convolution_and_both_gradients_multiply_each_weight_with_each_pixel_it_meets(
    backend, operation, padding, pairs
):
    x, kernel = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32), jax.ShapeDtypeStruct((3, 3, 3, 5), jnp.float32)
    forward = lambda x, kernel: operation(x, kernel, 2, padding, backend=backend)  # noqa: E731
    gradients = jax.grad(lambda x, kernel: jnp.sum(forward(x, kernel) ** 2), argnums=(0, 1))
    products = 2 * 2 * pairs**2 * 3 * 5
    assert flops.of_program(jax.make_jaxpr(forward)(x, kernel)) == products
    assert flops.of_program(jax.make_jaxpr(gradients)(x, kernel)) == 3 * products


def test_a_step_of_a_vae_takes_three_products_of_each_kernel_but_the_first():
    built = build.build(
        build.resolved(
            config.load("configs/vae.py:tiny", {"model.net.hidden": (200,), "train.batch_size": 128}).to_dict()
        )
    )
    batch, pixels, latents = 128, 64, 2
    kernels = (pixels * 200, 2 * 200 * latents, latents * 200, 200 * pixels)
    assert flops.of_step(build.one_cycle(built), 1) == 2 * batch * (3 * sum(kernels) - kernels[0])


def test_peaks_are_found_by_the_longest_beginning():
    assert flops.peak("NVIDIA H100 80GB HBM3", "bf16") == 989e12
    assert flops.peak("NVIDIA H100 PCIe", "bf16") == 756e12
    assert flops.peak("NVIDIA A100-SXM4-80GB", "float32") == 156e12
    assert flops.peak("TPU v5 lite", "bf16") == 197e12 and flops.peak("TPU v5p", "bf16") == 459e12
    assert flops.peak("cpu", "float32") is None


def test_performance_is_operations_over_seconds_over_the_peak():
    assert Timing(100, 0.5, 0.0).performance() == {} == Timing(0, 0.0, 0.0, 1e9, 1e12).performance()
    assert Timing(100, 0.5, 0.0, 1e9).performance() == {"perf/flops_per_step": 1e9, "perf/flops_per_second": 2e11}
    assert Timing(100, 0.5, 0.0, 1e9, 1e12).performance()["perf/mfu"] == pytest.approx(0.2)


@pytest.mark.slow
def test_a_run_logs_its_rate_and_traces_a_few_steps(tmp_path, capsys):
    changes = {"train.steps": 8, "train.steps_per_dispatch": 1, "eval.metrics": (), "checkpoint.best_metric": ""}
    assert train(config.load("configs/vae.py:tiny", changes).to_dict(), tmp_path, profile=True) == 0
    last = [line for line in logs.read(tmp_path / logs.FILE) if line["split"] == "train"][-1]
    assert last["perf/flops_per_second"] == pytest.approx(last["perf/flops_per_step"] * last["steps_per_second"])
    assert "perf/mfu" not in last  # nobody's peak is known for a CPU
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert f"3 dispatches traced: {tmp_path / 'profile'}" in capsys.readouterr().out
