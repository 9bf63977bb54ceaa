"""What XLA:CPU makes of the forms in conv_primitives.py; their values are compared with lax's in test_conv.py."""

import os

import jax
import jax.numpy as jnp
import pytest

from latent.nets import conv_primitives
from latent.nets.conv import conv

LIBRARY = "ynn"
"""What XLA calls the operations that it gives to the library that computes most convolutions on one core."""


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(conv_primitives, "cores_of_a_device", lambda: 2)


def compiled(channels, features, side=8, kernel=3, padding="SAME"):
    shapes = [
        jax.ShapeDtypeStruct(shape, jnp.float32)
        for shape in ((2, side, side, channels), (kernel, kernel, channels, features))
    ]
    return jax.jit(lambda x, k: conv(x, k, 1, padding, backend="cpu")).lower(*shapes).compile().as_text()


@pytest.mark.parametrize(("channels", "features"), [(16, 64), (64, 16), (64, 128)])
def test_the_library_for_one_core_gets_no_convolution_that_all_cores_compute_faster(channels, features):
    assert LIBRARY not in compiled(channels, features)


@pytest.mark.parametrize(("channels", "features"), [(64, 4), (4, 64), (128, 128)])
def test_it_gets_those_that_it_computes_faster(channels, features):
    assert LIBRARY in compiled(channels, features)


def test_no_more_is_computed_for_nothing_than_a_quarter():
    """Of "VALID" with three lines or columns missing 12 are a quarter."""
    assert conv_primitives.MOST_FOR_NOTHING == 0.25
    assert LIBRARY not in compiled(16, 32, side=14, padding="VALID")
    assert LIBRARY in compiled(16, 32, side=13, padding="VALID")


def test_where_every_device_has_one_core_the_library_gets_them_all(monkeypatch):
    monkeypatch.setattr(conv_primitives, "cores_of_a_device", lambda: 1)
    assert LIBRARY in compiled(64, 64)


def test_devices_share_the_cores_of_the_process(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(16), raising=False)
    monkeypatch.setattr(jax, "local_device_count", lambda: 4)
    assert conv_primitives.cores_of_a_device() == 4
