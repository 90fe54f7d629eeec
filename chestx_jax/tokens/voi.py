"""Stored DICOM values as shades of grey: padding, Modality LUT or rescale, VOI LUT or window (PS3.3 C.7.5.1.1.2, C.11).

Every function works on values alone, wherever they stand in the film, in float64: nothing is cast back to the stored
type, which need not hold what a rescale makes.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Integer, Shaped, UInt8

from chestx_jax.errors import UserError
from chestx_jax.tokens.pixels import window_to_uint8

LOG = logging.getLogger(__name__)


def display_values(path: Path, stored: Shaped[np.ndarray, "*S"], data: Any) -> UInt8[np.ndarray, "*S"]:
    """The grey of each stored value as the file's VOI LUT or window shows it, without MONOCHROME1's inversion.

    Where that shows all values but padding in one tone, the next of the file's tables and windows is taken, and at
    last the values' own range; a warning says so. A file with neither table nor window shows its own range.

    Raises UserError for tables and numbers that cannot be read.
    """
    shown = ~_padding(path, stored, data)
    if not shown.any():
        shown = np.ones_like(shown)
    values = _modality_values(path, stored, data)
    first = None
    unusable: list[str] = []
    for name, grey in _views(path, stored, values, shown, data):
        if np.ptp(grey[shown]) > 0:
            if unusable:
                LOG.warning("%s: one tone by its %s; shown by its %s.", path, ", ".join(unusable), name)
            return grey
        first = grey if first is None else first
        unusable.append(name)
    assert first is not None
    return first


def _views(
    path: Path, stored: np.ndarray, values: Float64[np.ndarray, "*S"], shown: Bool[np.ndarray, "*S"], data: Any
) -> Iterator[tuple[str, UInt8[np.ndarray, "*S"]]]:
    """The ways to show the values, the file's own first, each with its name."""
    for item in data.get("VOILUTSequence") or ():
        table = _lookup_table(path, item, "VOI LUT")
        yield "VOI LUT", window_to_uint8(_look_up(table, values), table.entries.min(), table.entries.max())
    centres, widths = (_numbers(path, data, name) for name in ("WindowCenter", "WindowWidth"))
    rule = str(data.get("VOILUTFunction") or "LINEAR").upper()
    for centre, width in zip(centres, widths, strict=False):
        step = _value_step(path, stored, data)
        yield f"window of width {width:g} at {centre:g}", _window(values, centre, width, rule, step)
    for name, range_of in (("values' own range", values), ("stored values' own range", stored)):
        finite = range_of[shown & np.isfinite(range_of)]
        if not finite.size:
            raise UserError(f"{path} has no finite pixel: replace the file.")
        yield name, window_to_uint8(range_of, float(finite.min()), float(finite.max()))


def _window(
    values: Float64[np.ndarray, "*S"], centre: float, width: float, rule: str, step: float
) -> UInt8[np.ndarray, "*S"]:
    """The values through a window (C.11.2.1.2, C.11.2.1.3); black where it is not even as wide as a step of them.

    LINEAR reaches from half the width below the centre to 1 less than that above it, as the standard has it for whole
    numbers. Where that would cost a narrow window grey levels, it is a step of the values, which may be less than 1.
    """
    if width <= 0 or width < step:
        return np.zeros(values.shape, np.uint8)
    if rule == "SIGMOID":
        return np.rint(255.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -700, 700)))).astype(np.uint8)
    inset = 0.0 if rule == "LINEAR_EXACT" else step if width < 256 else 1.0
    low, high = centre - width / 2, centre + width / 2 - inset
    if high <= low:  # one step wide: a threshold
        return np.where(values > low, np.uint8(255), np.uint8(0))
    return window_to_uint8(values, low, high)


def _value_step(path: Path, stored: np.ndarray, data: Any) -> float:
    """The distance of neighbouring values, at most 1: less after a rescale by less than 1, 0 for float pixels."""
    if stored.dtype.kind == "f":
        return 0.0
    return 1.0 if data.get("ModalityLUTSequence") else min(1.0, abs(_number(path, data, "RescaleSlope", 1.0)))


