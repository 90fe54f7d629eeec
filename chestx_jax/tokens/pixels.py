"""Pixels of any kind as 8-bit RGB."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from chestx_jax.errors import UserError

MAX_PIXELS = 100_000_000  # of a file, before resizing; the largest radiographs have about 20 million


def check_area(path: Path, width: int, height: int) -> None:
    """Raise UserError for an image of no area or of more than `MAX_PIXELS`."""
    if width <= 0 or height <= 0:
        raise UserError(f"The image {path} is {width}×{height} pixels: replace the file.")
    if width * height > MAX_PIXELS:
        raise UserError(f"The image {path} is {width}×{height} pixels, more than {MAX_PIXELS:,}: shrink or discard it.")


def to_rgb(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """An open PIL image of any mode as RGB."""
    if image.mode.startswith(("I", "F")):  # PIL would clip these at 255 instead of scaling them
        return np.repeat(window_to_uint8(np.asarray(image))[..., None], 3, axis=-1)
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def window_to_uint8(
    values: np.ndarray, low: float | None = None, high: float | None = None
) -> UInt8[np.ndarray, "H W"]:
    """Grey values scaled linearly so that `low` is 0 and `high` is 255 (default: the least and greatest value).
    A film of one value becomes black."""
    values = np.nan_to_num(np.asarray(values, np.float64))
    low = values.min() if low is None else low
    high = values.max() if high is None else high
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    return np.rint((np.clip(values, low, high) - low) * (255.0 / (high - low))).astype(np.uint8)
