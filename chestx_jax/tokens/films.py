"""Film files: PNG, JPEG, TIFF or DICOM, read as RGB."""

import logging
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from chestx_jax.errors import UserError, one_line
from chestx_jax.tokens.dicom import load_dicom
from chestx_jax.tokens.patches import ImageSpec, resize
from chestx_jax.tokens.pictures import load_picture
from chestx_jax.tokens.pixels import distinct_channels

READER_VERSION = 1  # of the pixels that files decode to: raised with any change of them, so that stored ones are stale
LOG = logging.getLogger(__name__)
_VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")


def load_image(path: str | Path) -> UInt8[np.ndarray, "H W 3"]:
    """The film at `path` as RGB: DICOM by `tokens/dicom.py`, all else by `tokens/pictures.py`. A grey film is a
    read-only view of one channel (`pixels.grey_as_rgb`).

    Raises UserError, and nothing else, whatever the file: missing, no image, cut short, of zero area, implausibly
    large, broken in a way no one thought of. A film of one tone is read with a warning.
    """
    try:
        with np.errstate(all="ignore"):  # values off every scale become black or white
            film = _load(Path(path))
    except UserError:
        raise
    except Exception as error:  # readers and their plugins raise whatever they like
        raise UserError(f"The image {path} cannot be decoded ({one_line(error)}): replace the file.") from error
    channels = distinct_channels(film)
    if (channels[0] == channels[0, 0]).all() and (channels == channels[0, 0]).all():
        LOG.warning("%s is of one tone throughout: check the file.", path)
    return film


def load_film(path: str | Path, spec: ImageSpec) -> UInt8[np.ndarray, "h w 3"]:
    """The film at `path`, resized. Raises UserError for one that cannot be read or is of no shape to resize."""
    image = load_image(path)
    try:
        return resize(image, spec)
    except UserError as error:  # which does not name the file
        raise UserError(f"{path}: {error}") from error


def _load(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    try:
        with open(path, "rb") as file:
            is_dicom = file.read(132)[128:] == b"DICM"
    except OSError as error:
        raise UserError(
            f"The image {path} cannot be opened ({error.strerror}): check the path and image root."
        ) from error
    if path.suffix.lower() in _VIDEOS:
        raise UserError(f"{path} is a video, which no model here is shown: save the frame that matters as a picture.")
    return load_dicom(path) if is_dicom or path.suffix.lower() in (".dcm", ".dicom") else load_picture(path)
