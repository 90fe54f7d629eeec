"""Checkpoint folders: bit-for-bit round trips, streaming onto meshes, and one clear error for each way to be broken."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax import files
from chestx_jax.errors import UserError
from chestx_jax.model import hf
from chestx_jax.model.hf import safetensors
from chestx_jax.model.hf.config import from_hf, to_hf
from chestx_jax.model.hf.names import canonical, in_memory, stored, weights
from chestx_jax.model.qwen_vl import init, shapes, shardings
from chestx_jax.sharding import MeshConfig, make_mesh
from tests.helpers.tiny_models import TOKEN_IDS, tiny

FAMILIES = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    config = tiny(request.param, tied=request.param != "qwen2_vl")
    return config, jax.jit(init, static_argnums=0)(config, jax.random.key(1))


@pytest.fixture
def folder(model, tmp_path):
    hf.save(tmp_path / "model", *model, TOKEN_IDS, {})
    return tmp_path / "model"


def assert_identical(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(np.asarray(a).view(np.uint8), np.asarray(b).view(np.uint8))


@pytest.mark.parametrize("shard_bytes", [10**9, 30_000])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_round_trip_bit_for_bit(model, tmp_path, dtype, shard_bytes):
    config, params = model
    params = jax.tree.map(lambda x: x.astype(dtype), params)
    config = tiny(config.family, tied=config.tied, param_dtype=dtype)
    hf.save(tmp_path / "a", config, params, TOKEN_IDS, {"note.txt": "kept"}, shard_bytes=shard_bytes)
    read = hf.read_config(tmp_path / "a", config.compute)
    assert read == config
    loaded = hf.load(tmp_path / "a", read)
    assert_identical(params, loaded)
    assert hf.differing(tmp_path / "a", config, loaded) == []
    assert hf.source_dtype(tmp_path / "a") == dtype
    assert (len(list((tmp_path / "a").glob("*.safetensors"))) > 1) == (shard_bytes < 10**9)
    assert (tmp_path / "a" / "note.txt").read_text() == "kept"
    hf.save(tmp_path / "b", read, loaded, TOKEN_IDS, {"note.txt": tmp_path / "a" / "note.txt"}, shard_bytes=shard_bytes)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_the_library_reads_what_we_write(model, folder):
    from safetensors.numpy import load_file

    config, params = model
    tensors = load_file(folder / "model.safetensors")
    assert set(tensors) == {stored(config, name) for weight in weights(config) for name in weight.names}
    assert ("model.visual.blocks.2.attn.qkv.weight" in tensors) == (config.family == "qwen3_vl")
    tensors = {canonical(name): tensor for name, tensor in tensors.items()}
    flat = flatten_dict(params)
    np.testing.assert_array_equal(tensors["model.embed_tokens.weight"], flat[("embedding",)])
    kernel = np.asarray(flat[("decoder", "layers", "mlp", "up", "kernel")])
    np.testing.assert_array_equal(tensors["model.layers.1.mlp.up_proj.weight"], kernel[1].T)
    qkv = np.asarray(flat[("vision", "layers", "attention", "qkv_kernel")])
    np.testing.assert_array_equal(tensors["visual.blocks.2.attn.qkv.weight"][32:64], qkv[2, :, 1].T)


def test_we_read_what_the_library_writes_in_every_layout_and_dtype(model, folder, tmp_path):
    from safetensors.numpy import load_file, save_file

    config, params = model
    tensors = load_file(folder / "model.safetensors")
    new = tmp_path / "new"
    shutil.copytree(folder, new)
    other = canonical if config.architecture.nested_names else in_memory
    save_file({other(name): value for name, value in tensors.items()}, new / "model.safetensors")
    assert_identical(params, hf.load(new, config))
    save_file({name: value.astype(np.float16) for name, value in tensors.items()}, new / "model.safetensors")
    assert hf.source_dtype(new) == "float32"
    assert_identical(jax.tree.map(lambda x: x.astype(jnp.float16).astype(jnp.float32), params), hf.load(new, config))
    assert all(stored(config, canonical(name)) == name for name in tensors)


@pytest.mark.parametrize("mesh", [MeshConfig(1, 8, 1), MeshConfig(2, 2, 2), MeshConfig(1, 1, 8)], ids=str)
def test_loading_onto_a_mesh_gives_the_same_parameters(model, folder, mesh):
    config, params = model
    expected = shardings(config, make_mesh(mesh))
    loaded = hf.load(folder, config, make_mesh(mesh))
    assert_identical(params, loaded)
    assert jax.tree.all(
        jax.tree.map(lambda x, sharding: x.sharding.is_equivalent_to(sharding, x.ndim), loaded, expected)
    )
    hf.save(folder.parent / "again", config, loaded, TOKEN_IDS, {})
    again = (folder.parent / "again" / "model.safetensors").read_bytes()
    assert again == (folder / "model.safetensors").read_bytes()


@settings(max_examples=20)
@given(family=st.sampled_from(FAMILIES), tied=st.booleans(), kv_heads=st.sampled_from([1, 2, 4]), nested=st.booleans())
def test_config_survives_both_forms(family, tied, kv_heads, nested):
    config = tiny(family, tied=tied, kv_heads=kv_heads)
    raw = to_hf(config, TOKEN_IDS, "float32")
    if nested and family != "qwen3_vl":
        text = {key: value for key, value in raw.items() if key not in ("vision_config", "model_type")}
        text["rope_parameters"] = text.pop("rope_scaling") | {"rope_theta": text.pop("rope_theta")}
        raw = {"model_type": family, "vision_config": raw["vision_config"], "text_config": text}
    assert from_hf(json.loads(json.dumps(raw)), "config.json", config.compute) == config


def test_table_covers_each_parameter_once(model):
    config, _ = model
    table = weights(config)
    assert sorted(weight.path for weight in table) == sorted(flatten_dict(shapes(config)))
    names = [name for weight in table for name in weight.names]
    assert len(names) == len(set(names))


def edit(folder, change):
    """Rewrite the folder's tensors as `change` leaves them, by their short names."""
    from safetensors.numpy import load_file, save_file

    tensors = {canonical(name): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_all_misfits_are_listed_in_one_error(model, folder):
    def change(tensors):
        del tensors["model.norm.weight"], tensors["visual.blocks.1.norm1.weight"]
        tensors["extra.weight"] = np.zeros(3, np.float32)
        tensors["model.layers.0.mlp.up_proj.weight"] = np.zeros((2, 3), np.float32)

    edit(folder, change)
    with pytest.raises(UserError) as caught:
        hf.load(folder, model[0])
    message = str(caught.value)
    assert "missing: model.norm.weight, visual.blocks.1.norm1.weight" in message
    assert "not of this model: extra.weight" in message
    assert "model.layers.0.mlp.up_proj.weight (2×3, the model's is 96×64)" in message


def test_a_second_copy_of_a_tied_head_must_agree(folder, model):
    if not model[0].tied:
        pytest.skip("an untied head is an ordinary tensor")
    edit(folder, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].copy()}))
    assert_identical(model[1], hf.load(folder, model[0]))
    edit(folder, lambda tensors: tensors.update({"lm_head.weight": tensors["lm_head.weight"] + 1}))
    with pytest.raises(UserError, match=r"lm_head\.weight"):
        hf.load(folder, model[0])


