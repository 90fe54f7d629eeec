"""Image settings in the forms that versions of transformers write, against transformers itself where it reads them."""

import json

import numpy as np
import pytest

from chestx_jax.config import to_dataclass
from chestx_jax.errors import UserError
from chestx_jax.recipes import JobConfig
from chestx_jax.tokens.interchange import processor_settings, read_image_spec, sidecar_files
from chestx_jax.tokens.patches import ImageSpec, patches, resize, squash_notice
from configs import sft
from tests.helpers.paths import DATA
from tests.helpers.processor import pixel_values

BASE = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
}
EDGES = {"size": {"shortest_edge": 3136, "longest_edge": 100352}}
LIMITS = {"min_pixels": 3136, "max_pixels": 50176}
NESTED = {"processor_class": "Qwen2_5_VLProcessor", "image_processor": BASE | EDGES}
FILM = np.random.default_rng(0).integers(0, 256, (300, 500, 3), np.uint8)


def write(folder, flat=None, nested=None):
    for name, content in (("preprocessor_config.json", flat), ("processor_config.json", nested)):
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    return folder


def without(*keys):
    return {key: value for key, value in BASE.items() if key not in keys}


@pytest.mark.parametrize(
    "files",
    [
        (BASE | LIMITS,),
        (BASE | {"max_pixels": 50176},),
        (BASE | EDGES,),
        (BASE | EDGES | LIMITS,),
        (BASE | {"size": None},),
        (BASE | {"image_mean": 0.5, "image_std": 0.25},),
        (without("image_mean", "image_std"),),
        (without("image_processor_type") | LIMITS,),
        (BASE | LIMITS | {"do_normalize": False},),
        (BASE | LIMITS | {"resample": 3, "rescale_factor": 0.00392156862745098, "do_convert_rgb": True},),
        (BASE | LIMITS | {"image_processor_type": "Qwen2VLImageProcessorFast"},),
        (None, NESTED),
        (BASE | LIMITS, NESTED),
        (BASE | LIMITS, {"processor_class": "Qwen2_5_VLProcessor"}),
        (BASE | LIMITS, {"image_processor": None}),
        (BASE | LIMITS | {"patch_size": 16},),
    ],
    ids=str,
)
def test_settings_mean_what_they_mean_in_transformers(tmp_path, files):
    from transformers import AutoImageProcessor

    write(tmp_path, *files)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    theirs = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")(images=[FILM], return_tensors="np")
    spec = read_image_spec(tmp_path)
    ours, grid = patches(resize(FILM, spec), spec)
    assert [1, *grid] == theirs["image_grid_thw"][0].tolist()
    np.testing.assert_array_equal(pixel_values(ours, spec), theirs["pixel_values"])


@pytest.mark.parametrize(
    ("flat", "spec"),
    [
        (BASE | {"image_processor_type": "Qwen2_5_VLImageProcessor"} | LIMITS, LIMITS),
        (BASE | {"image_processor_type": "Qwen2_5_VLImageProcessorFast"} | LIMITS, LIMITS),
        (BASE | {"size": LIMITS}, LIMITS),
        (BASE | {"size": {"longest_edge": 50176}}, {"max_pixels": 50176}),
        (BASE | {"image_mean": None, "image_std": None}, {"mean": ImageSpec.mean, "std": ImageSpec.std}),
        (BASE | {"patch_size": None}, {"patch_size": 14}),
    ],
)
def test_settings_of_other_versions(tmp_path, flat, spec):
    """What transformers 5.24 refuses, having written it earlier or having had it in another class."""
    base = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    assert read_image_spec(write(tmp_path, flat)) == ImageSpec(**base | spec)


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        (([],), "preprocessor_config.json holds list in place of a JSON object"),
        ((None, [NESTED]), "processor_config.json holds list in place of a JSON object"),
        ((None, {"image_processor": []}), r"image_processor is \[\] but must be an object"),
        ((BASE | {"image_processor_type": "CLIPImageProcessor"},), "is for CLIPImageProcessor"),
        ((BASE | {"image_processor_type": 3},), "is for 3"),
        ((BASE | {"do_resize": False},), "sets do_resize"),
        ((BASE | {"resample": 2, "do_rescale": False},), "sets do_rescale, resample"),
        ((BASE | {"size": 448},), "size is 448"),
        ((BASE | {"size": {"height": 448, "width": 448}},), "size is {'height'"),
        ((BASE | {"image_mean": [0.5]},), "mean has 1 values but needs 3"),
        ((BASE | {"image_std": [0, 1, 1]},), r"std\[0\] is 0.0 but must be above 0"),
        ((BASE | {"patch_size": "14"},), "patch_size is '14'"),
        ((BASE | {"patch_size": 0},), "patch_size is 0"),
        ((BASE | {"min_pixels": 100, "max_pixels": 50},), "are no range"),
        ((BASE | {"max_pixels": 1e6},), "max_pixels is 1000000.0"),
    ],
)
def test_settings_that_cannot_be_followed_are_one_sentence(tmp_path, files, complaint):
    with pytest.raises(UserError, match=complaint) as caught:
        read_image_spec(write(tmp_path, *files))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_settings_are_none(tmp_path):
    assert read_image_spec(tmp_path) is None


def test_conversion_keeps_every_settings_file(tmp_path):
    write(tmp_path, BASE, NESTED)
    (tmp_path / "video_preprocessor_config.json").write_text("{}")
    assert {"preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"} <= set(
        sidecar_files(tmp_path)
    )
    spec = ImageSpec(max_pixels=50176)
    written = sidecar_files(tmp_path, spec)  # the trained model's own, with nothing beside it that goes before it
    assert set(written) == {"preprocessor_config.json"}
    again = tmp_path / "again"
    again.mkdir()
    assert read_image_spec(write(again, json.loads(written["preprocessor_config.json"]))) == spec


@pytest.mark.parametrize("preset", [sft.PAPER, sft.PHANTOM], ids=["paper", "phantom"])
@pytest.mark.parametrize("shape", [(112, 112), (448, 448), (300, 500), (900, 400), (60, 50)])
def test_training_sees_films_as_the_exported_folder_does(tmp_path, preset, shape):
    from transformers import AutoImageProcessor

    spec = to_dataclass(JobConfig, preset).image
    write(tmp_path, processor_settings(spec))
    film = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    theirs = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")(images=[film], return_tensors="np")
    ours, grid = patches(resize(film, spec), spec)
    assert [1, *grid] == theirs["image_grid_thw"][0].tolist()
    np.testing.assert_array_equal(pixel_values(ours, spec), theirs["pixel_values"])


def test_the_phantom_s_films_are_not_resized():
    spec = to_dataclass(JobConfig, sft.PHANTOM).image
    squashed = ImageSpec(temporal_patch_size=1, aspect="squash", height=112, width=112)
    film = FILM[:112, :112]
    np.testing.assert_array_equal(patches(resize(film, spec), spec)[0], patches(resize(film, squashed), squashed)[0])
    assert processor_settings(spec) == processor_settings(squashed)
    assert squash_notice(spec) == ""
    assert "squashed to 112×112" in squash_notice(squashed)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the development data")
@pytest.mark.parametrize("name", ["v5", "q25proc"])
def test_folders_that_went_wrong(name):
    spec = read_image_spec(DATA / "faults/hf" / name)
    assert spec == ImageSpec(min_pixels=3136, max_pixels=100352)
