"""Pictures of more than 8 bits a channel, scaled from their least to their greatest value.

Pillow would clip grey at 255, and keeps only the high byte of a colour: a 12-bit film comes out black. Three of its
habits are worked around here: colours are decoded once for each byte, a big-endian TIFF that libtiff has already put
into this machine's order is not swapped again, and TIFFs whose white is zero are inverted.
"""

import sys
from contextlib import closing
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image, ImageFile

from chestx_jax.errors import UserError
from chestx_jax.tokens.pixels import apply_by_value, grey_as_rgb, window_to_uint8

_BITS, _PHOTOMETRIC, _PLANAR, _SAMPLE_FORMAT = 258, 262, 284, 339  # a TIFF's tags
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_NATIVE_ORDER = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether the file's channels have more than 8 bits."""
    depths = _tag(image, _BITS) or (8,)
    return image.mode.startswith(("I", "F")) or ";16" in _rawmode(image) or max(depths) > 8


def load_deep(path: Path, image: ImageFile.ImageFile) -> UInt8[np.ndarray, "H W 3"]:
    """A film of grey values, grey and alpha, RGB or RGBA, all colours scaled alike over what is not transparent, which
    is laid on white. Raises UserError for 16-bit colours in another form."""
    colours, opacity = _channels(path, image)
    if opacity is None or not opacity.any():
        scaled = apply_by_value(window_to_uint8, colours)
    else:
        seen = colours[opacity > 0]
        scaled = window_to_uint8(colours, seen.min(), seen.max())
    if _tag(image, _PHOTOMETRIC) == 0:  # white is zero
        scaled = 255 - scaled
    if opacity is not None:
        scaled = np.rint(255 - (255.0 - scaled) * opacity[..., None]).astype(np.uint8)
    return scaled if scaled.shape[2] == 3 else grey_as_rgb(scaled[..., 0])


def _channels(
    path: Path, image: ImageFile.ImageFile
) -> tuple[Shaped[np.ndarray, "H W C"], Float[np.ndarray, "H W"] | None]:
    """Grey or RGB values, and opacity from 0 to 1 where there is any transparency."""
    rawmode, transparent = _rawmode(image), image.info.get("transparency")
    if image.mode.startswith(("I", "F")):
        swapped_already = image.tile and image.tile[0].codec_name == "libtiff" and rawmode in _NATIVE_ORDER
        values = (_decoded(path, _NATIVE_ORDER[rawmode]) if swapped_already else np.asarray(image))[..., None]
        if _tag(image, _BITS) == (32,) and _tag(image, _SAMPLE_FORMAT) in (None, (1,)):  # Pillow has no such mode
            values = values.view(np.uint32)
    elif rawmode == "LA;16B":  # a PNG's grey and alpha: four bytes a pixel, as RGBA has
        octets = _decoded(path, "RGBA").astype(np.uint16)
        values = octets[..., 0::2] << 8 | octets[..., 1::2]
    elif rawmode[:-1] in ("RGB;16", "RGBX;16", "RGBA;16") and _tag(image, _PLANAR) != 2:
        high, low = (_decoded(path, rawmode[:-1] + order) for order in (rawmode[-1], _OTHER_ORDER[rawmode[-1]]))
        values = high.astype(np.uint16) << 8 | low
    else:
        raise UserError(f"The image {path} has colours of more than 8 bits in a rare form: convert it to a 16-bit PNG.")
    if values.shape[2] in (2, 4):
        return values[..., :-1], values[..., -1] / 65535
    if transparent is None:
        return values, None
    return values, (values != np.array(transparent)).any(axis=-1).astype(np.float64)


def _decoded(path: Path, rawmode: str) -> Shaped[np.ndarray, "H W *C"]:
    """The pixels with their bytes taken as `rawmode` says."""
    with closing(Image.open(path)) as image:
        for i, tile in enumerate(image.tile):
            rest = tile.args[1:] if isinstance(tile.args, tuple) else ()
            image.tile[i] = tile._replace(args=(rawmode, *rest) if rest else rawmode)
        return np.asarray(image)


def _rawmode(image: ImageFile.ImageFile) -> str:
    """How Pillow's decoder takes a pixel's bytes; empty for decoders that do not say."""
    arguments = image.tile[0].args if image.tile else ""
    first = arguments if isinstance(arguments, str) else next(iter(arguments or ()), "")
    return first if isinstance(first, str) else ""


def _tag(image: ImageFile.ImageFile, tag: int):
    return getattr(image, "tag_v2", {}).get(tag)
