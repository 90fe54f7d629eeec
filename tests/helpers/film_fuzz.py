"""Film files of every kind, mutated, and what the loader makes of them."""

import io
import logging
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from chestx_jax.errors import UserError
from chestx_jax.tokens.films import load_image
from chestx_jax.tokens.patches import ImageSpec, patches, resize
from tests.helpers.dicom import element_spans, lookup_table, with_value, write_dicom
from tests.helpers.fuzz import ODD_BYTES, mutated_bytes
from tests.helpers.image_files import png_bytes, png_chunk, tiff_bytes

SPEC = ImageSpec(max_pixels=20_000)
SILENT, UNCLEAR = "ONE TONE IN SILENCE", "NO SENTENCE"
ODD_NUMBERS = ("0", "-1", "1", "0.5", "1e-9", "2000", "4096", "40000", "-1024", "1e38", "1e308", "-1e308", "65536")


class FilmFuzz:
    """The fuzz of `load_image`: kinds of input, and the attempt to read one from a file in `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        pictures = {name: partial(_mutated_picture, name) for name in _pictures()}
        self.kinds = {
            **pictures,
            "PNG chunk": _mutated_png,
            "DICOM": lambda rng: mutated_bytes(rng, self._dicom(rng), most=1),
            "DICOM header": lambda rng: _mutated_header(rng, self._dicom(rng)),
            "DICOM elements": lambda rng: _mutated_elements(rng, self._dicom(rng)),
            "DICOM display": self._dicom,
            "DICOM of JPEG 2000": lambda rng: _mutated_elements(rng, mutated_bytes(rng, self._packed(rng), most=1)),
        }

    def attempt(self, content: bytes) -> str:
        """Reads a film and cuts it into patches; the outcome in words."""
        path, remarks = self.folder / "film.dat", []
        path.write_bytes(content)
        handler = logging.Handler()
        handler.emit = remarks.append
        logger = logging.getLogger("chestx_jax.tokens")
        logger.addHandler(handler)
        try:
            image = load_image(path)
            patches(resize(image, SPEC), SPEC)
        except UserError as error:
            return "one sentence" if len(str(error).splitlines()) == 1 else UNCLEAR
        finally:
            logger.removeHandler(handler)
        assert image.dtype == np.uint8
        assert image.shape[2:] == (3,)
        if (image == image[0, 0]).all() and not remarks:
            return SILENT
        return "film, warned" if remarks else "film"

    def _dicom(self, rng: np.random.Generator) -> bytes:
        """A film whose tables, windows, rescale and padding are drawn from what files do hold, sound or not."""
        dtype = (np.uint8, np.uint16, np.int16, np.float32)[rng.integers(4)]
        pixels = (rng.integers(0, 256, (9, 11)) * (1 if dtype == np.uint8 else 16)).astype(dtype)
        bits = {1: 8, 4: 32}.get(pixels.dtype.itemsize, int(rng.integers(9, 17)))
        odd = lambda: ODD_NUMBERS[rng.integers(len(ODD_NUMBERS))]  # noqa: E731
        table = lambda depth: lookup_table(  # noqa: E731
            rng.integers(0, 2 ** rng.integers(1, depth + 1), int(rng.integers(1, 5000))),
            int(rng.integers(-2000, 4000)),
            int(depth),
            ("<u2", "u1")[rng.integers(2)] if depth == 8 else "<u2",
            signed=True,
        )
        extras = {
            "WindowCenter": odd,
            "WindowWidth": odd,
            "RescaleSlope": odd,
            "RescaleIntercept": odd,
            "VOILUTFunction": lambda: ("LINEAR", "LINEAR_EXACT", "SIGMOID")[rng.integers(3)],
            "VOILUTSequence": lambda: [table((8, 10, 16)[rng.integers(3)])],
            "ModalityLUTSequence": lambda: [table((8, 16)[rng.integers(2)])],
            "PixelPaddingValue": lambda: int(rng.integers(0, 4096)),
            "PixelPaddingRangeLimit": lambda: int(rng.integers(0, 4096)),
            "NumberOfFrames": lambda: int(rng.integers(0, 3)),
        }
        fields = {name: make() for name, make in extras.items() if rng.random() < 0.35}
        photometric = ("MONOCHROME1", "MONOCHROME2")[rng.integers(2)]
        return write_dicom(self.folder / "made.dcm", pixels, photometric, bits, **fields).read_bytes()

    def _packed(self, rng: np.random.Generator) -> bytes:
        from pydicom.encaps import encapsulate
        from pydicom.uid import JPEG2000Lossless

        pixels = rng.integers(0, 65536, (16, 16)).astype(np.uint16)
        fields = {"syntax": JPEG2000Lossless, "PixelData": encapsulate([_saved(pixels, "JPEG2000", no_jp2=True)])}
        return write_dicom(self.folder / "made.dcm", pixels, **fields).read_bytes()


def _saved(pixels: np.ndarray, kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


@cache
def _pictures() -> dict[str, bytes]:
    """A sound file of each kind, small, so that mutations hit all its parts."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (12, 17), dtype=np.uint8)
    deep = rng.integers(0, 4096, (12, 17, 4)).astype(np.uint16)
    palette = io.BytesIO()
    Image.fromarray(grey).convert("P").save(palette, "PNG", transparency=5)
    gif = io.BytesIO()
    Image.fromarray(grey).save(gif, "GIF", save_all=True, append_images=[Image.fromarray(grey[::-1])])
    return {
        "JPEG": _saved(grey, "JPEG"),
        "PNG": _saved(grey, "PNG"),
        "PNG of a palette": palette.getvalue(),
        "PNG of 16-bit grey": png_bytes(deep[..., :1], transparent=[7]),
        "PNG of 16-bit RGBA": png_bytes(deep, interlaced=True),
        "TIFF of 16 bits": tiff_bytes(deep[..., :1], photometric=0),
        "TIFF of 16-bit RGB": tiff_bytes(deep[..., :3], ">", compressed=True),
        "TIFF of floats": tiff_bytes(deep[..., :1].astype(np.float32)),
        "GIF": gif.getvalue(),
        "BMP": _saved(grey, "BMP"),
        "WebP": _saved(grey, "WEBP"),
        "JPEG 2000": _saved(deep[..., 0], "JPEG2000"),
    }


