"""Augmentations: what each may do to an image, how often it does, and exact gradients through it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent.adversarial import augmentation
from latent.adversarial import losses as adversarial

COUNT, SIDE = 400, 16
KEYS = jax.random.split(jax.random.key(0), COUNT)
IMAGES = jnp.float32(np.random.default_rng(0).uniform(-1, 1, size=(COUNT, SIDE, SIDE, 3)))
augment = jax.jit(augmentation.augment)


def each(function):
    return np.asarray(jax.jit(jax.vmap(function))(IMAGES, KEYS))


def test_probability_0_is_the_identity():
    np.testing.assert_array_equal(augment(IMAGES, KEYS, 0.0), IMAGES)


def test_each_augmentation_is_chosen_by_itself_for_each_image():
    """Of three independent choices; one in 25 translations is by no pixel at all."""
    probability = 0.3
    changed = np.any(augment(IMAGES, KEYS, probability) != IMAGES, axis=(1, 2, 3)).mean()
    expected = 1 - (1 - probability) ** 2 * (1 - probability * 24 / 25)
    assert changed == pytest.approx(expected, abs=3 * np.sqrt(expected * (1 - expected) / COUNT))


def test_an_image_does_not_depend_on_its_batch():
    np.testing.assert_allclose(augment(IMAGES, KEYS, 1.0)[3:5], augment(IMAGES[3:5], KEYS[3:5], 1.0), atol=1e-6)


def test_translation_shifts_by_up_to_an_eighth_and_fills_with_zeros():
    reach, found = SIDE // 8, each(augmentation.translation)
    padded = np.pad(IMAGES, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    seen = set()
    for number in range(COUNT):
        shifts = [
            (down, right)
            for down in range(-reach, reach + 1)
            for right in range(-reach, reach + 1)
            if np.array_equal(
                found[number],
                padded[number, reach - down : reach - down + SIDE, reach - right : reach - right + SIDE],
            )
        ]
        assert len(shifts) == 1
        seen |= set(shifts)
    assert len(seen) == (2 * reach + 1) ** 2


def test_cutout_blanks_one_clipped_square_and_nothing_else():
    found = each(augmentation.cutout)
    blank = np.all(found == 0.0, axis=3)
    np.testing.assert_array_equal(np.where(blank[..., None], IMAGES, found), IMAGES)
    rows, columns = blank.any(axis=2), blank.any(axis=1)
    np.testing.assert_array_equal(blank, rows[:, :, None] & columns[:, None, :])
    assert {rows.sum(axis=1).max(), columns.sum(axis=1).max()} == {SIDE // 2}
    assert rows.sum(axis=1).min() >= SIDE // 4
    assert rows.mean(axis=0).min() > 0.1  # it reaches the border on both sides


def test_colour_moves_the_mean_and_scales_about_it():
    """Brightness alone moves the mean; saturation scales the distance from grey, contrast all of it."""
    found, images = each(augmentation.colour), np.asarray(IMAGES)
    shift = found.mean(axis=(1, 2, 3)) - images.mean(axis=(1, 2, 3))
    assert -0.5 <= shift.min() < -0.4 and 0.4 < shift.max() <= 0.5
    grey = lambda x: x.mean(axis=3) - x.mean(axis=(1, 2, 3))[:, None, None]  # noqa: E731
    contrast = grey(found).std(axis=(1, 2)) / grey(images).std(axis=(1, 2))
    assert 0.5 <= contrast.min() < 0.6 and 1.4 < contrast.max() <= 1.5
    tint = lambda x: x - x.mean(axis=3, keepdims=True)  # noqa: E731
    saturation = tint(found).std(axis=(1, 2, 3)) / tint(images).std(axis=(1, 2, 3)) / contrast
    assert 0.0 <= saturation.min() < 0.1 and 1.9 < saturation.max() <= 2.0001


def test_the_penalty_through_augmentations_is_exact_and_differentiable():
    """For a linear critic w: |A' w|^2, A the Jacobian of the augmentation; and its gradient with respect to w."""
    x, keys = IMAGES[:3, :8, :8], KEYS[:3]
    w = jnp.float32(np.random.default_rng(1).normal(size=x[0].size))
    seen = lambda y: augmentation.augment(y, keys, 1.0).reshape(3, -1)  # noqa: E731
    penalty = lambda v: adversarial.squared_gradient(lambda y: seen(y) @ v, x)  # noqa: E731
    one = lambda image, key: augmentation.augment(image[None], key[None], 1.0).reshape(-1)  # noqa: E731
    jacobians = jax.jit(jax.vmap(jax.jacobian(one)))(x, keys).reshape(3, w.size, w.size)
    pulled = np.einsum("bio,i->bo", jacobians, w)
    np.testing.assert_allclose(jax.jit(penalty)(w), np.sum(pulled**2, axis=1), rtol=1e-4)
    gradient = jax.jit(jax.grad(lambda v: jnp.sum(penalty(v))))(w)
    np.testing.assert_allclose(gradient, 2 * np.einsum("bio,bo->i", jacobians, pulled), rtol=1e-3, atol=1e-3)


def test_ada_moves_towards_its_target_and_stays_a_probability():
    adapted = lambda p, signs: float(augmentation.adapted(jnp.float32(p), jnp.float32(signs), 0.6, 100))  # noqa: E731
    knows, guesses = [1.0] * 10, [1.0, -1.0] * 5
    assert adapted(0.5, knows) == pytest.approx(0.6)
    assert adapted(0.5, guesses) == pytest.approx(0.4)
    assert adapted(0.95, knows) == 1.0 and adapted(0.05, guesses) == 0.0
    assert adapted(0.5, [1.0] * 8 + [-1.0] * 2) == pytest.approx(0.5)  # r_t is the target
