"""PNG and TIFF files of any depth, which Pillow does not write: bytes made from the formats' specifications."""

import struct
import zlib

import numpy as np

_PNG_COLOUR = {1: 0, 3: 2, 2: 4, 4: 6}  # channels: colour type
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bytes(pixels, transparent=None, interlaced=False):
    """`pixels` [H, W, C] of 8 or 16 bits, every row filtered another way; `transparent` is a colour (tRNS)."""
    height, width, channels = pixels.shape
    depth = 8 * pixels.dtype.itemsize
    header = struct.pack(">IIBBBBB", width, height, depth, _PNG_COLOUR[channels], 0, 0, int(interlaced))
    passes = [pixels[y::dy, x::dx] for y, x, dy, dx in _ADAM7] if interlaced else [pixels]
    content = zlib.compress(b"".join(_filtered(part) for part in passes if part.size))
    key = b"" if transparent is None else png_chunk(b"tRNS", np.asarray(transparent, ">u2").tobytes())
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + key + png_chunk(b"IDAT", content) + png_chunk(b"IEND", b"")
    )


def _filtered(pixels):
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(len(pixels), -1).view(np.uint8).astype(int)
    step = pixels.shape[2] * pixels.dtype.itemsize
    left = np.pad(rows, ((0, 0), (step, 0)))[:, : rows.shape[1]]
    up = np.pad(rows, ((1, 0), (0, 0)))[:-1]
    corner = np.pad(left, ((1, 0), (0, 0)))[:-1]
    near = np.abs(left + up - corner - np.stack([left, up, corner]))
    paeth = np.choose(near.argmin(axis=0), [left, up, corner])
    guesses = [0 * rows, left, up, (left + up) // 2, paeth]
    lines = []
    for y, row in enumerate(rows):
        kind = y % 5
        lines.append(bytes([kind]) + ((row - guesses[kind][y]) % 256).astype(np.uint8).tobytes())
    return b"".join(lines)


def tiff_bytes(pixels, order="<", photometric=None, compressed=False, planar=False, sample_format=None, extra=None):
    """`pixels` [H, W, C] of any type in one strip (or one a channel, `planar`); `extra` is what a fourth channel is."""
    height, width, channels = pixels.shape
    planes = [pixels[..., c] for c in range(channels)] if planar else [pixels]
    strips = [plane.astype(pixels.dtype.newbyteorder(order)).tobytes() for plane in planes]
    strips = [zlib.compress(strip) for strip in strips] if compressed else strips
    formats = {"u": 1, "i": 2, "f": 3}
    offsets = np.cumsum([8, *map(len, strips)]).tolist()
    tags = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [8 * pixels.dtype.itemsize] * channels),
        259: ("H", [8 if compressed else 1]),
        262: ("H", [photometric if photometric is not None else 2 if channels > 2 else 1]),
        273: ("I", offsets[:-1]),
        277: ("H", [channels]),
        278: ("I", [height]),
        279: ("I", [len(strip) for strip in strips]),
        284: ("H", [2 if planar else 1]),
        339: ("H", [sample_format or formats[pixels.dtype.kind]] * channels),
    }
    if extra is not None:
        tags[338] = ("H", [extra])
    place = offsets[-1] + 2 + 12 * len(tags) + 4
    entries, values = b"", b""
    for tag, (kind, numbers) in sorted(tags.items()):
        content = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        if len(content) > 4:
            content, values = struct.pack(order + "I", place + len(values)), values + content
        entries += struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[kind], len(numbers)) + content.ljust(4, b"\0")
    start = b"II*\0" if order == "<" else b"MM\0*"
    head = start + struct.pack(order + "I", offsets[-1]) + b"".join(strips)
    return head + struct.pack(order + "H", len(tags)) + entries + struct.pack(order + "I", 0) + values
