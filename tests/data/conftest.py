"""Eleven records with films, and the encoder that reads them."""

from dataclasses import replace

import pytest
from PIL import Image

from chestx_jax.data.augment import AugmentConfig
from chestx_jax.data.pipeline import Encoder
from chestx_jax.data.schema import Sample
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.tokenizer import load_tokenizer, special_ids, train_tokenizer
from tests.helpers.streams import COUNT


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer, and films of distinct grey."""
    folder = tmp_path_factory.mktemp("records")
    train_tokenizer(["Is there an effusion? The lungs are clear. No edema."] * 9, folder / "tokenizer", 320)
    for number in range(COUNT):
        Image.new("L", (56, 56), 20 * number + 10).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def encoder(folder):
    """It augments, so that what the tests below say of the stream they say of augmented films too."""
    tokenizer = load_tokenizer(folder / "tokenizer")
    image = ImageSpec(aspect="squash", height=56, width=56, temporal_patch_size=1)
    return Encoder(tokenizer, special_ids(tokenizer), image, augment=AugmentConfig(5.0, 0.1, 0.1, 0.2, 0.2))


@pytest.fixture(scope="module")
def samples(folder):
    """Records of unequal length, one without a film, some with two."""
    films = [[], *([number] if number % 3 else [number, 0] for number in range(1, COUNT))]
    return tuple(
        Sample(
            id=f"record-{number}",
            task="binary",
            question="Is there an effusion? " * (1 + number % 3),
            answer="AB"[number % 2],
            images=tuple(str(folder / f"{film}.png") for film in films[number]),
            steps=("The lungs are clear.",) * (1 + number % 4),
            reports=("No edema.",),
            source="made up",
        )
        for number in range(COUNT)
    )


@pytest.fixture(scope="module")
def broken(samples):
    """The same records, every fifth with a film that is not there."""
    lost = ("/nowhere/film.png",)
    return tuple(replace(sample, images=lost) if number % 5 == 2 else sample for number, sample in enumerate(samples))
