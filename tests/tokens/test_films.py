"""Films to patches, bit for bit against transformers' PIL processor."""

import hashlib
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from chestx_jax.config import to_dataclass
from chestx_jax.errors import UserError
from chestx_jax.recipes import JobConfig
from chestx_jax.tokens.films import READER_VERSION, load_film, load_image
from chestx_jax.tokens.patches import PATCH_FIELDS, ImageSpec, patch_positions, patches, resize, resized_shape
from chestx_jax.tokens.pixels import apply_by_value, distinct_channels, grey_as_rgb, window_to_uint8
from tests.helpers.dicom import write_dicom
from tests.helpers.image_files import png_bytes, png_chunk, tiff_bytes
from tests.helpers.processor import pixel_values


@pytest.fixture(scope="module")
def processor():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    def process(image, min_pixels=56 * 56, max_pixels=28 * 28 * 1280, **settings):
        made = Qwen2VLImageProcessorPil(size={"shortest_edge": min_pixels, "longest_edge": max_pixels}, **settings)
        out = made(images=[image], return_tensors="np")
        return out["pixel_values"], tuple(out["image_grid_thw"][0].tolist())

    return process


def film(height, width, seed=0):
    rng = np.random.default_rng(seed)
    smooth = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize((width, height))
    return np.asarray(smooth)


def assert_same(image, path, processor, low=56 * 56, high=28 * 28 * 1280):
    """The file through the processor, and through ours with dynamic resolution."""
    expected, grid = processor(image, low, high)
    spec = ImageSpec(min_pixels=low, max_pixels=high)
    got, our_grid = patches(load_film(path, spec), spec)
    assert grid == (1, *our_grid)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(pixel_values(got, spec), expected)


@settings(max_examples=15)
@given(
    height=st.integers(20, 300),
    width=st.integers(20, 300),
    bounds=st.sampled_from([(3136, 12544), (784, 784), (50176, 100352)]),
)
def test_dynamic_patches_equal_the_processor(processor, tmp_path_factory, height, width, bounds):
    path = tmp_path_factory.mktemp("film") / "film.png"
    Image.fromarray(film(height, width)).save(path)
    assert_same(Image.open(path), path, processor, *bounds)


@pytest.mark.parametrize(
    "mode", ["L", "LA", "P", "PA", "RGBA", "1", "CMYK", "palette transparency", "grey transparency"]
)
def test_every_mode_is_converted_as_the_processor_does(processor, tmp_path, mode):
    image, path = Image.fromarray(film(60, 90)), tmp_path / ("film.tiff" if mode in ("CMYK", "PA") else "film.png")
    if mode == "palette transparency":
        image.convert("P").save(path, transparency=5)
    elif mode == "grey transparency":
        image.convert("L").save(path, transparency=40)
    elif mode == "PA":
        image.convert("RGBA").convert("LA").save(path)
    else:
        image = image.convert(mode)
        if mode in ("LA", "RGBA"):
            image.putalpha(Image.fromarray(film(60, 90, 1)).convert("L"))
        image.save(path)
    assert_same(Image.open(path), path, processor)


@pytest.mark.parametrize("shape", [(56, 2800), (2000, 40), (28, 28), (1400, 1500)])
def test_extreme_shapes_equal_the_processor(processor, tmp_path, shape):
    path = tmp_path / "film.png"
    Image.fromarray(film(*shape)).save(path)
    assert_same(Image.open(path), path, processor)


def test_fixed_size_equals_resizing_first(processor, tmp_path):
    path = tmp_path / "film.png"
    Image.fromarray(film(131, 77)).save(path)
    resized = Image.open(path).convert("RGB").resize((448, 448))  # PIL resizes bicubically unless told otherwise
    expected, grid = processor(resized)
    spec = ImageSpec(aspect="squash", height=448, width=448)
    got, our_grid = patches(load_film(path, spec), spec)
    assert grid == (1, *our_grid) == (1, 32, 32)
    np.testing.assert_array_equal(pixel_values(got, spec), expected)


