"""PNG, JPEG, TIFF and whatever else Pillow opens, as 8-bit RGB."""

import logging
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from chestx_jax.errors import UserError
from chestx_jax.tokens.deep_pictures import is_deep, load_deep
from chestx_jax.tokens.pixels import MAX_PIXELS, check_area, grey_as_rgb

LOG = logging.getLogger(__name__)


def load_picture(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """The picture at `path`, the first where there are several (with a warning). Orientation tags are ignored.

    8-bit modes are converted as Pillow does, transparency is laid on white; deeper ones go through
    `tokens/deep_pictures.py`. Raises UserError for no or an implausibly large area and for deep colour in a form that
    cannot be read; any other error is Pillow's.
    """
    try:
        image = Image.open(path)
    except Image.DecompressionBombError as error:
        raise UserError(f"The image {path} has more than {MAX_PIXELS:,} pixels: shrink it first.") from error
    with image:
        check_area(path, *image.size)
        film = load_deep(path, image) if is_deep(image) else _convert(image)
        if _has_more(image):
            LOG.warning("%s holds several pictures: the first is read.", path)
    return film


def _convert(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    if image.mode in ("1", "L"):
        return grey_as_rgb(np.asarray(image.convert("L")))
    return np.asarray(image.convert("RGB"))


def _has_more(image: Image.Image) -> bool:
    try:
        image.seek(1)
    except Exception:  # EOFError, or whatever a broken second picture raises
        return False
    return True