def test_of_several_weight_files_transformers_choice_is_read(folder, model, tmp_path):
    """A single file goes before an index, which goes before nothing: stray files are not weights."""
    config, params = model
    hf.save(tmp_path / "stale", config, jax.tree.map(lambda x: x + 1, params), TOKEN_IDS, {}, shard_bytes=30_000)
    for path in (tmp_path / "stale").glob("*.safetensors*"):
        shutil.copyfile(path, folder / path.name)
    assert_identical(params, hf.load(folder, config))
    (folder / "model.safetensors").replace(folder / "consolidated.safetensors")
    (folder / "adapter_model.safetensors").write_bytes(b"")
    assert_identical(jax.tree.map(lambda x: x + 1, params), hf.load(folder, config))
    (folder / safetensors.INDEX).unlink()
    with pytest.raises(
        UserError, match=r"holds no model\.safetensors .* only adapter_model\.safetensors, consolidated"
    ):
        hf.load(folder, config)


def test_rotary_buffers_are_no_weights(folder, model):
    def change(tensors):
        for name in (
            "model.rotary_emb.inv_freq",
            "model.layers.0.self_attn.rotary_emb.inv_freq",
            "model.language_model.rotary_emb.original_inv_freq",
            "visual.rotary_pos_emb.inv_freq",
        ):
            tensors[name] = np.arange(4, dtype=np.int64)

    edit(folder, change)
    assert_identical(model[1], hf.load(folder, model[0]))
    assert hf.source_dtype(folder) == "float32"


