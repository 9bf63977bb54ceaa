"""Pictures from files: transparency, depth, orientation, size."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from latent.data import images


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file


@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_by_a_whole_factor_averages(channels):
    x = np.random.default_rng(0).integers(0, 256, (6, 6, channels)).astype(np.uint8)
    blocks = x.reshape(3, 2, 3, 2, channels).mean(axis=(1, 3))
    assert np.abs(images.resized(x, 3).astype(float) - blocks).max() <= 1.0


def test_resizing_keeps_the_central_square():
    x = np.zeros((4, 10, 1), np.uint8)
    x[:, 3:7] = 200
    assert (images.resized(x, 4) == 200).all() and (images.resized(x.transpose(1, 0, 2), 2) == 200).all()


def test_what_is_transparent_is_white():
    x = np.full((2, 2, 4), 90, np.uint8)
    x[0, :, 3], x[1, :, 3] = 0, 255
    found = images.decoded(saved(Image.fromarray(x, "RGBA")))
    assert (found[0] == 255).all() and (found[1] == 90).all()
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    found = images.decoded(saved(palette, transparency=0))
    assert found[0].tolist() == [[255, 255, 255], [40, 50, 60]]


def test_sixteen_bits_are_scaled_and_not_clipped():
    x = np.array([[0, 257, 32896, 65535]], np.uint16)
    found = images.decoded(saved(Image.fromarray(x)), channels=1)
    assert found[0, :, 0].tolist() == [0, 1, 128, 255]


def test_pictures_stand_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned: show it turned by 90 degrees
    x = np.zeros((2, 3, 3), np.uint8)
    x[0, 0] = 255
    found = images.decoded(saved(Image.fromarray(x), exif=exif))
    assert found.shape == (3, 2, 3) and (found[0, 1] == 255).all()
