"""From stored DICOM values to grey: tables, rescales, windows and padding of any kind, right or refused."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax.errors import UserError
from chestx_jax.tokens.films import load_image
from tests.helpers.dicom import lookup_table, overwrite, write_dicom

pydicom = pytest.importorskip("pydicom", exc_type=ImportError)

RAMP = np.tile(np.arange(256, dtype=np.uint16) * 16, (8, 1))
WHOLE = np.arange(256)  # what the ramp over its whole range looks like


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """The first row of a film as read, written from pixels and elements."""
    path = tmp_path_factory.mktemp("films") / "film.dcm"

    def read(pixels=RAMP, photometric="MONOCHROME2", bits=12, **fields):
        image = load_image(write_dicom(path, pixels, photometric, bits, **fields))
        assert (image == image[..., :1]).all()
        return image[0, :, 0].astype(int)

    return read


def scaled(values, low=None, high=None):
    """The linear map that one would draw on paper."""
    values = np.asarray(values, float)
    low, high = (values.min() if low is None else low), (values.max() if high is None else high)
    return np.clip((values - low) / (high - low), 0, 1) * 255


@settings(max_examples=40)
@given(
    signed=st.booleans(),
    intercept=st.sampled_from([0, -1024, 700]),
    modality=st.sampled_from([None, 8, 16]),
    first=st.integers(-3000, 3000),
    count=st.sampled_from([2, 256, 4096]),
    top=st.sampled_from([16, 255, 4095, 65535]),
    bits=st.sampled_from([8, 10, 12, 16]),
    falling=st.booleans(),
    bytes_of=st.sampled_from([None, "<u2"]),
)
def test_tables_are_scaled_over_their_own_range(
    film, signed, intercept, modality, first, count, top, bits, falling, bytes_of
):
    """Whatever width they declare, in whatever type their entries come, after a rescale or a Modality LUT."""
    stored = RAMP.astype(np.int16) - 2048 if signed else RAMP
    fields, values = {"RescaleSlope": 1, "RescaleIntercept": intercept}, stored[0].astype(int) + intercept
    if modality:
        entries = np.linspace(0, 2**modality - 1, 4096).round().astype(int)
        fields = {"ModalityLUTSequence": [lookup_table(entries, int(stored.min()), modality, bytes_of, signed)]}
        values = entries[stored[0].astype(int) - int(stored.min())]
    entries = np.linspace(0, min(top, 2**bits - 1), count).round().astype(int)[:: -1 if falling else 1]
    table = lookup_table(entries, first, bits, bytes_of, signed=True)
    index = [min(max(value - first, 0), count - 1) for value in values]
    if len(set(entries[index])) > 1:  # else the table shows one tone
        shown = film(stored, VOILUTSequence=[table], **fields)
        assert np.abs(shown - scaled(entries[index], entries.min(), entries.max())).max() <= 0.501


def test_entries_of_8_bits_may_be_packed_in_words(film):
    entries = np.linspace(0, 255, 4096).round().astype(int)
    packed = film(VOILUTSequence=[lookup_table(entries, 0, 8, "u1")])
    np.testing.assert_array_equal(packed, film(VOILUTSequence=[lookup_table(entries, 0, 8)]))
    assert np.abs(packed - entries[::16]).max() == 0


@pytest.mark.parametrize(("first", "signed", "shift"), [(64512, False, -1024), (-25536, True, 40000)])
def test_a_first_value_of_the_wrong_sign_is_taken_by_its_bits(film, first, signed, shift):
    table = lookup_table(np.arange(4096), first, 12, signed=signed)
    shown = film(RescaleSlope=1, RescaleIntercept=shift, VOILUTSequence=[table])
    assert np.abs(shown - scaled(np.arange(256) * 16, 0, 4095)).max() <= 0.5


@settings(max_examples=50)
@given(
    centre=st.floats(-1e5, 1e5) | st.integers(0, 4096),
    width=st.sampled_from([-5, 0, 1e-9, 0.3, 1, 2, 255, 256]) | st.floats(0, 1e5),
    slope=st.sampled_from([1, 2, -1, 0.5, 1e-4, 0]),
    rule=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID", "CUBIC"]),
    photometric=st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
)
def test_no_window_makes_a_film_of_one_tone(film, centre, width, slope, rule, photometric):
    fields = {"RescaleSlope": slope, "RescaleIntercept": 0, "VOILUTFunction": rule}
    shown = film(photometric=photometric, WindowCenter=f"{centre:.8g}", WindowWidth=f"{width:.8g}", **fields)
    assert len(np.unique(shown)) > 1
    steps = np.diff(shown) * (-1 if photometric == "MONOCHROME1" else 1)
    assert (steps >= 0).all() or (steps <= 0).all()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"WindowCenter": 40000, "WindowWidth": 1000}, "window of width 1000 at 40000"),
        ({"WindowCenter": 0, "WindowWidth": 0}, "window of width 0 at 0"),
        ({"WindowCenter": 2000, "WindowWidth": -4000}, "window of width -4000"),
        ({"WindowCenter": 2000, "WindowWidth": 0.25, "VOILUTFunction": "SIGMOID"}, "window of width 0.25"),
        ({"WindowCenter": 2000, "WindowWidth": 4000, "RescaleSlope": 0, "RescaleIntercept": 5}, "own range"),
        ({"VOILUTSequence": [(np.zeros(4096, int), 0, 12)]}, "VOI LUT"),
        ({"VOILUTSequence": [(np.arange(100), 5000, 12)]}, "VOI LUT"),
        ({"ModalityLUTSequence": [(np.full(256, 7), 0, 8)]}, "values' own range; shown by its stored values"),
    ],
)
def test_what_shows_one_tone_gives_way_to_the_values_own_range_with_a_warning(film, caplog, fields, reason):
    fields = {
        name: [lookup_table(*item) for item in value] if name.endswith("Sequence") else value
        for name, value in fields.items()
    }
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(film(**fields), WHOLE)
    assert "film.dcm: one tone by its" in caplog.text
    assert reason in caplog.text


def test_the_first_window_that_shows_something_is_taken(film, caplog):
    both = film(WindowCenter=[40000, 2000], WindowWidth=[10, 1000])
    assert "width 10 at 40000; shown by its window of width 1000" in caplog.text
    np.testing.assert_array_equal(both, film(WindowCenter=2000, WindowWidth=1000))


@pytest.mark.parametrize("rule", ["LINEAR", "LINEAR_EXACT"])
@pytest.mark.parametrize("width", [0.408, 0.9, 1, 1.5, 4])
def test_windows_of_fractions_show_the_whole_ramp(film, width, rule):
    slope = width / 4080
    fields = {"RescaleSlope": f"{slope:.10g}", "RescaleIntercept": 0, "VOILUTFunction": rule}
    assert np.abs(film(WindowCenter=width / 2, WindowWidth=width, **fields) - WHOLE).max() <= 1


@settings(max_examples=25)
@given(
    signed=st.booleans(),
    ends=st.tuples(st.sampled_from([0, 40]), st.integers(0, 200)),  # 0 is where the greatest value stands
    limit=st.booleans(),
    unsigned_tag=st.booleans(),
)
def test_padding_takes_no_part_in_the_range(film, signed, ends, limit, unsigned_tag):
    """One value or a range either way round, of a signed film also where the file says it is unsigned."""
    stored = (RAMP.astype(np.int16) - 2048 if signed else RAMP)[:, ::-1].copy()
    given = [int(stored[0, end]) for end in ends]
    low, high = (min(given), max(given)) if limit else (given[0], given[0])
    coded = [value % 65536 if unsigned_tag else value for value in given]
    vr = "SS" if signed and not unsigned_tag else "US"
    elements = {"PixelPaddingValue": pydicom.DataElement("PixelPaddingValue", vr, coded[0])}
    if limit:
        elements["PixelPaddingRangeLimit"] = pydicom.DataElement("PixelPaddingRangeLimit", vr, coded[1])
    kept = (stored[0] < low) | (stored[0] > high)
    shown = film(stored, bits=12, **elements)
    assert np.abs(shown - scaled(stored[0], stored[0][kept].min(), stored[0][kept].max())).max() <= 0.501


def test_overlay_bits_are_no_pixels(film, tmp_path):
    """Bits above those stored, plain and in JPEG 2000."""
    import io

    from PIL import Image
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless

    stored = np.tile(RAMP, (8, 1))
    dirty = stored | (np.arange(256, dtype=np.uint16) % 3 << 13)[None]
    np.testing.assert_array_equal(film(dirty), WHOLE)
    file = io.BytesIO()
    Image.fromarray(dirty).save(file, "JPEG2000", irreversible=False, no_jp2=True)
    packed = encapsulate([file.getvalue()])
    path = write_dicom(tmp_path / "a.dcm", dirty, syntax=JPEG2000Lossless, PixelData=packed)
    np.testing.assert_array_equal(load_image(path)[0, :, 0], WHOLE)


def test_float_pixels_may_hold_no_number(film):
    stored = np.tile(np.linspace(-2, 3, 256, dtype=np.float32), (8, 1))
    stored[:, :3] = np.nan, np.inf, -np.inf
    shown = film(stored, bits=32)
    assert shown[:3].tolist() == [0, 255, 0]
    assert np.abs(shown[3:] - scaled(stored[0, 3:])).max() <= 0.5
    assert np.abs(film(stored, bits=32, WindowCenter=0.5, WindowWidth=1)[3:] - scaled(stored[0, 3:], 0, 1)).max() <= 0.5
    with pytest.raises(UserError, match="no finite pixel"):
        film(np.full((8, 8), np.nan, np.float32), bits=32)


def test_monochrome1_is_the_negative_of_whatever_is_shown(film):
    for fields in (
        {"WindowCenter": 2000, "WindowWidth": 1000},
        {"WindowCenter": 0, "WindowWidth": 0},
        {"VOILUTSequence": [lookup_table(np.arange(4096), 0, 12)]},
    ):
        np.testing.assert_array_equal(film(photometric="MONOCHROME1", **fields), 255 - film(**fields))


@pytest.mark.parametrize(
    ("keyword", "value", "reason"),
    [
        *((name, b"NORMAL", rf"{name} 'NORMAL'") for name in ("WindowCenter", "WindowWidth")),
        *((name, b"?", rf"{name} '\?'") for name in ("RescaleSlope", "RescaleIntercept", "NumberOfFrames")),
        ("WindowWidth", b"1e400", "WindowWidth"),
        ("WindowWidth", b"NaN", "WindowWidth"),
        ("NumberOfFrames", b"3", "3 frames"),
        *((name, value, "pixels") for name in ("Rows", "Columns") for value in (b"", b"\0\0")),
        ("Rows", b"\x10\0\x10\0", "Rows"),
        *((name, value, "decoded") for name in ("BitsAllocated", "PixelRepresentation") for value in (b"", b"\7\0")),
        *(("BitsStored", value, "BitsStored|decoded") for value in (b"", b"\0\0", b"\x11\0", b"\xff\xff")),
        ("SamplesPerPixel", b"\3\0", "decoded|shape"),
        ("PhotometricInterpretation", b"", "photometric"),
        ("PhotometricInterpretation", b"RGB ", "decoded|shape"),
        ("PixelData", b"", "no pixels|decoded"),
        ("PixelData", b"\1\2\3\4", "decoded"),
        ("TransferSyntaxUID", b"1.2.3.4", "decoded|readable"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # pydicom's own remarks on such files
def test_elements_that_make_no_sense_are_one_sentence(tmp_path, keyword, value, reason):
    fields = {"WindowCenter": 2000, "WindowWidth": 1000, "RescaleSlope": 1, "RescaleIntercept": 0, "NumberOfFrames": 1}
    path = overwrite(write_dicom(tmp_path / "film.dcm", RAMP, **fields), keyword, value)
    with pytest.raises(UserError, match=reason) as caught:
        load_image(path)
    assert "film.dcm" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"VOILUTSequence": [(np.arange(1000), 0, 12, "<u2")]}, "1000 entries that declares 4096"),
        ({"ModalityLUTSequence": [(np.arange(4096), 0, 12)]}, "12 bits"),
    ],
)
def test_tables_that_are_short_or_not_of_dicom_are_refused(film, fields, reason):
    ((name, ((entries, *rest),)),) = fields.items()
    table = lookup_table(entries, *rest)
    table.LUTDescriptor = [4096, 0, table.LUTDescriptor[2]]
    with pytest.raises(UserError, match=reason):
        film(**{name: [table]})


def test_the_faults_on_record_are_mended(shared_data):
    """Small files that were wrong, each with its right value."""
    folder = shared_data / "faults" / "dicom"
    if not folder.is_dir():
        pytest.skip("no folder of faults")
    refused = {"window_text", "frames_text", "rows_missing", "lut_short_data", "mlut_12"}
    ramps = {path.stem for path in folder.glob("*.dcm")} - refused
    assert len(ramps) >= 10
    for name in sorted(refused):
        with pytest.raises(UserError, match=name):
            load_image(folder / f"{name}.dcm")
    for name in sorted(ramps):
        row = load_image(folder / f"{name}.dcm")[0, :, 0].astype(int)
        wanted = {
            "lut_unsigned_rescale_neg_first0": np.maximum(WHOLE - 64, 0),
            "padding_range": scaled(pydicom.dcmread(folder / f"{name}.dcm").pixel_array[0], 16, 4040),
        }.get(name, WHOLE)
        if name == "padding_range":
            assert (row[0], row[-1], len(np.unique(row)) > 100) == (0, 255, True)
        else:
            assert np.abs(row - wanted).max() <= 1, name
