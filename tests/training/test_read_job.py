"""The model of a job is that of the checkpoint it starts from, unless set; and what is set must be what is there."""

import json
from dataclasses import fields, replace
from pathlib import Path

import jax
import pytest

from chestx_jax import checkpoint
from chestx_jax.cli import load_config
from chestx_jax.config import from_defaults, to_dataclass, to_dict
from chestx_jax.errors import UserError
from chestx_jax.inference.places import Place, load_params
from chestx_jax.model import hf
from chestx_jax.model.config import ModelConfig, VisionConfig, architecture
from chestx_jax.model.qwen_vl import init
from chestx_jax.recipes import JobConfig
from chestx_jax.sharding import MeshConfig, make_mesh
from chestx_jax.tokens.interchange import processor_settings
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.training.read_job import read_job
from configs import rl
from tests.helpers.paths import CONFIGS
from tests.helpers.tiny_models import TOKEN_IDS, tiny

IMAGE = ImageSpec(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), max_pixels=100_352)


@pytest.fixture(scope="module", params=["hf", "orbax", "run"])
def place(request, tmp_path_factory):
    """The same model as a Hugging Face folder, as converted parameters and where a training run has left it."""
    folder, model = tmp_path_factory.mktemp(request.param), tiny("qwen2_5_vl", tied=True)
    params = jax.jit(init, static_argnums=0)(model, jax.random.key(0))
    settings = {"preprocessor_config.json": json.dumps(processor_settings(IMAGE))}
    if request.param == "hf":
        hf.save(folder / "model", model, params, TOKEN_IDS, settings)
        return f"hf:{folder / 'model'}"
    checkpoint.save_params(folder / "sft" / "params", params, to_dict(model))
    if request.param == "orbax":
        (folder / "sft" / "params" / "companions").mkdir()
        for name, content in settings.items():
            (folder / "sft" / "params" / "companions" / name).write_text(content)
    else:
        job = to_dict(JobConfig(model=model, image=IMAGE))
        (folder / "config.json").write_text(json.dumps(job))
    return f"orbax:{folder / 'sft' / 'params'}"


def config(name, place, *overrides):
    path = "init" if name == "rl.py" else "init.init"
    return load_config(str(CONFIGS / name), [f"{path}={place}", *overrides])


@pytest.mark.parametrize("name", ["rl.py", "sft.py"])
def test_the_architecture_is_the_checkpoint_s(place, name):
    job = read_job(config(name, place, "model.compute.remat=dots"))
    assert architecture(job.model) == architecture(tiny("qwen2_5_vl", tied=True))
    assert job.model.compute.remat == "dots"
    assert (job.image.mean, job.image.std) == (IMAGE.mean, IMAGE.std)
    assert job.image.max_pixels == 448 * 448  # the recipe's, as rows are as long as the recipe has them
    overrides = (f"model.{field}={value}" for field, value in SET.items())
    assert read_job(config(name, place, "model.compute.remat=dots", *overrides)) == job


SET = {"rope_theta": 1e6, "heads": 4, "vision.heads": 2, "mrope_section": (2, 3, 3), "tied": True}
WRONG = {
    "rope_theta": 10000.0,
    "norm_eps": 1e-5,
    "mrope_section": (4, 2, 2),
    "vision.heads": 4,
    "vision.window": 224,
    "vision.full_attention_layers": (2,),
    "heads": 2,
    "kv_heads": 4,
    "family": "qwen2_vl",
    "tied": False,
    "vocab_size": 400,
}


@pytest.mark.parametrize("field", WRONG)
def test_a_field_set_otherwise_is_named_with_both_values(place, field):
    overrides = [f"model.{field}={WRONG[field]}"]
    if field == "heads":  # so that the model makes sense in itself
        overrides += ["model.mrope_section=(4, 6, 6)"]
    elif field == "family":
        overrides += ["model.vision.hidden=64"]
    with pytest.raises(UserError) as error:
        read_job(config("rl.py", place, *overrides))
    right = architecture(tiny("qwen2_5_vl", tied=True))[field]
    assert f"{field} is {WRONG[field]} and {right}" in str(error.value)
    assert "\n" not in str(error.value)


def test_wrong_image_settings_are_named(place):
    with pytest.raises(UserError, match=r"config\.image\.mean is \(0\.1, 0\.1, 0\.1\) and \(0\.5, 0\.5, 0\.5\) in "):
        read_job(config("rl.py", place, "image.mean=(0.1, 0.1, 0.1)"))


def test_weights_are_not_loaded_as_another_model(place):
    """However the configuration came about: the shapes agree, the function would not."""
    kind, _, folder = place.partition(":")
    model, mesh = tiny("qwen2_5_vl", tied=True), make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    load_params(Place(kind, Path(folder)), model, mesh)
    with pytest.raises(UserError, match=r"rope_theta is 500000\.0 and 1000000\.0 there"):
        load_params(Place(kind, Path(folder)), replace(model, rope_theta=5e5), mesh)


def test_a_run_goes_on_with_its_own_model(place, tmp_path):
    """Its start need not be there any more."""
    job = read_job(config("rl.py", place))
    (tmp_path / "config.json").write_text(json.dumps(to_dict(job)))
    gone = config("rl.py", "orbax:nowhere")
    assert read_job(gone, tmp_path) == replace(job, init="orbax:nowhere")
    with pytest.raises(UserError, match=r"model\.json cannot be read"):
        read_job(gone)


def test_a_start_that_is_not_there_yet_is_noted_in_planning():
    notes: list[str] = []
    assert read_job(load_config(str(CONFIGS / "rl.py")), note=notes.append) == to_dataclass(JobConfig, rl.PAPER)
    assert notes[0].startswith("note: orbax:") or "cannot be read" in notes[0]
    assert read_job(load_config(str(CONFIGS / "rl.py:phantom"))) == to_dataclass(JobConfig, rl.PHANTOM)


@pytest.mark.parametrize("start", ["nowhere", "hf:", "torch:x", "3"])
def test_a_start_that_is_none_is_one_sentence(start):
    with pytest.raises(UserError, match=r"config\.init is .*: (give random, orbax:DIR|write|.*must be)|must be"):
        read_job(config("rl.py", start))


def test_what_is_open_of_a_configuration():
    open_config = from_defaults(JobConfig, {"model": {"layers": 28}, "image": {"merge_size": 2}})
    assert open_config.model.layers == 28
    assert open_config.image.merge_size == 2
    assert open_config.model.width is None
    assert open_config.model.vision.heads is None
    assert open_config.model.compute.remat == "layer"
    assert open_config.image.max_pixels == 448 * 448
    assert to_dataclass(JobConfig, open_config) == JobConfig()
    named = {item.name for item in fields(ModelConfig)}
    assert named - set(ModelConfig.of_checkpoint) == {"vision", "compute", "tuning", "start"}
    assert {f"model.vision.{item.name}" for item in fields(VisionConfig)} < set(JobConfig.open_fields)
