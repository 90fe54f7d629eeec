"""Where a checkpoint and its settings are found."""

import json
from pathlib import Path

import pytest

from chestx_jax.config import to_dict
from chestx_jax.errors import UserError
from chestx_jax.inference.loaded_model import training_run
from chestx_jax.inference.places import Place, find_checkpoint, parse_place
from chestx_jax.recipes import JobConfig
from chestx_jax.tokens.patches import ImageSpec


def test_the_run_that_a_checkpoint_comes_from(tmp_path):
    params = Place("orbax", tmp_path / "sft" / "params")
    assert training_run(params) is None
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(to_dict(JobConfig(image=ImageSpec(aspect="squash", height=112, width=112), tokenizer="tokenizer")))
    )
    run = training_run(params)
    assert run is not None
    assert run.tokenizer == tmp_path / "data" / "tokenizer"
    assert (run.image.height, run.image.width) == (112, 112)
    assert training_run(Place("hf", params.folder)) is None
    config.write_text('{"model_type": "qwen2_vl"}')  # somebody else's
    assert training_run(params) is None
    config.write_text("{")
    with pytest.raises(UserError, match=r"config\.json is not valid JSON"):
        training_run(params)


def test_places(tmp_path):
    assert parse_place("adapter:out/a", ("hf", "adapter"), "") == Place("adapter", Path("out/a"))
    assert find_checkpoint("orbax:runs/sft/params", "") == Place("orbax", Path("runs/sft/params"))
    assert find_checkpoint(f"hf:{tmp_path}", "") == Place("hf", tmp_path)
    for place in ("runs/sft", "torch:model.bin", "hf:", "adapter:out", ""):
        with pytest.raises(UserError, match="write hf:FOLDER"):
            find_checkpoint(place, "write hf:FOLDER")
    with pytest.raises(UserError, match="is no folder and no owner/name"):
        find_checkpoint("hf:./owner/name", "")  # a path is not looked for on the hub
