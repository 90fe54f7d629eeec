"""Pixel values of any range as 8 bits, and grey as colour."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped, UInt8

from chestx_jax.errors import UserError

MAX_PIXELS = 100_000_000  # of a file, before resizing; the largest radiographs have about 20 million


def check_area(path: Path, width: int, height: int) -> None:
    """Raise UserError for an image of no area or of more than `MAX_PIXELS`."""
    if width <= 0 or height <= 0:
        raise UserError(f"The image {path} is {width}×{height} pixels: replace the file.")
    if width * height > MAX_PIXELS:
        raise UserError(f"The image {path} is {width}×{height} pixels, more than {MAX_PIXELS:,}: shrink or discard it.")


def grey_as_rgb(grey: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """A read-only view of grey pixels that shows the one channel three times."""
    return np.broadcast_to(grey[..., None], (*grey.shape, 3))


def distinct_channels(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W C"]:
    """The one channel of a view that `grey_as_rgb` made, else all three: what is done to each channel alike is done
    once to a grey film."""
    return image[..., :1] if image.strides[-1] == 0 else image


def window_to_uint8(
    values: Shaped[np.ndarray, "*S"], low: float | None = None, high: float | None = None
) -> UInt8[np.ndarray, "*S"]:
    """Values scaled linearly so that `low` is 0 and `high` is 255 (default: the least and greatest finite value).
    NaN is 0; a film of one value, or of none that is finite, is black."""
    values = np.asarray(values, np.float64)
    if low is None or high is None:
        finite = values[np.isfinite(values)]
        if not finite.size:
            return np.zeros(values.shape, np.uint8)
        low, high = finite.min() if low is None else low, finite.max() if high is None else high
    low, high = float(low), float(high)
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    values = np.where(np.isnan(values), low, np.clip(values, low, high))
    return np.rint((values - low) * (255.0 / (high - low))).astype(np.uint8)


def apply_by_value(
    function: Callable[[np.ndarray], UInt8[np.ndarray, "*S"]], values: Shaped[np.ndarray, "*S"]
) -> UInt8[np.ndarray, "*S"]:
    """`function(values)`, for a function of which values occur and not of where or how often they do: integers of at
    most 16 bits go through it once for each distinct value, and a table does the rest."""
    if values.dtype.kind not in "iu" or values.dtype.itemsize > 2:
        return function(values)
    low = int(values.min())
    offsets = (values.astype(np.int32) - low).astype(np.uint16)
    occurs: Bool[np.ndarray, " 65536"] = np.zeros(1 << 16, bool)
    occurs[offsets] = True
    table = np.zeros(1 << 16, np.uint8)
    table[occurs] = function((np.flatnonzero(occurs) + low).astype(np.int32))
    return table[offsets]
