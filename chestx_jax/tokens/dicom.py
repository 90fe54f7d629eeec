"""DICOM radiographs as 8-bit RGB: the stored bits, shown by `tokens/voi.py`, MONOCHROME1 inverted (PS3.3 C.7.6.3)."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from chestx_jax.errors import UserError, one_line
from chestx_jax.tokens.pixels import apply_by_value, check_area, grey_as_rgb, window_to_uint8
from chestx_jax.tokens.voi import display_values

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def load_dicom(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """The single film of a DICOM file as it would be shown: dark air, white bone. Pixel spacing plays no part.

    Grey values are shown as `voi.display_values` says; colours of more than 8 bits are scaled over their own range.
    Raises UserError without pydicom, for a file that is no DICOM, has no pixels or several frames, is of another
    photometric kind, or is compressed in a way no installed plugin reads.
    """
    try:
        import pydicom
    except ImportError as error:
        raise UserError(f"Reading {path} needs pydicom: install it with pip install 'chestx-jax[dicom]'.") from error
    try:
        data = pydicom.dcmread(path)
    except Exception as error:  # of whatever kind a broken header makes the reader stumble
        raise UserError(f"{path} is no readable DICOM file ({one_line(error)}): replace it.") from error
    kind = str(data.get("PhotometricInterpretation", "missing"))
    frames = _whole_number(path, data, "NumberOfFrames", 1)
    if not any(name in data for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise UserError(f"{path} holds no pixels: it is a report, a mask or a stripped file, give the image itself.")
    if frames not in (0, 1):
        raise UserError(f"{path} holds {frames} frames: export the one radiograph wanted.")
    if kind not in _GREY + _COLOUR:
        raise UserError(f"{path} has photometric interpretation {kind[:60]!r}: convert it to MONOCHROME2 or RGB.")
    check_area(path, _whole_number(path, data, "Columns", 0), _whole_number(path, data, "Rows", 0))
    pixels = _stored_values(path, data)
    if pixels.ndim != (3 if kind in _COLOUR else 2) or pixels.shape[2:] not in ((), (3,)):
        raise UserError(f"{path} has pixels of shape {pixels.shape} and says {kind!r}: export it anew.")
    if kind in _COLOUR:  # decoded to RGB by pydicom
        return pixels if pixels.dtype == np.uint8 else apply_by_value(window_to_uint8, pixels)
    grey = apply_by_value(partial(display_values, path, data=data), pixels)
    return grey_as_rgb(255 - grey if kind == "MONOCHROME1" else grey)


def _whole_number(path: Path, data: Any, name: str, default: int) -> int:
    value = data.get(name)
    try:
        return default if value is None else int(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} has {name} {str(value)[:60]!r}, no whole number: export it anew.") from error


def _stored_values(path: Path, data: Any) -> Shaped[np.ndarray, "H W *C"]:
    """The pixels with only their stored bits: others may hold overlays, in compressed data too (PS3.5 section 8)."""
    try:
        pixels = data.pixel_array
    except Exception as error:  # decoders and their plugins raise whatever they like
        syntax = data.file_meta.get("TransferSyntaxUID") if hasattr(data, "file_meta") else None
        name = getattr(syntax, "name", "unknown transfer syntax")
        raise UserError(
            f"The pixels of {path} cannot be decoded ({name}: {one_line(error)}): install pylibjpeg with its plugins, "
            "or convert the file to an uncompressed transfer syntax."
        ) from error
    if pixels.dtype.kind == "f":
        return pixels
    size = 8 * pixels.dtype.itemsize
    unused = max(size - _whole_number(path, data, "BitsStored", size), 0)
    return pixels << unused >> unused if unused else pixels
