"""Light augmentation: training films turned, moved, scaled and exposed a little otherwise each time they are shown.

Nothing that changes sides: there is no flip, since reports name the left and the right.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from chestx_jax.config import bounded
from chestx_jax.tokens.pixels import distinct_channels, grey_as_rgb

_MIDDLE = 127.5  # of 8-bit values


@dataclass(frozen=True)
class AugmentConfig:
    """The most that a film is changed by, either way; each change is drawn uniformly. All 0: films stay as they are."""

    rotation: float = bounded(0.0, min=0.0, max=45.0)  # degrees
    shift: float = bounded(0.0, min=0.0, max=0.5)  # of height and of width
    scale: float = bounded(0.0, min=0.0, max=0.5)  # of the size: above 1 crops, below 1 leaves a black border
    exposure: float = bounded(0.0, min=0.0, max=2.0)  # of the exponent of grey values, as a power of 2
    contrast: float = bounded(0.0, min=0.0, below=1.0)  # of the distance of grey values from the middle

    @property
    def changes_place(self) -> bool:
        """Whether anything may lie elsewhere afterwards."""
        return bool(self.rotation or self.shift or self.scale)

    @property
    def changes_grey(self) -> bool:
        """Whether grey values may be others afterwards."""
        return bool(self.exposure or self.contrast)


def augment(
    image: UInt8[np.ndarray, "H W 3"], config: AugmentConfig, random: np.random.Generator
) -> UInt8[np.ndarray, "H W 3"]:
    """The film after changes drawn from `random`, in its own size; what comes in from outside is black. As many numbers
    are drawn whatever the configuration, so that switching one change off leaves the others. A grey film stays one."""
    turn, down, right, size, exposure, contrast = random.uniform(-1.0, 1.0, 6)
    channels = distinct_channels(image)
    if config.changes_place:
        shifts = down * config.shift, right * config.shift
        channels = _moved(channels, turn * config.rotation, *shifts, 1 + size * config.scale)
    if config.changes_grey:
        channels = _grey_table(exposure * config.exposure, 1 + contrast * config.contrast)[channels]
    return grey_as_rgb(channels[..., 0]) if channels.shape[2] == 1 else channels


def _moved(
    channels: UInt8[np.ndarray, "H W C"], degrees: float, down: float, right: float, scale: float
) -> UInt8[np.ndarray, "H W C"]:
    """Turned anticlockwise and scaled about the middle, then moved by shares of height and width."""
    height, width = channels.shape[:2]
    cosine, sine = math.cos(math.radians(degrees)) / scale, math.sin(math.radians(degrees)) / scale
    middle_x, middle_y = width / 2, height / 2
    x, y = middle_x + right * width, middle_y + down * height  # where the middle comes to lie
    # Pillow asks where each new pixel was before.
    before = (cosine, -sine, middle_x - cosine * x + sine * y, sine, cosine, middle_y - sine * x - cosine * y)
    picture = Image.fromarray(channels[..., 0] if channels.shape[2] == 1 else channels)
    moved = picture.transform((width, height), Image.Transform.AFFINE, before, Image.Resampling.BILINEAR)
    return np.asarray(moved).reshape(channels.shape)


def _grey_table(exposure: float, contrast: float) -> UInt8[np.ndarray, " 256"]:
    """What each 8-bit value becomes."""
    exposed = 255.0 * (np.arange(256) / 255.0) ** (2.0**exposure)
    return np.rint(np.clip((exposed - _MIDDLE) * contrast + _MIDDLE, 0.0, 255.0)).astype(np.uint8)
