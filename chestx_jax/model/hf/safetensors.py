"""Safetensors files, streamed: tensors are mapped, not loaded, and written one at a time.

Format: 8 bytes of little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}, the bytes
(https://github.com/huggingface/safetensors). Read and written here directly because the numpy interface of the
library has no bfloat16 and wants a whole file's tensors in memory before it writes.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import ml_dtypes
import numpy as np

from chestx_jax import files
from chestx_jax.errors import UserError

DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}
BLOCK = 1 << 26  # bytes
SINGLE = "model.safetensors"
INDEX = f"{SINGLE}.index.json"


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


def find(folder: str | Path, skip: Callable[[str], bool] = lambda name: False) -> dict[str, Tensor]:
    """Every tensor of a checkpoint folder, by name, but those to `skip`: of model.safetensors, or without it of the
    files that the index lists, as transformers chooses. Other files of weights are not read.

    Raises UserError for neither, an index that names a missing file or tensor, or a file that is cut short.
    """
    folder = Path(folder)
    if (folder / SINGLE).is_file():
        return _header(folder / SINGLE, skip)
    index = folder / INDEX
    if not index.is_file():
        others = sorted(
            path.name for path in folder.glob("*") if path.suffix in (".safetensors", ".bin", ".pth", ".pt")
        )
        listed = f", only {', '.join(others)}, which transformers does not load by that name either" if others else ""
        raise UserError(f"{folder} holds no {SINGLE} and no {INDEX}{listed}: give a Hugging Face checkpoint folder.")
    weight_map = files.read_json_object(index, "fetch it again").get("weight_map")
    if not isinstance(weight_map, dict) or not all(_is_file_name(file) for file in weight_map.values()):
        raise UserError(f"{index} is no index of tensors (weight_map): fetch it again.")
    missing = sorted({file for file in weight_map.values() if not os.path.isfile(folder / file)})
    if missing:
        raise UserError(f"{index} names files that are missing: {', '.join(missing)}: fetch them.")
    headers = {file: _header(folder / file, skip) for file in sorted(set(weight_map.values()))}
    listed_tensors = {name: file for name, file in weight_map.items() if not skip(name)}
    absent = sorted(name for name, file in listed_tensors.items() if name not in headers[file])
    if absent:
        raise UserError(f"{index} names tensors its files do not hold: {', '.join(absent)}.")
    return {name: headers[file][name] for name, file in listed_tensors.items()}


def _is_file_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and value == Path(value).name


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


def _header(path: Path, skip: Callable[[str], bool]) -> dict[str, Tensor]:
    """The tensors of a file by name, but those to `skip`."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        header = _parse(file.read(length)) if 8 + length <= size else None
    if not isinstance(header, dict):
        raise UserError(_broken(path))
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__" and not skip(name):
            tensors[name] = _tensor(path, name, entry, 8 + length, size)
    return tensors


def _parse(header: bytes) -> Any:
    try:
        return json.loads(header)
    except (ValueError, RecursionError):
        return None


def _tensor(path: Path, name: str, entry: Any, start: int, size: int) -> Tensor:
    """The tensor that a header's entry describes, in a file of `size` bytes whose values begin at `start`."""
    fields = entry if isinstance(entry, dict) else {}
    code, shape, offsets = (fields.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not (isinstance(code, str) and _is_sizes(shape) and _is_sizes(offsets) and len(offsets) == 2):
        raise UserError(_broken(path))
    if code not in DTYPES:
        raise UserError(f"{name} in {path} is stored as {code}: convert it to F32, F16 or BF16 (no quantised forms).")
    begin, end = offsets
    if end - begin != math.prod(shape) * DTYPES[code].itemsize or start + end > size:
        raise UserError(_broken(path))
    return Tensor(path, DTYPES[code], tuple(shape), start + begin)


def _is_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _broken(path: Path) -> str:
    return f"{path} is cut short or no safetensors file: fetch it again."