def _mutated_picture(name: str, rng: np.random.Generator) -> bytes:
    return mutated_bytes(rng, _pictures()[name], most=2)


def _mutated_png(rng: np.random.Generator) -> bytes:
    """A PNG whose mutated chunk has a right checksum, so that the mutation is read."""
    sound = _pictures()[("PNG", "PNG of a palette", "PNG of 16-bit RGBA")[rng.integers(3)]]
    chunks, start = [], 8
    while start < len(sound):
        length = int.from_bytes(sound[start : start + 4], "big")
        chunks.append((sound[start + 4 : start + 8], sound[start + 8 : start + 8 + length]))
        start += 12 + length
    hit = rng.integers(len(chunks))
    content = [
        png_chunk(kind, mutated_bytes(rng, body, most=1) if i == hit else body) for i, (kind, body) in enumerate(chunks)
    ]
    return sound[:8] + b"".join(content)


def _mutated_header(rng: np.random.Generator, content: bytes) -> bytes:
    """Changes in front of the pixels alone."""
    *_, pixels = element_spans(content)
    return content[:132] + mutated_bytes(rng, content[132 : pixels.start], most=1) + content[pixels.start :]


def _mutated_elements(rng: np.random.Generator, content: bytes) -> bytes:
    """One to three elements with values that no one would write."""
    for _ in range(rng.integers(1, 4)):
        spans = list(element_spans(content))
        if not spans:
            break
        span = spans[rng.integers(len(spans))]
        odd = ODD_BYTES[rng.integers(len(ODD_BYTES))]
        value = (b"", odd, odd * 4, content[span.start : span.end] * 2, rng.bytes(2))[rng.integers(5)]
        content = with_value(content, span, value)
    return content
