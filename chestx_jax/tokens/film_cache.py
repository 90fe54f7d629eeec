"""Resized films on disk: what was decoded once is not decoded again, in later epochs, runs and processes.

An entry is named by all that made it: the version of the reader, the rule of resizing, and path, size and time of the
file. So nothing in a cache is ever wrong, only unused, and processes share one without locks: entries are written whole
or not at all, and whichever comes last wins with the same bytes.
"""

import contextlib
import hashlib
import itertools
import logging
import os
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from chestx_jax import files
from chestx_jax.tokens.films import READER_VERSION, load_film
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.pixels import distinct_channels, grey_as_rgb

LOG = logging.getLogger(__name__)
_HEADER = np.dtype([("crc", "<u4"), ("height", "<u4"), ("width", "<u4"), ("channels", "<u4")])
_FRESH = 3600.0  # seconds: how old an entry's last use may be before a new one is noted
_SHARE = 16  # of the limit: what a process writes between two looks at the whole cache


class _Entry(NamedTuple):
    used: float  # seconds since the epoch
    size: int
    path: str


class FilmCache:
    """Resized films in `folder`, in at most about `limit` bytes: beyond it, the films unused for longest go."""

    def __init__(self, folder: str | Path, limit: int):
        self.folder, self.limit = Path(folder), limit
        self._lock = threading.Lock()
        self._written = limit  # bytes since the last look at the whole cache: the first write takes one

    def load(self, path: str | Path, spec: ImageSpec) -> UInt8[np.ndarray, "h w 3"]:
        """The film at `path` as `load_film` makes it. Raises UserError as that does."""
        entry = self._entry(path, spec)
        film = None if entry is None else _read(entry)
        if film is None:
            film = load_film(path, spec)
            if entry is not None:
                self._write(entry, film)
        return film

    def _entry(self, path: str | Path, spec: ImageSpec) -> Path | None:
        """Where the film is kept; None for a file that is not there."""
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return None
        bounds = spec.height, spec.width, spec.min_pixels, spec.max_pixels, spec.patch_size * spec.merge_size
        made_by = READER_VERSION, bounds, os.path.abspath(path), status.st_size, status.st_mtime_ns
        name = hashlib.sha256(repr(made_by).encode("utf-8", "surrogateescape")).hexdigest()
        return self.folder / name[:2] / name[2:]

    def _write(self, entry: Path, film: UInt8[np.ndarray, "h w 3"]) -> None:
        """Keeps a film. A disk that is full or does not let itself be written costs time, not the run."""
        channels = distinct_channels(film)
        pixels = channels.tobytes()
        content = np.array((zlib.crc32(pixels), *channels.shape), _HEADER).tobytes() + pixels
        try:
            self._make_room(len(content))
            files.write_bytes(entry, content)
        except OSError as error:
            LOG.warning("the film cache %s cannot be written (%s); films are decoded anew", self.folder, error.strerror)

    def _make_room(self, size: int) -> None:
        with self._lock:
            self._written += size
            if self._written <= self.limit / _SHARE:
                return
            self._written = size
        entries = sorted(_entries(self.folder))
        excess = sum(entry.size for entry in entries) + size - self.limit
        if excess > 0:  # and room until the next look
            sizes = itertools.accumulate(entry.size for entry in entries)
            for entry, freed in zip(entries, sizes, strict=True):
                with contextlib.suppress(OSError):  # another process was first
                    os.remove(entry.path)
                if freed >= excess + self.limit / _SHARE:
                    break


def _read(entry: Path) -> UInt8[np.ndarray, "h w 3"] | None:
    """The film of an entry; None where there is none, or not all of it."""
    try:
        content = entry.read_bytes()
        if time.time() - entry.stat().st_mtime > _FRESH:
            os.utime(entry)
    except OSError:
        return None
    if len(content) < _HEADER.itemsize:
        return None
    crc, *shape = np.frombuffer(content, _HEADER, 1)[0].tolist()
    pixels = content[_HEADER.itemsize :]
    if len(pixels) != np.prod(shape, dtype=np.int64) or shape[2] not in (1, 3) or zlib.crc32(pixels) != crc:
        return None
    channels = np.frombuffer(pixels, np.uint8).reshape(shape)
    return grey_as_rgb(channels[..., 0]) if shape[2] == 1 else channels


def _entries(folder: Path) -> Iterator[_Entry]:
    """Everything in a cache, also what killed processes have left half written."""
    for path in folder.glob("??/*"):
        with contextlib.suppress(OSError):
            status = path.stat()
            yield _Entry(status.st_mtime, status.st_size, str(path))