def test_a_tensor_under_two_names_is_refused(folder, model):
    edit(folder, lambda tensors: tensors.update({in_memory("model.norm.weight"): tensors["model.norm.weight"] + 1}))
    with pytest.raises(UserError, match=r"two names each, model\.language_model\.norm\.weight"):
        hf.load(folder, model[0])


@pytest.mark.parametrize(
    "entry", [[], {"dtype": 3}, {"shape": "23"}, {"shape": [-1]}, {"data_offsets": [0, 1.5]}, None]
)
def test_garbled_headers_are_one_sentence(folder, model, entry):
    content = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    name = next(name for name in header if name.endswith("norm.weight"))
    header[name] = header[name] | entry if isinstance(entry, dict) else entry
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    with pytest.raises(UserError, match="is cut short or no safetensors file"):
        hf.load(folder, model[0])


@pytest.mark.parametrize("weight_map", [None, [], {"a": 3}, {"a": "../model.safetensors"}, {"a": ""}])
def test_garbled_indices_are_one_sentence(folder, model, weight_map):
    (folder / "model.safetensors").replace(folder / "model-1.safetensors")
    (folder / safetensors.INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(UserError, match="is no index of tensors"):
        hf.load(folder, model[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nonfinite_weights_are_named(folder, model, bad):
    def change(tensors):
        tensors["model.layers.1.mlp.down_proj.weight"][3, 5] = bad

    edit(folder, change)
    with pytest.raises(UserError, match=r"model\.layers\.1\.mlp\.down_proj\.weight in .* NaN or infinite"):
        hf.load(folder, model[0])


@given(values=st.lists(st.floats(width=16), max_size=20))
def test_nonfinite_agrees_with_numpy(values):
    for dtype in ("float32", "bfloat16", "float16"):
        array = np.array(values, np.float32).astype(jnp.dtype(dtype))
        assert safetensors.nonfinite(array) == (not np.isfinite(array.astype(np.float32)).all())


def test_broken_files_are_named(model, tmp_path):
    config, params = model
    hf.save(tmp_path / "model", config, params, TOKEN_IDS, {}, shard_bytes=30_000)
    first = sorted((tmp_path / "model").glob("*.safetensors"))[0]
    content = first.read_bytes()
    for cut in (4, 100, len(content) - 1):
        first.write_bytes(content[:cut])
        with pytest.raises(UserError, match=f"{first.name} is cut short"):
            hf.load(tmp_path / "model", config)
    first.unlink()
    with pytest.raises(UserError, match=f"names files that are missing: {first.name}"):
        hf.load(tmp_path / "model", config)
    first.write_bytes(content)
    index = tmp_path / "model" / safetensors.INDEX
    document = json.loads(index.read_text())
    document["weight_map"]["ghost.weight"] = first.name
    index.write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"ghost\.weight"):
        hf.load(tmp_path / "model", config)
    index.write_text("[]")
    with pytest.raises(UserError, match="in place of a JSON object"):
        hf.load(tmp_path / "model", config)
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        hf.load(tmp_path, config)


def test_quantised_tensors_are_refused_by_name(folder, model):
    edit(folder, lambda tensors: tensors.update({"model.norm.weight": np.zeros(64, np.int8)}))
    with pytest.raises(UserError, match=r"model\.norm\.weight in .* stored as I8"):
        hf.load(folder, model[0])


def test_foreign_configs_are_refused_by_name(folder):
    raw = json.loads((folder / "config.json").read_text())
    changes = {
        "LlavaForConditionalGeneration": {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"]},
        "quantization_config": {"quantization_config": {"bits": 4}},
        "hidden_act": {"hidden_act": "gelu"},
        "use_sliding_window": {"use_sliding_window": True},
        "hidden_size": {"hidden_size": None},
        "vision_config": {"vision_config": None},
    }
    for named, change in changes.items():
        broken = {key: value for key, value in (raw | change).items() if value is not None}
        if "text_config" in raw and named != "vision_config":
            text = {key: value for key, value in (raw["text_config"] | change).items() if value is not None}
            broken["text_config"] = text
        with pytest.raises(UserError, match=named):
            from_hf(broken, "config.json")
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        hf.read_config(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        hf.read_config(folder)


def nested(part, **change):
    return lambda raw: raw | {part: raw[part] | change}


ROPE = {"rope_type": "default", "mrope_section": [2, 3, 3]}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda raw: raw | {"model_type": "qwen3_vl_moe", "architectures": ["Qwen3VLMoeForConditionalGeneration"]},
         "Qwen3VLMoeForConditionalGeneration, a mixture of experts"),
        (lambda raw: raw | {"model_type": "qwen3_5", "architectures": ["Qwen3_5Model"]}, "Qwen3_5Model"),
        (lambda raw: raw | {"quantization_config": {"quant_method": "fp8"}}, r"quantization_config \(fp8\)"),
        (nested("text_config", attention_bias=True), "attention_bias"),
        (nested("text_config", rope_scaling=ROPE | {"mrope_interleaved": False}), "mrope_interleaved"),
        (nested("text_config", rope_scaling=ROPE | {"rope_type": "yarn"}), "rope type"),
        (nested("vision_config", hidden_act="quick_gelu"), r"vision_config\.hidden_act"),
        (nested("vision_config", out_hidden_size=65), r"vision_config\.out_hidden_size"),
        (nested("vision_config", num_position_embeddings=24), r"vision_config\.num_position_embeddings"),
        (nested("vision_config", deepstack_visual_indexes=[5]), "deepstack_layers"),
        (nested("text_config", head_dim=20), "mrope_section"),
    ],
)  # fmt: skip
def test_what_does_not_run_of_qwen3_vl_is_refused_by_name(change, named):
    raw = json.loads(json.dumps(to_hf(tiny("qwen3_vl"), TOKEN_IDS, "bfloat16")))
    assert from_hf(raw, "config.json", tiny("qwen3_vl").compute) == tiny("qwen3_vl")
    with pytest.raises(UserError, match=rf"config\.json.*{named}"):
        from_hf(change(raw), "config.json")


def test_saving_is_all_or_nothing(model, tmp_path, monkeypatch):
    config, params = model
    target = tmp_path / "model"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="is no checkpoint"):
        hf.save(tmp_path / "mine", config, params, TOKEN_IDS, {})
    hf.save(target, config, params, TOKEN_IDS, {})
    before = {path.name: path.read_bytes() for path in target.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    changed = jax.tree.map(lambda x: x + 1, params)
    with pytest.raises(UserError, match="No space left on device"):
        hf.save(target, config, changed, TOKEN_IDS, {})
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "model"]
    monkeypatch.undo()
    hf.save(target, config, changed, TOKEN_IDS, {})
    assert_identical(changed, hf.load(target, config))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "model"]


