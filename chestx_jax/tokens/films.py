"""Film files: PNG, JPEG, TIFF or DICOM, read as RGB."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from chestx_jax.errors import UserError
from chestx_jax.tokens.dicom import load_dicom
from chestx_jax.tokens.pixels import MAX_PIXELS, check_area, to_rgb


def load_image(path: str | Path) -> UInt8[np.ndarray, "H W 3"]:
    """The film at `path` as RGB. Transparency is laid on white, 16-bit and float films are windowed to 8 bits from
    their least to their greatest value, orientation tags are ignored; DICOM goes through `tokens/dicom.py`.

    Raises UserError for a file that is missing, no image, cut short, of zero area or implausibly large.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            is_dicom = file.read(132)[128:] == b"DICM"
    except OSError as error:
        raise UserError(
            f"The image {path} cannot be opened ({error.strerror}): check the path and image root."
        ) from error
    if is_dicom or path.suffix.lower() in (".dcm", ".dicom"):
        return load_dicom(path)
    try:
        with Image.open(path) as image:
            check_area(path, *image.size)
            return to_rgb(image)
    except Image.DecompressionBombError as error:
        raise UserError(f"The image {path} has more than {MAX_PIXELS:,} pixels: shrink it first.") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"The image {path} cannot be decoded ({error}): replace the file.") from error
