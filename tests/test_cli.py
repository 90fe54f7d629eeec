"""The command line: config files with overrides, and one sentence for whatever is wrong."""

import re
import subprocess
import sys

import pytest

from chestx_jax import cli
from chestx_jax.errors import UserError

FILE = """
import dataclasses

from chestx_jax.config import from_defaults

@dataclasses.dataclass(frozen=True)
class Stage:
    learning_rate: float = 2e-6
    name: str | None = None
    sizes: tuple[int, ...] = (1, 2)

@dataclasses.dataclass(frozen=True)
class Source:
    path: str = ""
    weight: float = 1.0

@dataclasses.dataclass(frozen=True)
class Job:
    preset: str = ""
    sft: Stage = Stage()
    init: str | Stage = Stage()
    grpo: Stage | None = None
    sources: tuple[Source, ...] = (Source("a"), Source("b"))

def get_config(preset="paper"):
    return from_defaults(Job, {"preset": preset})
"""


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "stage.py"
    path.write_text(FILE)
    return str(path)


def test_load_config(config_file):
    assert cli.load_config(config_file).preset == "paper"
    config = cli.load_config(f"{config_file}:phantom", ["sft.learning_rate=1", "sft.name=x", "sft.sizes=(3, 4)"])
    assert config.preset == "phantom"
    assert config.sft.to_dict() == {"learning_rate": 1.0, "name": "x", "sizes": (3, 4)}
    assert config.is_locked


def test_a_union_takes_a_text_or_a_group(config_file):
    assert cli.load_config(config_file, ["init=hf:owner/name"]).init == "hf:owner/name"
    assert cli.load_config(config_file, ["init.learning_rate=5"]).init.learning_rate == 5.0
    assert cli.load_config(config_file, ["grpo={'name': 'x'}"]).grpo == {"name": "x"}
    assert cli.load_config(config_file, ["sft.name=None"]).sft.name is None


def test_items_of_a_tuple_are_set_by_number_or_as_a_whole(config_file):
    config = cli.load_config(config_file, ["sources[1].weight=0.5"])
    assert [source.weight for source in config.sources] == [1.0, 0.5]
    assert cli.load_config(config_file, ["sources=({'path': 'c'},)"]).sources == ({"path": "c"},)
    assert cli.load_config(config_file, ["sft.sizes=5", "sft.sizes=6"]).sft.sizes == (5, 6)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("sft.lerning_rate=1", r"config\.sft\.lerning_rate is not a field: did you mean config\.sft\.learning_rate\?"),
        ("stf.learning_rate=1", r"config\.stf\.learning_rate is not a field: did you mean config\.sft\.learning_rate"),
        ("sft.learning_rate=abc", r"config\.sft\.learning_rate=abc: could not convert"),
        ("init.nam=x", r"config\.init\.nam is not a field: did you mean config\.init\.name\?"),
        (
            "sources[1].wight=1",
            r"config\.sources\[1\]\.wight is not a field: did you mean config\.sources\[1\]\.weight",
        ),
        ("grpo.name=x", r"config\.grpo\.name cannot be set, since config\.grpo is None here"),
        ("preset.name=x", r"config\.preset\.name cannot be set, since config\.preset is 'paper' here"),
    ],
)
def test_load_config_refuses(config_file, override, sentence):
    with pytest.raises(UserError, match=sentence):
        cli.load_config(config_file, [override])


@pytest.mark.parametrize("inner", ["sft.learning_rate=1", "sources[1].weight=1"])
def test_a_group_and_a_field_of_it_are_not_both_set(config_file, inner):
    whole = re.split(r"[.[]", inner)[0]
    for overrides in ([f"{whole}='x'", inner], [inner, f"{whole}='x'"]):
        with pytest.raises(
            UserError, match=rf"config\.{whole} is set as a whole and config\.{re.escape(inner[:-2])} within"
        ):
            cli.load_config(config_file, overrides)


def test_what_a_config_file_refuses_is_one_sentence(tmp_path):
    path = tmp_path / "job.py"
    path.write_text(
        "def get_config(preset=''):\n    raise ValueError(f'there is no preset {preset!r}; take phantom')\n"
    )
    with pytest.raises(UserError, match=r"^\S*job\.py:phantm: there is no preset 'phantm'; take phantom$"):
        cli.load_config(f"{path}:phantm")


def test_load_config_missing_file(config_file):
    with pytest.raises(UserError, match=r"did you mean .*stage\.py"):
        cli.load_config(config_file.replace("stage", "stag"))


def test_config_flags_are_checked(config_file):
    cli.check_config_flags(["program", f"--config={config_file}", "--config.sft.learning_rate=1", "--other"])
    for arguments in (
        ["--config", config_file, "--config.sft.nam=1"],
        [f"-config={config_file}", "-config.sft.nam", "1"],
    ):
        with pytest.raises(UserError, match=r"did you mean config\.sft\.name"):
            cli.check_config_flags(["program", *arguments])


SCRIPT = """
from absl import flags
from ml_collections import config_flags
from chestx_jax import cli
from chestx_jax.errors import UserError

CONFIG = config_flags.DEFINE_config_file("config")
flags.DEFINE_float("speed", 1.0, "of the script", lower_bound=0.0)

def main(arguments):
    if CONFIG.value.sft.learning_rate > 1:
        raise UserError("too fast")
    if CONFIG.value.sft.learning_rate < -1:
        raise ValueError("Failed to write 89235 bytes: No space left on device [os_error_code='28']")
    if CONFIG.value.sft.learning_rate < 0:
        raise OSError(28, "No space left on device", "weights")
    print(CONFIG.value.sft.learning_rate)

if __name__ == "__main__":
    cli.run(main)
"""

FREE = "free some space and run the same command again."


@pytest.mark.parametrize(
    ("arguments", "status", "output"),
    [
        (["--config.sft.learning_rate=0.5"], 0, "0.5"),
        (["--config.sft.nam=1"], 2, "error: config.sft.nam is not a field: did you mean config.sft.name?"),
        (["--config.sft.learning_rate=7"], 2, "error: too fast"),
        (["--config.sft.learning_rate=-1"], 2, f"error: The disk is full while writing weights: {FREE}"),
        (["--config.sft.learning_rate=-2"], 2, f"error: The disk is full: {FREE}"),
        (["--confg=x"], 2, "error: There is no flag --confg: did you mean --config?"),
        (["--speed=nan"], 2, "error: --speed=nan is no finite number."),
        (["stray"], 2, "error: There is nothing to do with 'stray': every option is written --name=value."),
    ],
)
def test_commands_end_with_one_sentence(config_file, tmp_path, arguments, status, output):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), f"--config={config_file}", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == status
    assert (result.stdout + result.stderr).strip() == output