@pytest.mark.parametrize("renames", [0, 1])
def test_a_save_killed_at_its_renames_is_undone_by_the_next(model, folder, monkeypatch, renames):
    """Killed before the first or between the two; a kill runs no cleanup."""
    config, params = model
    before = (folder / "model.safetensors").read_bytes()
    done, replace = [], os.replace

    def killed(source, target):
        if folder not in (source, target):
            return replace(source, target)
        if len(done) == renames:
            raise SystemExit
        done.append(replace(source, target))

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        patched.setattr(files, "_restore", lambda *paths: None)
        with pytest.raises(SystemExit):
            hf.save(folder, config, jax.tree.map(lambda x: x + 1, params), TOKEN_IDS, {})
    assert folder.exists() == (renames == 0)
    assert len(list(folder.parent.iterdir())) == 2
    with monkeypatch.context() as patched:  # the earlier checkpoint is safe whatever becomes of the next save
        patched.setattr(safetensors, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(UserError, match="No space left"):
            hf.save(folder, config, params, TOKEN_IDS, {})
    assert (folder / "model.safetensors").read_bytes() == before
    hf.save(folder, config, jax.tree.map(lambda x: x + 2, params), TOKEN_IDS, {})
    assert_identical(jax.tree.map(lambda x: x + 2, params), hf.load(folder, config))
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
