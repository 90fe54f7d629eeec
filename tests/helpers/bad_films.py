"""Film files that no one can read, each broken in its own way, for the tests of what meets them."""

import numpy as np

from tests.helpers.dicom import lookup_table, overwrite, write_dicom
from tests.helpers.image_files import png_bytes, tiff_bytes


def write_bad_films(folder):
    """Paths of the files by what is wrong with them."""
    ramp = np.tile(np.arange(64, dtype=np.uint16) * 16, (8, 1))
    deep = ramp.reshape(8, 64, 1)
    short = lookup_table(np.arange(100), 0, 12)
    short.LUTDescriptor = [4096, 0, 12]
    dicoms = {
        "frames": ({"NumberOfFrames": 1}, "NumberOfFrames", b"?"),
        "rows": ({}, "Rows", b""),
        "window": ({"WindowCenter": 2000, "WindowWidth": 400}, "WindowCenter", b"NORMAL"),
        "slope": ({"RescaleSlope": 1, "RescaleIntercept": 0}, "RescaleSlope", b"nan"),
        "bits": ({}, "BitsStored", b"\x40\0"),
        "pixels": ({}, "PixelData", b"\1\2"),
        "table": ({"VOILUTSequence": [short]}, "Columns", (64).to_bytes(2, "little")),
    }
    for name, (fields, keyword, value) in dicoms.items():
        overwrite(write_dicom(folder / f"{name}.dcm", ramp, **fields), keyword, value)
    files = {
        "text.png": b"no film",
        "empty.jpg": b"",
        "cut.png": png_bytes(deep)[:-40],
        "cut.tif": tiff_bytes(deep)[:300],
        "planes.tif": tiff_bytes(np.repeat(deep, 3, axis=-1), planar=True),
        "long.png": png_bytes(np.tile(deep[:1], (1, 10, 1))),  # more than 200 times as wide as it is high
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "folder.png").mkdir()
    names = [*(f"{name}.dcm" for name in dicoms), *files, "folder.png", "missing.png"]
    return {name: folder / name for name in names}
