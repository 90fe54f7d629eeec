"""Safetensors files, streamed: tensors are mapped, not loaded, and written one at a time.

Format: 8 bytes of little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}, the bytes
(https://github.com/huggingface/safetensors). Read and written here directly because the numpy interface of the
library has no bfloat16 and wants a whole file's tensors in memory before it writes.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from chestx_jax.errors import UserError

DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}
BLOCK = 1 << 26  # bytes
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file and its position in it, in bytes."""

    file: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int

    def map(self) -> np.ndarray:
        """The tensor, read-only, paged in as it is used and dropped with the last reference."""
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        return np.memmap(self.file, self.dtype, "r", self.offset, self.shape)


def find(folder: str | Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint folder, by name: of the files its index lists, or of all its safetensors files.

    Raises UserError for no files, an index that names a missing file or tensor, or a file that is cut short.
    """
    folder = Path(folder)
    if (folder / INDEX).is_file():
        try:
            weight_map: dict[str, str] = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder / INDEX} is no index of tensors ({error}): fetch it again.") from error
        missing = sorted({file for file in weight_map.values() if not (folder / file).is_file()})
        if missing:
            raise UserError(f"{folder / INDEX} names files that are missing: {', '.join(missing)}: fetch them.")
        tensors = {name: tensor for file in sorted(set(weight_map.values())) for name, tensor in _header(folder / file)}
        absent = sorted(
            name for name, file in weight_map.items() if name not in tensors or tensors[name].file.name != file
        )
        if absent:
            raise UserError(f"{folder / INDEX} names tensors its files do not hold: {', '.join(absent)}.")
        return {name: tensors[name] for name in weight_map}
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder} holds no safetensors files: give a Hugging Face checkpoint folder.")
    return {name: tensor for file in files for name, tensor in _header(file)}


def write(path: Path, specs: Iterable[tuple[str, np.dtype, tuple[int, ...]]], arrays: Iterator[np.ndarray]) -> None:
    """Write the tensors that `specs` (name, dtype, shape) lists, each taken from `arrays` in turn; synced to disk."""
    codes = {dtype: code for code, dtype in DTYPES.items()}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dtype, shape in specs:
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": codes[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays:
            for block in _blocks(array):
                file.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Slices of the array along its first dimension, so that a transposed one is copied in parts."""
    if not array.size or not array.ndim:
        return iter([array])
    step = max(1, BLOCK * len(array) // array.nbytes)
    return (array[start : start + step] for start in range(0, len(array), step))


def nonfinite(array: np.ndarray) -> bool:
    """Whether any value is NaN or infinite, from the bits: exponent all ones."""
    bits, mask = {
        "float32": (np.uint32, 0x7F800000),
        "bfloat16": (np.uint16, 0x7F80),
        "float16": (np.uint16, 0x7C00),
    }[array.dtype.name]
    exponents = array.reshape(-1).view(bits) & bits(mask)
    return bool((exponents == bits(mask)).any())


def _header(path: Path) -> list[tuple[str, Tensor]]:
    broken = f"{path} is cut short or no safetensors file: fetch it again."
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise UserError(broken)
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            entries = [(name, x["dtype"], tuple(x["shape"]), *x["data_offsets"]) for name, x in header.items()]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(broken) from error
    tensors = []
    for name, code, shape, start, end in entries:
        if code not in DTYPES:
            raise UserError(
                f"{name} in {path} is stored as {code}: convert it to F32, F16 or BF16 (no quantised forms)."
            )
        if end - start != math.prod(shape) * DTYPES[code].itemsize or 8 + length + end > size:
            raise UserError(broken)
        tensors.append((name, Tensor(path, DTYPES[code], shape, 8 + length + start)))
    return tensors
