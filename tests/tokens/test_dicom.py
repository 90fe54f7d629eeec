"""DICOM films, written here with pydicom and read back as a viewer would show them."""

import numpy as np
import pytest

from chestx_jax.errors import UserError
from chestx_jax.tokens.films import load_image
from tests.helpers.dicom import write_dicom

pydicom = pytest.importorskip("pydicom", exc_type=ImportError)


def ramp(height=16, width=256, step=16):
    return np.tile(np.arange(width, dtype=np.uint16) * step, (height, 1))


def grey(path):
    image = load_image(path)
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    assert (image[..., 0] == image[..., 1]).all()
    return image[0, :, 0].astype(int)


def test_without_a_window_the_whole_range_is_shown(tmp_path):
    values = grey(write_dicom(tmp_path / "a.dcm", ramp(step=15) + 100))
    np.testing.assert_array_equal(values, np.arange(256))


def test_monochrome1_is_inverted(tmp_path):
    values = grey(write_dicom(tmp_path / "a.dcm", ramp(), "MONOCHROME1"))
    np.testing.assert_array_equal(values, 255 - np.arange(256))


@pytest.mark.parametrize("rule", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_follow_the_standard_and_pydicom(tmp_path, rule):
    from pydicom.pixels import apply_voi_lut

    path = write_dicom(tmp_path / "a.dcm", ramp(), WindowCenter=2000, WindowWidth=1500, VOILUTFunction=rule)
    data = pydicom.dcmread(path)
    expected = apply_voi_lut(data.pixel_array, data)[0] / 4095 * 255
    assert np.abs(grey(path) - expected).max() <= 0.51


def test_rescale_comes_before_the_window(tmp_path):
    plain = write_dicom(tmp_path / "a.dcm", ramp(), WindowCenter=2000, WindowWidth=1500)
    rescaled = write_dicom(
        tmp_path / "b.dcm", ramp(), WindowCenter=2976, WindowWidth=3000, RescaleSlope=2, RescaleIntercept=-1024
    )
    assert np.abs(grey(plain) - grey(rescaled)).max() <= 1
    assert (grey(plain) != np.arange(256)).any()


def test_a_lookup_table_is_applied(tmp_path):
    from pydicom.dataset import Dataset

    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.LUTData = (65535 - np.arange(4096) * 16).astype(np.uint16).tobytes()
    path = write_dicom(tmp_path / "a.dcm", ramp(), VOILUTSequence=[table])
    expected = (65535 - np.arange(256) * 256 - 15) * 255 / (65535 - 15)  # over the table's own range
    assert np.abs(grey(path) - expected).max() <= 0.51


def test_signed_pixels_several_windows_and_padding(tmp_path):
    signed = ramp().astype(np.int16) - 2048
    path = write_dicom(tmp_path / "a.dcm", signed, bits=16, WindowCenter=[0, 50], WindowWidth=[4096, 100])
    assert np.abs(grey(path) - np.arange(256)).max() <= 1
    padded = signed.copy()
    padded[:, 0] = -32768
    values = grey(write_dicom(tmp_path / "b.dcm", padded, bits=16, PixelPaddingValue=-32768))
    assert values[0] == 0
    assert (values[1], values[128], values[255]) == (0, 128, 255)


def test_a_width_of_one_is_a_threshold(tmp_path):
    values = grey(write_dicom(tmp_path / "a.dcm", ramp(), WindowCenter=2001, WindowWidth=1))
    np.testing.assert_array_equal(values, np.where(np.arange(256) * 16 > 2000.5, 255, 0))


def test_colour_films_stay_colour(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(load_image(write_dicom(tmp_path / "a.dcm", rgb, "RGB", bits=8)), rgb)
    flat = np.full((8, 9, 3), 128, np.uint8)
    flat[..., 0] = np.arange(72).reshape(8, 9)
    shown = load_image(write_dicom(tmp_path / "b.dcm", flat, "YBR_FULL", bits=8)).astype(int)
    assert np.abs(shown - flat[..., :1]).max() <= 1


def test_suffix_or_magic_bytes_make_a_dicom(tmp_path):
    path = write_dicom(tmp_path / "film", ramp())
    np.testing.assert_array_equal(load_image(path), load_image(write_dicom(tmp_path / "film.dcm", ramp())))


def test_bad_files_are_named(tmp_path):
    from pydicom.uid import JPEG2000Lossless

    (tmp_path / "text.dcm").write_text("no film")
    cut = write_dicom(tmp_path / "cut.dcm", ramp())
    cut.write_bytes(cut.read_bytes()[:2000])
    write_dicom(tmp_path / "empty.dcm", ramp(), PixelData=None)
    write_dicom(tmp_path / "frames.dcm", np.tile(ramp(), (2, 1)), NumberOfFrames=2, Rows=16)
    write_dicom(tmp_path / "palette.dcm", ramp(), "PALETTE COLOR")
    write_dicom(tmp_path / "bomb.dcm", ramp(), Rows=60_000, Columns=60_000)
    encapsulated = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51 not really"])
    write_dicom(tmp_path / "packed.dcm", ramp(), syntax=JPEG2000Lossless, PixelData=encapsulated)
    reasons = {
        "text.dcm": "no readable DICOM",
        "cut.dcm": "cannot be decoded",
        "empty.dcm": "holds no pixels",
        "frames.dcm": "2 frames",
        "palette.dcm": "PALETTE COLOR",
        "bomb.dcm": "60000×60000",
        "packed.dcm": "JPEG 2000",
    }
    for name, reason in reasons.items():
        with pytest.raises(UserError, match=reason) as caught:
            load_image(tmp_path / name)
        assert name in str(caught.value)


def test_without_pydicom_the_error_says_what_to_install(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm", ramp())
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(UserError, match=r"chestx-jax\[dicom\]"):
        load_image(path)
