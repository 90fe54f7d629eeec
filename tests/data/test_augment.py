"""Augmented films: nothing changes unless asked, nothing changes by more, and left stays left."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestx_jax.config import to_dataclass
from chestx_jax.data.augment import AugmentConfig, augment
from chestx_jax.errors import UserError
from chestx_jax.tokens.pixels import distinct_channels, grey_as_rgb

LIGHT = AugmentConfig(rotation=10.0, shift=0.1, scale=0.15, exposure=0.3, contrast=0.3)
NAMES = [field.name for field in fields(AugmentConfig)]
SEEDS = st.integers(0, 2**32 - 1)


def random_film(seed, height=31, width=44, grey=True):
    film = np.random.default_rng(seed).integers(0, 256, (height, width, 1 if grey else 3), dtype=np.uint8)
    return grey_as_rgb(film[..., 0]) if grey else film


def changed(film, seed, config):
    return augment(film, config, np.random.default_rng(seed))


class Extreme:
    """A generator whose every draw is at one end of its range."""

    def __init__(self, end):
        self.end = end

    def uniform(self, low, high, count):
        return np.full(count, high if self.end > 0 else low)


@given(seed=SEEDS, grey=st.booleans())
def test_by_default_a_film_stays_as_it_is(seed, grey):
    film = random_film(seed, grey=grey)
    np.testing.assert_array_equal(changed(film, seed, AugmentConfig()), film)


@given(seed=SEEDS)
def test_a_grey_film_stays_one_and_is_changed_as_a_coloured_one(seed):
    film = random_film(seed)
    grey, coloured = changed(film, seed, LIGHT), changed(film.copy(), seed, LIGHT)
    assert distinct_channels(grey).shape[2] == 1
    assert grey.shape == film.shape
    assert grey.dtype == np.uint8
    np.testing.assert_array_equal(grey, coloured)


@given(seed=SEEDS)
def test_left_stays_left_and_up_stays_up(seed):
    """Of a film with one bright quarter, whichever, that quarter is the brightest afterwards."""
    film = np.full((40, 48, 3), 40, np.uint8)
    quarter = seed % 4
    film[20 * (quarter // 2) :][:20, 24 * (quarter % 2) :][:, :24] = 220
    after = changed(film, seed, LIGHT)[..., 0].astype(float)
    means = after.reshape(2, 20, 2, 24).mean((1, 3)).ravel()
    assert means.argmax() == quarter


@pytest.mark.parametrize("end", [-1, 1])
@pytest.mark.parametrize(
    ("name", "value", "moves_to"),
    [
        ("shift", 0.25, lambda end: (-7.5 + 10 * end, 6.5 + 10 * end)),  # a quarter of 40
        ("scale", 0.5, lambda end: (-7.5 * (1 + 0.5 * end), 6.5 * (1 + 0.5 * end))),
        ("rotation", 45.0, lambda end: ((-7.5 - end * 6.5) * 0.5**0.5, (6.5 - end * 7.5) * 0.5**0.5)),  # anticlockwise
    ],
)
def test_a_spot_lies_where_the_change_puts_it(name, value, moves_to, end):
    """A spot 7.5 rows above the middle and 6.5 columns to the right of it."""
    film = np.zeros((40, 40, 3), np.uint8)
    film[11:14, 25:28] = 255
    after = augment(film, AugmentConfig(**{name: value}), Extreme(end))[..., 0].astype(float)
    centre = [(after * index).sum() / after.sum() - 19.5 for index in np.indices(after.shape)]
    assert centre == pytest.approx(moves_to(end), abs=0.3)


@pytest.mark.parametrize("end", [-1, 1])
def test_grey_values_follow_the_exponent_and_the_contrast(end):
    film = grey_as_rgb(np.arange(256, dtype=np.uint8)[None])
    exposed = augment(film, AugmentConfig(exposure=0.5), Extreme(end))[0, :, 0]
    np.testing.assert_allclose(exposed, 255 * (np.arange(256) / 255) ** 2 ** (0.5 * end), atol=0.5)
    stretched = augment(film, AugmentConfig(contrast=0.25), Extreme(end))[0, :, 0].astype(float)
    np.testing.assert_allclose(
        stretched, np.clip((np.arange(256) - 127.5) * (1 + 0.25 * end) + 127.5, 0, 255), atol=0.5
    )


@given(seed=SEEDS, name=st.sampled_from(NAMES))
def test_a_change_that_is_switched_off_leaves_the_others(seed, name):
    """So that runs with and without it differ by it alone."""
    film = random_film(seed)
    alone = AugmentConfig(**{name: getattr(LIGHT, name)})
    off = replace(LIGHT, **{other: 0.0 for other in NAMES if other != name})
    np.testing.assert_array_equal(changed(film, seed, alone), changed(film, seed, off))
    grey = replace(LIGHT, rotation=0.0, shift=0.0, scale=0.0)
    placed = changed(film, seed, replace(LIGHT, exposure=0.0, contrast=0.0))
    np.testing.assert_array_equal(changed(placed, seed, grey), changed(film, seed, LIGHT))


@pytest.mark.parametrize(
    "field", [{"rotation": 50}, {"shift": -0.1}, {"scale": 0.6}, {"contrast": 1.0}, {"flip": True}]
)
def test_what_is_no_light_change_is_refused(field):
    with pytest.raises(UserError, match=f"config.{next(iter(field))}"):
        to_dataclass(AugmentConfig, field)
