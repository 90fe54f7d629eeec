"""A process that makes small films: reads jobs as JSON lines from standard input and answers each with a line.

Run as `python -m chestx_jax.sources.film_worker`. It ends with its input, so that none outlives a command that is
killed.
"""

import errno
import io
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from chestx_jax import files
from chestx_jax.errors import UserError, one_line
from chestx_jax.tokens.films import load_image
from chestx_jax.tokens.pixels import distinct_channels

Aspect = Literal["keep", "squash"]
_ORIGINAL = "original_size"  # of the film, in pixels, kept in the small one's metadata


@dataclass(frozen=True)
class FilmJob:
    """A film to read and where the small one goes."""

    raw: str
    out: str
    size: int
    aspect: Aspect


@dataclass(frozen=True)
class FilmResult:
    """What became of a job: "" or why the film cannot be read; `disk_full` where it could not be written."""

    error: str = ""
    disk_full: bool = False


def small_film(film: UInt8[np.ndarray, "H W 3"], size: int, aspect: Aspect) -> UInt8[np.ndarray, "h w C"]:
    """The film as one channel where its three are equal, else three, resized by Pillow's bicubic filter: squashed to
    `size` × `size` pixels, or with its shape kept and the longer side at most `size` (never enlarged)."""
    channels = distinct_channels(film)
    if channels.shape[2] == 3 and (channels[..., :1] == channels[..., 1:]).all():
        channels = channels[..., :1]
    height, width = channels.shape[:2]
    scale = min(1.0, size / max(height, width))
    shape = (size, size) if aspect == "squash" else (max(1, round(width * scale)), max(1, round(height * scale)))
    image = Image.fromarray(channels[..., 0] if channels.shape[2] == 1 else channels)
    if image.size != shape:
        image = image.resize(shape, Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(shape[1], shape[0], -1)


def convert_film(job: FilmJob) -> FilmResult:
    """Reads, resizes and writes a film as PNG, whole or not at all."""
    try:
        film = load_image(job.raw)
        small = small_film(film, job.size, job.aspect)
    except UserError as error:
        return FilmResult(error=one_line(error, 400))
    about = PngInfo()
    about.add_text(_ORIGINAL, f"{film.shape[1]} {film.shape[0]}")
    content = io.BytesIO()
    Image.fromarray(small[..., 0] if small.shape[2] == 1 else small).save(
        content, "PNG", compress_level=1, pnginfo=about
    )
    try:
        files.write_bytes(job.out, content.getvalue())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return FilmResult(disk_full=True)
        raise
    return FilmResult()


def original_size(path: Path) -> tuple[int, int]:
    """Width and height of the film that the small one at `path` was made from."""
    with Image.open(path) as image:
        width, height = image.info[_ORIGINAL].split()
    return int(width), int(height)


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(asdict(convert_film(FilmJob(**json.loads(line))))), flush=True)


if __name__ == "__main__":
    main()