def test_real_films_equal_the_processor(processor, shared_data, tmp_path):
    paths = sorted(path for path in (shared_data / "cxr" / "images").rglob("*") if path.is_file())
    assert len(paths) >= 60
    for path in paths:
        assert_same(Image.open(path), path, processor, 3136, 200704)
    derived = {
        "palette.png": lambda image: image.convert("P"),
        "alpha.png": lambda image: Image.merge("LA", [image.convert("L"), image.convert("L")]),
        "dark.png": lambda image: image.convert("L").point(lambda value: value // 50),
        "wide.png": lambda image: image.convert("L").resize((3000, 30)),
    }
    for name, derive in derived.items():
        derive(Image.open(paths[0])).save(tmp_path / name)
        assert_same(Image.open(tmp_path / name), tmp_path / name, processor, 3136, 200704)


@settings(max_examples=25)
@given(height=st.integers(20, 200), width=st.integers(20, 200), fixed=st.booleans(), seed=st.integers(0, 99))
def test_a_grey_film_resized_as_one_channel_equals_three(height, width, fixed, seed):
    grey = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    spec = ImageSpec(aspect="squash", height=448, width=448) if fixed else ImageSpec(max_pixels=20_000)
    one, grid = patches(resize(grey_as_rgb(grey), spec), spec)
    three, other_grid = patches(resize(np.stack([grey] * 3, axis=-1), spec), spec)
    assert grid == other_grid
    np.testing.assert_array_equal(one, three)


def test_grey_files_are_one_channel_in_memory(tmp_path):
    Image.fromarray(film(40, 50)).convert("L").save(tmp_path / "grey.png")
    Image.fromarray(film(40, 50)).save(tmp_path / "colour.png")
    assert distinct_channels(load_image(tmp_path / "grey.png")).shape == (40, 50, 1)
    assert distinct_channels(load_image(tmp_path / "colour.png")).shape == (40, 50, 3)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.MOV", "clip.webm", "clip.avi"])
def test_videos_are_refused_by_name(name, tmp_path):
    (tmp_path / name).write_bytes(b"\0\0\0 ftypisom" + bytes(200))
    with pytest.raises(UserError, match=f"{name} is a video"):
        load_image(tmp_path / name)


# Image settings of Qwen3-VL's preprocessor_config.json.
QWEN3_VL = {"patch_size": 16, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
QWEN3_VL_PIXELS = {"min_pixels": 65536, "max_pixels": 16777216}
QWEN3_VL_SPEC = ImageSpec(
    patch_size=16, mean=(0.5,) * 3, std=(0.5,) * 3, height=None, width=None, **QWEN3_VL_PIXELS
)  # fmt: skip


def test_other_patches_and_normalisation_equal_the_processor(processor):
    """Patches of 16, a mean and deviation of a half, and that family's pixel limits."""
    for seed, (height, width) in enumerate([(100, 90), (256, 256), (300, 517), (33, 640)]):
        image = film(height, width, seed)
        expected, grid = processor(Image.fromarray(image), **QWEN3_VL_PIXELS, **QWEN3_VL)
        got, our_grid = patches(resize(image, QWEN3_VL_SPEC), QWEN3_VL_SPEC)
        assert grid == (1, *our_grid)
        np.testing.assert_array_equal(pixel_values(got, QWEN3_VL_SPEC), expected)


def test_real_films_equal_the_processor_of_qwen3_vl(processor, shared_data):
    paths = sorted(path for path in (shared_data / "cxr" / "images").rglob("*") if path.is_file())
    for path in paths:
        image = load_image(path)
        expected, grid = processor(Image.open(path), **QWEN3_VL_PIXELS, **QWEN3_VL)
        got, our_grid = patches(resize(image, QWEN3_VL_SPEC), QWEN3_VL_SPEC)
        assert grid == (1, *our_grid)
        np.testing.assert_array_equal(pixel_values(got, QWEN3_VL_SPEC), expected)


def test_patch_positions_follow_the_patches():
    spec = ImageSpec(aspect="squash", height=56, width=84)
    rows, columns = np.indices((4, 6))
    cells = np.stack([rows, columns, rows * 0], -1).astype(np.uint8)
    values, grid = patches(np.repeat(np.repeat(cells, 14, 0), 14, 1), spec)
    np.testing.assert_array_equal(values.reshape(24, 3, 196)[:, :2, 0], patch_positions(grid, 2))
    assert patch_positions(grid, 2)[:5].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2]]


@given(
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
    low=st.integers(1, 300),
    high=st.integers(1500, 3000),  # ranges narrower than this the rule itself may overshoot
)
def test_resized_shape_keeps_its_promises(height, width, low, high):
    spec = ImageSpec(min_pixels=low * 784, max_pixels=high * 784)
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(UserError, match="crop it"):
            resized_shape(height, width, spec)
        return
    rows, columns = resized_shape(height, width, spec)
    assert rows % 28 == columns % 28 == 0
    assert rows * columns >= spec.min_pixels
    if min(rows, columns) > 28:
        assert rows * columns <= spec.max_pixels


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32"])
def test_deep_films_are_windowed_not_clipped(tmp_path, dtype):
    ramp = (np.arange(64 * 64, dtype=np.float64).reshape(64, 64) * 12 + 1000).astype(dtype)
    path = tmp_path / ("film.png" if dtype == "uint16" else "film.tiff")
    Image.fromarray(ramp).save(path)
    rgb = load_image(path)
    assert rgb.shape == (64, 64, 3)
    grey = rgb[..., 0]
    assert (grey.min(), grey.max()) == (0, 255)
    assert len(np.unique(grey)) == 256
    assert (np.diff(grey.reshape(-1).astype(int)) >= 0).all()