def _modality_values(path: Path, stored: Shaped[np.ndarray, "*S"], data: Any) -> Float64[np.ndarray, "*S"]:
    if data.get("ModalityLUTSequence"):
        table = _lookup_table(path, data.ModalityLUTSequence[0], "Modality LUT")
        if table.bits not in (8, 16):
            raise UserError(f"{path} has a Modality LUT of {table.bits} bits, and DICOM knows 8 and 16: rewrite it.")
        return _look_up(table, stored.astype(np.float64))
    slope, intercept = _number(path, data, "RescaleSlope", 1.0), _number(path, data, "RescaleIntercept", 0.0)
    return stored.astype(np.float64) * slope + intercept


def _padding(path: Path, stored: Shaped[np.ndarray, "*S"], data: Any) -> Bool[np.ndarray, "*S"]:
    """Which values only fill the film's rectangle: Pixel Padding Value, or from it to Pixel Padding Range Limit.

    Files often give a signed value as unsigned or the reverse: its bits are what counts.
    """
    prefix = {"float32": "Float", "float64": "DoubleFloat"}.get(stored.dtype.name, "")
    ends = [_numbers(path, data, f"{prefix}PixelPadding{end}")[:1] for end in ("Value", "RangeLimit")]
    if not ends[0]:
        return np.zeros(stored.shape, bool)
    given = np.array(ends[0] + (ends[1] or ends[0]))
    if not prefix:
        bits = int(data.BitsStored)
        low = -(1 << (bits - 1)) if data.PixelRepresentation else 0
        given = (given - low) % (1 << bits) + low
    return (stored >= given.min()) & (stored <= given.max())


class _LookupTable(NamedTuple):
    first: int  # the value that the first entry is for
    bits: int  # of an entry, as declared
    entries: Integer[np.ndarray, " N"]


def _lookup_table(path: Path, item: Any, name: str) -> _LookupTable:
    """An item of a Modality or VOI LUT Sequence (C.11.1.1.1, C.11.2.1.1). Entries of 8 bits may be packed in words."""
    descriptor = _numbers(path, item, "LUTDescriptor")
    if len(descriptor) != 3:
        raise UserError(f"{path} has a {name} whose descriptor is not of three numbers: rewrite the table.")
    count, first, bits = int(descriptor[0]) % (1 << 16) or 1 << 16, int(descriptor[1]), int(descriptor[2])
    content = item.get("LUTData")
    if isinstance(content, bytes):
        little_endian = item.original_encoding[1] is not False
        words = np.frombuffer(content + b"\0" * (len(content) % 2), "<u2" if little_endian else ">u2")
    else:
        words = np.asarray([] if content is None else np.atleast_1d(content)).astype(np.int64).astype(np.uint16)
    packed = bits <= 8 and len(words) < count
    entries = words.astype("<u2").view(np.uint8) if packed else words
    if len(entries) < count:
        raise UserError(f"{path} has a {name} of {len(entries)} entries that declares {count}: rewrite the table.")
    return _LookupTable(first, bits, entries[:count])


def _look_up(table: _LookupTable, values: Float64[np.ndarray, "*S"]) -> Float64[np.ndarray, "*S"]:
    """The entry of each value; values off the table's ends have the entry at that end. A first value that leaves all
    of them off it was written as unsigned where it is signed, or the reverse."""
    count = len(table.entries)
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    firsts = (table.first, table.first - (1 << 16), table.first + (1 << 16))
    first = next((first for first in firsts if first <= high and low < first + count), table.first)
    index = np.clip(np.rint(np.where(np.isnan(values), low, values)) - first, 0, count - 1)
    return table.entries[index.astype(np.intp)].astype(np.float64)


def _number(path: Path, data: Any, name: str, default: float) -> float:
    return next(iter(_numbers(path, data, name)), default)


def _numbers(path: Path, data: Any, name: str) -> list[float]:
    """The values of an element, none where it is absent or empty. Raises UserError where one is no finite number."""
    value = data.get(name)
    try:
        numbers = [] if value is None else [float(one) for one in np.atleast_1d(value)]
    except (TypeError, ValueError, OverflowError):
        numbers = [np.nan]
    if not np.isfinite(numbers).all():
        raise UserError(f"{path} has {name} {str(value)[:60]!r}, which is no number: export the file anew.")
    return numbers
