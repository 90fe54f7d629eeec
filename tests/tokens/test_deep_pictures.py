"""Pictures of more than 8 bits: every channel of every form against the values that were written."""

import itertools
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from chestx_jax.errors import UserError
from chestx_jax.tokens.films import load_image
from tests.helpers.image_files import png_bytes, tiff_bytes


def values(channels, dtype=np.uint16, low=0, high=4096, shape=(13, 19), seed=0):
    return np.random.default_rng(seed).integers(low, high, (*shape, channels)).astype(dtype)


def scaled(colours, low=None, high=None):
    """8-bit RGB over the colours' own range."""
    low, high = float(colours.min() if low is None else low), float(colours.max() if high is None else high)
    grey = np.rint((np.clip(colours.astype(float), low, high) - low) * (255 / (high - low)))
    return np.broadcast_to(grey, (*grey.shape[:2], 3)).astype(np.uint8)


def read(path, content):
    path.write_bytes(content)
    return load_image(path)


@settings(max_examples=30)
@given(
    channels=st.integers(1, 4),
    interlaced=st.booleans(),
    low=st.integers(0, 60_000),
    span=st.sampled_from([2, 16, 4096, 65_536]),
    shape=st.tuples(st.integers(1, 20), st.integers(2, 20)),
)
def test_16_bit_png_is_scaled_over_its_range_and_laid_on_white(
    tmp_path_factory, channels, interlaced, low, span, shape
):
    pixels = values(channels, low=low, high=min(low + span, 65_536), shape=shape)
    pixels[0, 0], pixels[0, 1] = low, low + 1
    colours, opacity = pixels, np.ones((*shape, 1))
    if channels in (2, 4):
        pixels[..., -1] = np.arange(shape[0] * shape[1]).reshape(shape) % 3 * 32767 + 1
        colours, opacity = pixels[..., :-1], pixels[..., -1:] / 65535
    shown = read(tmp_path_factory.mktemp("films") / "film.png", png_bytes(pixels, interlaced=interlaced))
    wanted = 255 - (255 - scaled(colours).astype(float)) * opacity
    assert np.abs(shown - wanted).max() <= 0.5


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour_is_white_and_no_part_of_the_range(tmp_path, channels):
    pixels = values(channels, low=500, high=4096)
    pixels[0, :5] = 65_000
    shown = read(tmp_path / "film.png", png_bytes(pixels, transparent=[65_000] * channels))
    wanted = scaled(pixels, 500, pixels[pixels < 65_000].max()).copy()
    wanted[0, :5] = 255
    assert np.abs(shown.astype(int) - wanted).max() <= 1


def test_pixels_that_cannot_be_seen_are_no_part_of_the_range(tmp_path):
    pixels = values(2, low=1000, high=2000)
    pixels[..., 1] = 65_535
    pixels[3] = 0  # black behind nothing
    shown = read(tmp_path / "film.png", png_bytes(pixels))
    assert (shown[3] == 255).all()
    assert np.delete(shown, 3, axis=0).min() == 0


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_tiff_in_both_orders_packed_or_not(tmp_path, order, compressed, channels):
    pixels = values(channels)
    if channels == 4:
        pixels[..., 3] = 65_535
    content = tiff_bytes(pixels, order, compressed=compressed, extra=2 if channels == 4 else None)
    np.testing.assert_array_equal(read(tmp_path / "film.tif", content), scaled(pixels[..., :3]))


@pytest.mark.parametrize("compressed", [False, True])
def test_colours_in_planes_are_refused(tmp_path, compressed):
    with pytest.raises(UserError, match="16-bit PNG"):
        read(tmp_path / "film.tif", tiff_bytes(values(3), compressed=compressed, planar=True))


@pytest.mark.parametrize(
    ("dtype", "order", "compressed", "photometric"),
    [
        *itertools.product(["uint8", "float32"], "<>", [False, True], [0, 1]),
        *itertools.product(["uint16"], "<", [False, True], [0, 1]),
        *itertools.product(["uint16", "int16", "int32"], "<>", [False, True], [1]),
        *itertools.product(["uint32"], "<", [False, True], [1]),
    ],
)
def test_grey_tiff_of_every_type(tmp_path, dtype, order, compressed, photometric):
    """Also where white is zero; and what libtiff unpacks in this machine's order is not swapped again."""
    extremes = {"uint32": (0, 4_000_000_000), "int32": (-2_000_000_000, 2_000_000_000), "int16": (-32768, 32768)}
    pixels = values(1, np.int64, *extremes.get(dtype, (0, 256))).astype(dtype)
    pixels[0, :2, 0] = 0, 255
    wanted = scaled(pixels)
    content = tiff_bytes(pixels, order, photometric, compressed)
    shown = read(tmp_path / "film.tif", content)
    np.testing.assert_array_equal(shown, 255 - wanted if photometric == 0 else wanted)


def test_what_is_no_number_is_no_part_of_the_range(tmp_path, caplog):
    pixels = np.linspace(-3, 7, 13 * 19, dtype=np.float32).reshape(13, 19, 1)
    pixels[0, :3, 0] = np.nan, np.inf, -np.inf
    shown = read(tmp_path / "film.tif", tiff_bytes(pixels))
    assert shown[0, :3, 0].tolist() == [0, 255, 0]
    finite = pixels[np.isfinite(pixels)]
    assert np.abs(shown[1:] - scaled(pixels[1:], finite.min(), finite.max()).astype(int)).max() <= 1
    with caplog.at_level(logging.WARNING):
        assert not read(tmp_path / "film.tif", tiff_bytes(np.full((4, 5, 1), np.nan, np.float32))).any()
    assert "one tone" in caplog.text


@pytest.mark.parametrize("name", ["film.gif", "film.tif", "film.png", "film.webp"])
def test_the_first_of_several_pictures_is_read_with_a_warning(tmp_path, caplog, name):
    rng = np.random.default_rng(0)
    pages = [Image.fromarray(rng.integers(0, 256, (20, 30), dtype=np.uint8)) for _ in range(3)]
    options = {"lossless": True} if name.endswith("webp") else {}
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:], **options)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(load_image(tmp_path / name)[..., 0], np.asarray(pages[0]))
    assert f"{name} holds several pictures" in caplog.text
    caplog.clear()
    pages[0].save(tmp_path / name, **options)
    load_image(tmp_path / name)
    assert not caplog.text


def test_the_pictures_on_record_are_right(shared_data):
    folder = shared_data / "faults" / "images"
    if not folder.is_dir():
        pytest.skip("no folder of faults")
    ramp = np.arange(256)
    assert np.abs(load_image(folder / "rgb16_12bit.png")[0, :, 0] - ramp).max() <= 1
    assert np.abs(load_image(folder / "tiff16_whiteiszero.tif")[0, :, 0] - ramp[::-1]).max() <= 1
