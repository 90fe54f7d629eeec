"""Predictions of a chat endpoint: films as data URLs, the released prompt, failures left to a rerun."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from chestx_jax.data.schema import Sample
from chestx_jax.endpoint.client import Endpoint, Reply, call_all, complete
from chestx_jax.errors import UserError
from chestx_jax.eval.predictions.records import Prediction, from_sample
from chestx_jax.tokens.chat import INSTRUCTION
from chestx_jax.tokens.data_urls import data_url, jpeg_url
from chestx_jax.tokens.films import load_image

MAX_BYTES = 4_000_000  # of a film sent as it is; a larger one is sent as JPEG of at most 2,048 pixels


def predict(
    endpoint: Endpoint, samples: Sequence[Sample], log: Callable[[str], None], length: int = 2048, blind: bool = False
) -> Iterator[Prediction]:
    """Answers in the order they come; a sample whose call fails for good is left out, so that a rerun asks for it.

    Raises:
      UserError: the endpoint refuses the request itself.
    """
    answered, failed = 0, 0
    answer = partial(_answer, endpoint, length, blind)
    for sample, reply in call_all(endpoint, answer, samples, lambda reply: bool(reply.error)):
        if reply.error:
            failed += 1
            log(f"{sample.name}: no answer ({reply.error})")
            continue
        answered += 1
        yield from_sample(sample, reply.text, truncated=reply.truncated, tokens=reply.completion_tokens)
    if answered < len(samples):
        tally = f"{answered} of {len(samples)} samples answered, {answered + failed} asked"
        log(f"{tally}; run the same command again for the rest")


def messages(sample: Sample, blind: bool = False) -> list[dict[str, Any]]:
    """The user turn: films first, then the question and the instruction sentence; `blind` leaves the films out."""
    films = [] if blind else [{"type": "image_url", "image_url": {"url": film_url(path)}} for path in sample.images]
    return [{"role": "user", "content": [*films, {"type": "text", "text": f"{sample.question}\n{INSTRUCTION}"}]}]


def film_url(path: str) -> str:
    """A film as a data URL: a PNG or JPEG file as it is where any reader sees the film that `load_image` does (not of
    16 bits, say, nor transparent); any other or large one as JPEG.

    Raises UserError for a film that cannot be read, which a server would refuse less clearly.
    """
    formats = {b"\x89PNG": "png", b"\xff\xd8\xff\xe0": "jpeg", b"\xff\xd8\xff\xe1": "jpeg"}
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); set --image_root or fix the record's image_path") from error
    kind = formats.get(content[:4])
    if kind and len(content) <= MAX_BYTES:
        film = load_image(path)
        with Image.open(path) as image:
            if np.array_equal(film, np.asarray(image.convert("RGB"))):
                return data_url(kind, content)
    return jpeg_url(path, 2048, quality=90)


def _answer(endpoint: Endpoint, length: int, blind: bool, sample: Sample) -> Reply:
    try:
        chat = messages(sample, blind)
    except UserError as error:  # a film that cannot be read
        return Reply("", error=str(error))
    return complete(endpoint, chat, temperature=0, max_tokens=length)
