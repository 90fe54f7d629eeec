"""config.json in the forms that versions of transformers write and people edit: read as transformers reads it, or one
sentence."""

import json

import pytest

from chestx_jax.errors import UserError
from chestx_jax.model import hf
from chestx_jax.model.hf.config import from_hf, to_hf
from tests.helpers.tiny_models import TOKEN_IDS, tiny

FAMILIES = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]
OUTER = ("architectures", "model_type", "vision_config", "tie_word_embeddings", "torch_dtype", *TOKEN_IDS)


def flat_or_nested(family, nested, **changes):
    """config.json of a tiny model in either form, with `changes` of the text part (a None leaves the key out)."""
    raw = to_hf(tiny(family), TOKEN_IDS, "float32")
    text = raw.pop("text_config", None) or {key: raw.pop(key) for key in list(raw) if key not in OUTER}
    text = {key: value for key, value in (text | changes).items() if value is not None}
    text.pop("tie_word_embeddings", None) if "tie_word_embeddings" not in changes else None
    return raw | ({"text_config": text} if nested else text)


def theirs(raw, tmp_path):
    from transformers import AutoConfig

    (tmp_path / "config.json").write_text(json.dumps(raw))
    config = AutoConfig.from_pretrained(tmp_path)
    text, vision = config.text_config, config.vision_config
    read = {
        "tied": config.tie_word_embeddings,
        "kv_heads": text.num_key_value_heads,
        "norm_eps": text.rms_norm_eps,
        "rope_theta": text.rope_parameters["rope_theta"],
        "mrope_section": tuple(text.rope_parameters["mrope_section"]),
        "layers": vision.depth,
        "patch_size": vision.patch_size,
        "merge_size": vision.spatial_merge_size,
    }
    if config.model_type == "qwen2_5_vl":
        read |= {"window": vision.window_size, "full_attention_layers": tuple(vision.fullatt_block_indexes)}
    return read


def ours(raw):
    config = from_hf(raw, "config.json")
    return (
        {name: getattr(config, name, getattr(config.vision, name, None)) for name in vars(config)}
        | {name: getattr(config.vision, name) for name in ("layers", "patch_size", "merge_size")}
        | {name: getattr(config.vision, name) for name in ("window", "full_attention_layers")}
    )


def assert_same(raw, tmp_path):
    expected = theirs(raw, tmp_path)
    read = ours(raw)
    assert {name: read[name] for name in expected} == expected


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rms_norm_eps": None},
        {"rope_theta": None},
        {"num_key_value_heads": 1},
        {"rope_scaling": {"type": "default", "mrope_section": [4, 2, 2], "rope_theta": 7.0}},
        {
            "rope_scaling": None,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 5000.0},
        },
        {"rope_parameters": {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 5000.0}},
    ],
    ids=str,
)
def test_the_text_part_is_read_as_in_transformers(tmp_path, family, nested, changes):
    if family == "qwen3_vl" and not nested:
        pytest.skip("has one form")
    assert_same(flat_or_nested(family, nested, **changes), tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("outer", [None, False, True])
@pytest.mark.parametrize("inner", [None, False, True])
def test_tied_embeddings_are_where_transformers_looks(tmp_path, family, outer, inner):
    raw = flat_or_nested(family, True, tie_word_embeddings=inner)
    raw.pop("tie_word_embeddings", None)
    assert_same(raw if outer is None else raw | {"tie_word_embeddings": outer}, tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_tower_leaves_out_is_as_in_transformers(tmp_path, family):
    raw = flat_or_nested(family, True)
    for key in ("depth", "patch_size", "spatial_merge_size", "window_size", "fullatt_block_indexes"):
        raw["vision_config"].pop(key, None)
    if family == "qwen3_vl":
        raw["vision_config"]["deepstack_visual_indexes"] = [1]
    assert_same(raw, tmp_path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ([], r"config\.json holds list in place of a JSON object"),
        ("x", "holds str in place"),
        (None, "holds NoneType in place"),
        ({"model_type": ["qwen2_vl"]}, "describes Qwen2VLFor"),
        ({"model_type": "llava", "architectures": 3}, "describes llava"),
        ({"text_config": []}, r"text_config is \[\] but must be an object"),
        ({"vision_config": [1]}, r"vision_config is \[1\] but must be an object"),
        ({"vision_config": None}, "vision_config is None but must be an object"),
        ({"rope_scaling": "mrope"}, "rope_scaling is 'mrope' but must be an object"),
        ({"rope_scaling": None}, "rope_parameters is None but must be an object"),
        ({"rope_scaling": {"mrope_section": "234"}}, "mrope_section is '234' but must be a list"),
        ({"rope_scaling": {"mrope_section": [2, 3]}}, "mrope_section has 2 values but needs 3"),
        ({"hidden_size": "64"}, r"config\.json: hidden_size is '64' but must be a whole number"),
        ({"hidden_size": 64.5}, "hidden_size is 64.5"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_attention_heads": 3}, "width is 64 and heads 3"),
        ({"num_key_value_heads": 3}, "heads is 4 and kv_heads 3"),
        ({"num_hidden_layers": -1}, "layers is -1 but must be at least 1"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is not a number"),
        ({"rope_theta": -1}, "rope_theta is -1.0 but must be above 0"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes' but must be True or False"),
        ({"quantization_config": []}, "sets quantization_config"),
        ({"quantization_config": {"quant_method": "awq"}}, r"sets quantization_config \(awq\)"),
    ],
    ids=str,
)
def test_garbled_configs_are_one_sentence(tmp_path, change, complaint):
    raw = to_hf(tiny("qwen2_vl"), TOKEN_IDS, "float32")
    (tmp_path / "config.json").write_text(json.dumps(raw | change if isinstance(change, dict) else change))
    with pytest.raises(UserError, match=complaint) as caught:
        hf.read_config(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)
