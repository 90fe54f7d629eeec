"""Films to patches: resize and cut, bit for bit as Qwen2-VL's image processor does.

Patches hold pixels. They are normalised on the device (`model/pixels.py`), to which they travel in a byte each.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image

from chestx_jax.config import bounded
from chestx_jax.errors import UserError
from chestx_jax.tokens.pixels import distinct_channels, grey_as_rgb

PATCH_FIELDS = ("patch_size", "temporal_patch_size", "merge_size")


@dataclass(frozen=True)
class ImageSpec:
    """How a film becomes patches. With aspect "keep" it has its own shape within the pixel limits, as in transformers
    and in servers; with "squash" it is resized to `height` × `width` pixels, whatever its shape."""

    of_checkpoint: ClassVar[tuple[str, ...]] = ("patch_size", "temporal_patch_size", "merge_size", "mean", "std")

    patch_size: int = bounded(14, min=1)
    temporal_patch_size: int = bounded(2, min=1)
    merge_size: int = bounded(2, min=1)
    mean: tuple[float, float, float] = bounded((0.48145466, 0.4578275, 0.40821073), min=0.0, max=1.0)
    std: tuple[float, float, float] = bounded((0.26862954, 0.26130258, 0.27577711), above=0.0)
    aspect: Literal["keep", "squash"] = "keep"
    height: int | None = bounded(None, min=1)  # of squashed films
    width: int | None = bounded(None, min=1)
    min_pixels: int = bounded(56 * 56, min=1)  # of films that keep their aspect
    max_pixels: int = bounded(1280 * 28 * 28, min=1)

    @property
    def patch_pixels(self) -> int:
        """Numbers in a flattened patch: its pixels in three channels."""
        return 3 * self.patch_size**2

    @property
    def max_patches(self) -> int:
        """Most patches of a film (one of extreme proportions may have more)."""
        area = self.max_pixels if self.height is None or self.width is None else self.height * self.width
        return area // (self.patch_size * self.merge_size) ** 2 * self.merge_size**2

    def __post_init__(self) -> None:
        factor = self.patch_size * self.merge_size
        sides = {"height": self.height, "width": self.width}
        if self.aspect == "squash" and None in sides.values():
            raise UserError("aspect=squash needs the height and width that films are squashed to.")
        if self.aspect == "keep" and (self.height or self.width):
            raise UserError(
                f"height {self.height} and width {self.width} are of squashed films: set aspect=squash, or leave both "
                "out (None)."
            )
        for name, pixels in sides.items():
            if pixels is not None and (pixels <= 0 or pixels % factor):
                raise UserError(f"Image {name} {pixels} is no multiple of patch size × merge size = {factor}.")
        if not 0 < self.min_pixels <= self.max_pixels or self.max_pixels < factor**2:
            raise UserError(
                f"min_pixels {self.min_pixels} and max_pixels {self.max_pixels} are no range that holds the smallest "
                f"film, {factor} × {factor}."
            )


def squash_notice(spec: ImageSpec) -> str:
    """What users are told of squashed films, at the start of a run and where the model is exported; "" of others."""
    if spec.aspect == "keep":
        return ""
    return (
        f"films are squashed to {spec.width}×{spec.height} pixels, while transformers and servers keep their shape: "
        "the exported model will see films that are not square otherwise than in training (image.aspect=keep)"
    )


def with_aspect(raw: Any) -> Any:
    """An ImageSpec of a JSON file, also of one from before `aspect`, when a height and a width meant squashing."""
    if not isinstance(raw, Mapping) or "aspect" in raw:
        return raw
    return {**raw, "aspect": "keep" if raw.get("height") is None else "squash"}


def check_patches(spec: ImageSpec, vision: Any, spec_name: str, vision_name: str) -> None:
    """Raise UserError where films are cut into other patches than the vision tower (a `VisionConfig`) reads."""
    for field in PATCH_FIELDS:
        cut, read = getattr(spec, field), getattr(vision, field)
        if cut != read:
            raise UserError(
                f"{spec_name}.{field} is {cut} and {vision_name}.{field} is {read}: films are cut into the "
                "patches that the model reads, give both one value."
            )


def resized_shape(height: int, width: int, spec: ImageSpec) -> tuple[int, int]:
    """Height and width after resizing: those of squashed films, or the nearest multiples of patch × merge size that
    keep the aspect ratio and lie within the pixel bounds (Qwen2-VL's "smart resize"). Raises UserError above a ratio of
    200."""
    if spec.height is not None and spec.width is not None:
        return spec.height, spec.width
    if max(height, width) > 200 * min(height, width):
        raise UserError(f"An image of {width}×{height} pixels is longer than 200 times its width: crop it.")
    factor = spec.patch_size * spec.merge_size
    rows, columns = round(height / factor), round(width / factor)
    area = rows * columns * factor**2
    if area > spec.max_pixels:
        shrink = math.sqrt(height * width / spec.max_pixels)
        rows = max(1, math.floor(height / shrink / factor))
        columns = max(1, math.floor(width / shrink / factor))
    elif area < spec.min_pixels:
        grow = math.sqrt(spec.min_pixels / (height * width))
        rows, columns = math.ceil(height * grow / factor), math.ceil(width * grow / factor)
    return rows * factor, columns * factor


def resize(image: UInt8[np.ndarray, "H W 3"], spec: ImageSpec) -> UInt8[np.ndarray, "h w 3"]:
    """The film in the size that it is cut from (`resized_shape`). A grey one is resized as one channel and stays a view
    of it: Pillow resizes each channel as if it were alone, so this is the same in a third of the time."""
    height, width = resized_shape(image.shape[0], image.shape[1], spec)
    if image.shape[:2] == (height, width):
        return image
    channels = distinct_channels(image)
    picture = Image.fromarray(channels[..., 0] if channels.shape[2] == 1 else channels)
    resized = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
    return grey_as_rgb(resized) if resized.ndim == 2 else resized


def patches(image: UInt8[np.ndarray, "h w 3"], spec: ImageSpec) -> tuple[UInt8[np.ndarray, "P Z"], tuple[int, int]]:
    """Flattened patches of a film that `resize` has made, and the grid (rows, columns) they came from.

    Patches of one merge block follow each other, blocks run row by row; within a patch the pixels run channel, row,
    column. What Qwen2VLImageProcessorPil normalises and repeats as frames, bit for bit.
    """
    channels, (height, width) = distinct_channels(image), image.shape[:2]
    size, merge = spec.patch_size, spec.merge_size
    rows, columns = height // size, width // size
    blocks = channels.reshape(rows // merge, merge, size, columns // merge, merge, size, -1)
    pixels = blocks.transpose(0, 3, 1, 4, 6, 2, 5).reshape(rows * columns, -1, size * size)
    return np.broadcast_to(pixels, (rows * columns, 3, size * size)).reshape(rows * columns, -1), (rows, columns)


def without_content(patches: UInt8[np.ndarray, "P Z"], spec: ImageSpec) -> UInt8[np.ndarray, "P Z"]:
    """Patches of a film of one tone in their place: the mean, which is about 0 once it is normalised."""
    tone = np.rint(255 * np.array(spec.mean)).astype(np.uint8)
    return np.broadcast_to(np.repeat(tone, spec.patch_size**2), patches.shape)


def patch_positions(grid: tuple[int, int], merge_size: int) -> Int32[np.ndarray, "P 2"]:
    """Row and column of each patch, in the order of `patches`."""
    rows, columns = np.indices(grid, dtype=np.int32)

    def in_blocks(index: np.ndarray) -> np.ndarray:
        blocks = index.reshape(grid[0] // merge_size, merge_size, grid[1] // merge_size, merge_size)
        return blocks.transpose(0, 2, 1, 3).reshape(-1)

    return np.stack([in_blocks(rows), in_blocks(columns)], axis=-1)
