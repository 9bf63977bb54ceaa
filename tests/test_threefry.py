"""The generator behind every noise: known answers, and no loop in what is compiled."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32

from latent import rng, threefry

ONES = 0xFFFFFFFF
KNOWN = {  # the Random123 library's own known answers for threefry2x32 of 20 rounds: counter, key, result
    "zeros": ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    "ones": ((ONES, ONES), (ONES, ONES), (0x1CB996FC, 0xBB002BE7)),
    "pi": ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_answers(name):
    counter, key, expected = (np.array(words, np.uint32) for words in KNOWN[name])
    written_out = threefry.threefry2x32(*(jnp.asarray(word) for word in (*key, *counter)))
    np.testing.assert_array_equal(np.asarray(written_out), expected)
    # And of JAX's own primitive, whose lowering this is on CPU.
    np.testing.assert_array_equal(jax.jit(threefry_2x32)((key[0], key[1]), counter), expected)


def test_noise_is_compiled_without_a_loop():
    keys = jax.eval_shape(lambda: rng.sample_keys(0, np.arange(4)))
    text = jax.jit(lambda keys: rng.normal(keys, 3)).lower(keys).as_text()
    assert "shift_left" in text
    assert "while" not in text