def test_window_clamps_and_survives_a_flat_film():
    values = np.array([[0.0, 10.0, 20.0, 30.0]])
    assert window_to_uint8(values, 10, 20).tolist() == [[0, 0, 255, 255]]
    assert not window_to_uint8(np.full((2, 2), 7.0)).any()


def test_orientation_tags_are_ignored(tmp_path):
    image, exif = Image.fromarray(film(40, 80)), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "film.jpg", exif=exif)
    assert load_image(tmp_path / "film.jpg").shape == (40, 80, 3)


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=40))
def test_a_table_of_values_gives_what_the_pixels_would(numbers):
    values = np.array(numbers, np.int16)
    np.testing.assert_array_equal(apply_by_value(window_to_uint8, values), window_to_uint8(values))


def test_a_film_of_one_tone_is_read_with_a_warning(tmp_path, caplog):
    for mode, colour in (("L", 0), ("L", 90), ("RGB", (9, 8, 7)), ("1", 1)):
        Image.new(mode, (30, 20), colour).save(tmp_path / f"blank-{mode}.png")
        caplog.clear()
        assert load_image(tmp_path / f"blank-{mode}.png").shape == (20, 30, 3)
        assert f"blank-{mode}.png is of one tone" in caplog.text
    Image.fromarray(film(20, 30)).save(tmp_path / "film.png")
    caplog.clear()
    load_image(tmp_path / "film.png")
    assert not caplog.text


def test_stored_films_are_stale_when_the_reader_changes(tmp_path):
    """What the reader makes of a few files, by its version: raise READER_VERSION where this changes."""
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64, 1)
    contents = {
        "grey.png": png_bytes((ramp // 16).astype(np.uint8)),
        "alpha.png": png_bytes(np.concatenate([ramp, ramp * 16], axis=-1)),
        "rgb.png": png_bytes(np.concatenate([ramp, ramp // 2, ramp // 3], axis=-1)),
        "white.tif": tiff_bytes(ramp, photometric=0),
        "float.tif": tiff_bytes(ramp.astype(np.float32)),
    }
    digest = hashlib.sha256()
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        digest.update(load_image(tmp_path / name).tobytes())
    for number, fields in enumerate(({}, {"WindowCenter": 2000, "WindowWidth": 900}, {"PixelPaddingValue": 4095})):
        pytest.importorskip("pydicom", exc_type=ImportError)
        digest.update(load_image(write_dicom(tmp_path / f"{number}.dcm", ramp[..., 0], **fields)).tobytes())
    assert (READER_VERSION, digest.hexdigest()[:16]) == (1, "eb44fce30e4b1f0b")


def png(width, height):
    """A PNG header that claims a size, with no pixels behind it."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bad_files_are_named(tmp_path):
    good = tmp_path / "good.png"
    Image.fromarray(film(50, 50)).save(good)
    contents = {
        "missing.png": None,
        "text.png": b"no image at all",
        "empty.png": b"",
        "cut.png": good.read_bytes()[: good.stat().st_size // 2],
        "flat.png": png(0, 50),
        "bomb.png": png(20_000, 6_000),
        "greater_bomb.png": png(60_000, 60_000),
    }
    for name, content in contents.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            load_image(tmp_path / name)
    with pytest.raises(UserError, match=str(tmp_path)):
        load_image(tmp_path)
    for path in ("a\0b.png", "\ud800.png", "x" * 5000, None, 7):
        with pytest.raises(UserError):
            load_image(path)


def test_bad_specs_are_refused():
    with pytest.raises(UserError, match="multiple"):
        ImageSpec(aspect="squash", height=450, width=448)
    with pytest.raises(UserError, match="needs the height and width"):
        ImageSpec(aspect="squash", height=448)
    with pytest.raises(UserError, match="set aspect=squash, or leave both out"):
        ImageSpec(height=448, width=448)
    with pytest.raises(UserError, match="no range"):
        ImageSpec(min_pixels=10, max_pixels=5)


@pytest.mark.parametrize("field", PATCH_FIELDS)
def test_a_job_cuts_films_into_the_patches_its_model_reads(field):
    with pytest.raises(UserError, match=rf"^config: image\.{field} is 1 and model\.vision\.{field} is \d+: "):
        to_dataclass(JobConfig, {"image": {field: 1}})
    image = {field: 1, "min_pixels": 784, "max_pixels": 1024}
    assert getattr(to_dataclass(JobConfig, {"image": image, "model": {"vision": {field: 1}}}).image, field) == 1
