"""DICOM radiographs as 8-bit RGB: rescale, VOI LUT or window, MONOCHROME1 inversion (DICOM PS3.3 C.7.6.3, C.11)."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from chestx_jax.errors import UserError
from chestx_jax.tokens.pixels import check_area, window_to_uint8

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def load_dicom(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """The single film of a DICOM file as it would be shown: dark air, white bone. Pixel spacing plays no part.

    Grey values go through rescale and then the file's VOI LUT or first window; without one the least and greatest
    value (padding aside) become black and white. Raises UserError without pydicom, for a file that is no DICOM, has
    no pixels or several frames, is of another photometric kind, or is compressed in a way no installed plugin reads.
    """
    try:
        import pydicom
    except ImportError as error:
        raise UserError(f"Reading {path} needs pydicom: install it with pip install 'chestx-jax[dicom]'.") from error
    try:
        data = pydicom.dcmread(path)
    except (pydicom.errors.InvalidDicomError, OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is no readable DICOM file ({error}): replace it.") from error
    kind = str(data.get("PhotometricInterpretation", "missing"))
    frames = int(data.get("NumberOfFrames") or 1)
    if not any(name in data for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise UserError(f"{path} holds no pixels: it is a report, a mask or a stripped file, give the image itself.")
    if frames != 1:
        raise UserError(f"{path} holds {frames} frames: export the one radiograph wanted.")
    if kind not in _GREY + _COLOUR:
        raise UserError(f"{path} has photometric interpretation {kind}: convert it to MONOCHROME2 or RGB.")
    check_area(path, int(data.get("Columns", 0)), int(data.get("Rows", 0)))
    pixels = _pixels(path, data)
    if kind in _COLOUR:  # decoded to RGB by pydicom
        return (pixels >> max(int(data.get("BitsStored", 8)) - 8, 0)).astype(np.uint8)
    grey = _windowed(pixels, data)
    return np.repeat((255 - grey if kind == "MONOCHROME1" else grey)[..., None], 3, axis=-1)


def _pixels(path: Path, data: Any) -> np.ndarray:
    try:
        return data.pixel_array
    except Exception as error:  # decoders and their plugins raise whatever they like
        syntax = data.file_meta.get("TransferSyntaxUID") if hasattr(data, "file_meta") else None
        name = getattr(syntax, "name", "unknown transfer syntax")
        raise UserError(
            f"The pixels of {path} cannot be decoded ({name}): install pylibjpeg with its plugins, or convert the file "
            "to an uncompressed transfer syntax."
        ) from error


def _windowed(pixels: np.ndarray, data: Any) -> UInt8[np.ndarray, "H W"]:
    from pydicom.pixels import apply_modality_lut, apply_voi

    values = apply_modality_lut(pixels, data)
    if data.get("VOILUTSequence"):
        depth = int(data.VOILUTSequence[0].LUTDescriptor[2])
        return window_to_uint8(apply_voi(values.astype(pixels.dtype), data), 0, 2**depth - 1)
    if data.get("WindowCenter") is not None and data.get("WindowWidth") is not None:
        centre, width = (float(np.atleast_1d(data[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
        rule = str(data.get("VOILUTFunction") or "LINEAR")
        if rule == "SIGMOID":
            return np.rint(255.0 / (1.0 + np.exp(-4.0 * (values - centre) / width))).astype(np.uint8)
        if rule == "LINEAR_EXACT":
            low, high = centre - width / 2, centre + width / 2
        else:
            low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
        return window_to_uint8(values, low, max(high, low + 1e-6))  # a width of 1 is a threshold
    padding = data.get("PixelPaddingValue")
    shown = values if padding is None else values[pixels != padding]
    shown = values if shown.size == 0 else shown
    return window_to_uint8(values, float(shown.min()), float(shown.max()))
