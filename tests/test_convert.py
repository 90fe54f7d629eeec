"""The conversion command: there and back bit for bit, and one sentence for what cannot be converted."""

import os
import shutil
import subprocess
import sys

import jax
import pytest

from chestx_jax.export import export_model
from chestx_jax.model.qwen_vl import init
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.tokenizer import train_tokenizer
from tests.helpers.paths import ROOT
from tests.helpers.tiny_models import tiny


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A complete bfloat16 checkpoint in several shards."""
    folder = tmp_path_factory.mktemp("source")
    train_tokenizer(["The lungs are clear."] * 5, folder / "tokenizer", 290)
    config = tiny("qwen2_5_vl", param_dtype="bfloat16")
    params = jax.jit(init, static_argnums=0)(config, jax.random.key(0))
    export_model(folder / "model", config, params, folder / "tokenizer", ImageSpec(), shard_bytes=50_000)
    return folder / "model"


def convert(*arguments):
    program = [sys.executable, "-m", "chestx_jax.convert", *arguments]
    return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, env=dict(os.environ))


def test_there_and_back_bit_for_bit(checkpoint, tmp_path):
    there = convert(f"--from=hf:{checkpoint}", f"--to=orbax:{tmp_path / 'orbax'}", "--verify")
    assert there.returncode == 0, there.stderr
    assert "every tensor agrees bit for bit" in there.stdout
    back = convert(f"--from=orbax:{tmp_path / 'orbax'}", f"--to=hf:{tmp_path / 'back'}", "--shard-gb=5e-5", "--verify")
    assert back.returncode == 0, back.stderr
    assert "every tensor agrees bit for bit" in back.stdout
    original = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    assert len([name for name in original if name.endswith(".safetensors")]) > 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()} == original


def test_a_broken_checkpoint_leaves_nothing_behind(checkpoint, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    shard = sorted(broken.glob("*.safetensors"))[-1]
    shard.write_bytes(shard.read_bytes()[:-2] + b"\xc0\x7f")  # a NaN, the last value that is read
    done = convert(f"--from=hf:{broken}", f"--to=orbax:{tmp_path / 'out'}")
    assert done.returncode == 2
    assert "holds NaN or infinite values" in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


@pytest.mark.parametrize(
    ("source", "target", "complaint"),
    [
        ("hf:nothing/here/at/all", "orbax:out", "is no folder"),
        ("orbax:nothing", "hf:out", "model.json cannot be read"),
        ("torch:model.bin", "hf:out", "write hf:FOLDER"),
    ],
)
def test_what_cannot_be_converted_is_one_sentence(tmp_path, source, target, complaint):
    kind, _, name = target.partition(":")
    done = convert(f"--from={source}", f"--to={kind}:{tmp_path / name}")
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
