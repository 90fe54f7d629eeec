"""Films inside other documents: data URLs for pages and for chat endpoints."""

import base64
import io
from pathlib import Path

from PIL import Image

from chestx_jax.tokens.films import load_image


def data_url(kind: str, content: bytes) -> str:
    """An image file of the format `kind` ("png", "jpeg") as a data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def jpeg_url(path: str | Path, side: int, mode: str = "RGB", **options: int) -> str:
    """The film at `path` as a JPEG in a data URL, its longer side at most `side` pixels; `options` are PIL's.

    Raises UserError for a film that cannot be read.
    """
    film = Image.fromarray(load_image(path)).convert(mode)
    film.thumbnail((side, side))
    file = io.BytesIO()
    film.save(file, "JPEG", **options)
    return data_url("jpeg", file.getvalue())
