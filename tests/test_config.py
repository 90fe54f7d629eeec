"""Typed configs: whatever a dataclass can hold survives the round trip, and every misfit is named by its full path."""

import dataclasses
import functools
import subprocess
import sys
from typing import Literal

import hypothesis.strategies as st
import ml_collections
import pytest
from hypothesis import given
from ml_collections import config_dict

from chestx_jax import cli, config
from chestx_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Optimizer:
    learning_rate: float = config.bounded(1e-4, min=0, exclusive_min=True, max=1)
    betas: tuple[float, float] = config.bounded((0.9, 0.999), min=0, max=1, exclusive_max=True)
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_steps: int | None = config.bounded(None, min=0)


@dataclasses.dataclass(frozen=True)
class Source:
    path: str
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Stage:
    steps: int
    optimizer: Optimizer = Optimizer()
    sources: tuple[Source, ...] = ()
    terms: dict[str, float] = dataclasses.field(default_factory=dict)
    init: Source | str | None = None
    loop_images: bool = False
    dtype: str = config.bounded("float32", choices=("float32", "bfloat16"))


numbers = st.floats(allow_nan=False).map(
    lambda number: number + 0.0
)  # no -0.0, which equals 0.0 but is written otherwise
unit = st.floats(0, 1, exclude_min=True, exclude_max=True)
optimizers = st.builds(
    Optimizer,
    learning_rate=unit,
    betas=st.tuples(unit, unit),
    schedule=st.sampled_from(["constant", "cosine"]),
    warmup_steps=st.none() | st.integers(0),
)
sources = st.builds(Source, path=st.text(), weight=numbers)
stages = st.builds(
    Stage,
    steps=st.integers(),
    optimizer=optimizers,
    sources=st.lists(sources).map(tuple),
    terms=st.dictionaries(st.text(), numbers),
    init=st.none() | st.text() | sources,
    loop_images=st.booleans(),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)


@given(stages)
def test_round_trip(stage):
    assert config.to_dataclass(Stage, config.to_dict(stage)) == stage


@given(stages, stages)
def test_fingerprint_is_equality(one, other):
    assert (config.fingerprint(one) == config.fingerprint(other)) == (config.to_dict(one) == config.to_dict(other))
    again = config.to_dataclass(Stage, dict(reversed(config.to_dict(one).items())))
    assert config.fingerprint(again) == config.fingerprint(one)


def test_fingerprint_is_fixed():
    """Stored fingerprints must stay readable by later versions, on any machine."""
    assert config.fingerprint(Source("a")) == "b1e76864c355835805fd4680848ca9e675c66a23a0379bbcd052ed12bde0fa45"


def test_ml_collections_types():
    given_config = ml_collections.ConfigDict({"steps": 3, "optimizer": {"learning_rate": 1}})
    given_config.optimizer.warmup_steps = config_dict.placeholder(int)
    given_config.sources = [{"path": "a", "weight": 2}]
    given_config.again = given_config.get_ref("steps")
    del given_config.again
    stage = config.to_dataclass(Stage, given_config)
    assert stage == Stage(3, Optimizer(1.0), (Source("a", 2.0),))
    assert type(stage.optimizer.learning_rate) is float


@pytest.mark.parametrize(
    ("mapping", "sentence"),
    [
        ({"stepz": 1}, "config.stepz is not a field: did you mean config.steps?"),
        ({"lerning_rate": 1}, "config.lerning_rate is not a field: did you mean config.optimizer.learning_rate?"),
        ({"optimizer": {"shedule": 1}}, "config.optimizer.shedule is not a field: did you mean config.optimizer.s"),
        ({"qqqq": 1}, "config.qqqq is not a field: config has dtype, init"),
        ({"sources": [{"path": "a"}, {"weight": 2}]}, "config.sources[1].path is missing"),
        ({"steps": True}, "config.steps is True but must be a whole number."),
        ({"steps": 1.5}, "config.steps is 1.5 but must be a whole number."),
        ({"steps": "1"}, "config.steps is '1' but must be a whole number."),
        ({"loop_images": 1}, "config.loop_images is 1 but must be True or False."),
        ({"sources": "abc"}, "config.sources is 'abc' but must be a list of values."),
        ({"optimizer": 3}, "config.optimizer is 3 but must be a group of fields."),
        ({"optimizer": {"learning_rate": 0}}, "config.optimizer.learning_rate is 0.0 but must be above 0."),
        ({"optimizer": {"learning_rate": 2}}, "config.optimizer.learning_rate is 2.0 but must be at most 1."),
        ({"optimizer": {"learning_rate": float("nan")}}, "config.optimizer.learning_rate is not a number"),
        ({"optimizer": {"betas": (0.9, 1)}}, "config.optimizer.betas[1] is 1.0 but must be below 1."),
        ({"optimizer": {"betas": (0.9,)}}, "config.optimizer.betas has 1 values but needs 2."),
        ({"optimizer": {"warmup_steps": -1}}, "config.optimizer.warmup_steps is -1 but must be at least 0."),
        ({"optimizer": {"schedule": "cosin"}}, "config.optimizer.schedule is 'cosin': did you mean 'cosine'?"),
        ({"terms": {"format": "much"}}, "config.terms.format is 'much' but must be a number."),
        ({"init": 3}, "config.init is 3 but must be a group of fields or a text or None."),
        ({"init": {"pth": "x"}}, "config.init.pth is not a field: did you mean config.init.path?"),
        ({"dtype": "float16"}, "config.dtype is 'float16': choose one of 'float32', 'bfloat16'."),
    ],
)
def test_misfits_are_named(mapping, sentence):
    with pytest.raises(UserError) as error:
        config.to_dataclass(Stage, {"steps": 1} | mapping)
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


def test_missing_field_is_named():
    with pytest.raises(UserError, match=r"^config\.steps is missing: set it to a whole number\.$"):
        config.to_dataclass(Stage, {})


def test_required_placeholder_is_named():
    unfilled = ml_collections.ConfigDict({"steps": config_dict.required_placeholder(int)})
    with pytest.raises(UserError, match=r"config\.steps is missing"):
        config.to_dataclass(Stage, unfilled)


def test_checks_between_fields_keep_their_path():
    @dataclasses.dataclass(frozen=True)
    class Range:
        low: int
        high: int

        def __post_init__(self):
            if self.low > self.high:
                raise UserError(f"low is {self.low}, above high {self.high}: swap them.")

    with pytest.raises(UserError, match=r"^config\.range: low is 2, above high 1"):
        config.to_dataclass(Range, {"low": 2, "high": 1}, "config.range")


def test_choose():
    assert config.choose({"phantom": 1, "paper": 2}, "paper", "preset") == 2
    with pytest.raises(UserError, match="There is no preset 'phantm': did you mean 'phantom'"):
        config.choose({"phantom": 1, "paper": 2}, "phantm", "preset")


FILE = """
import ml_collections

def get_config(preset="paper"):
    config = ml_collections.ConfigDict({"preset": preset, "note": None, "sft": {"learning_rate": 2e-6, "dims": (1, 2)}})
    config.sft.name = ml_collections.config_dict.placeholder(str)
    return config
"""


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "stage.py"
    path.write_text(FILE)
    return str(path)


def test_load_config(config_file):
    assert config.load_config(config_file).preset == "paper"
    loaded = config.load_config(f"{config_file}:phantom", ["sft.learning_rate=1", "sft.name=x", "sft.dims=(3, 4)"])
    assert loaded.preset == "phantom"
    assert loaded.sft.to_dict() == {"learning_rate": 1.0, "name": "x", "dims": (3, 4)}
    assert loaded.is_locked


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("sft.lerning_rate=1", r"config\.sft\.lerning_rate is not a field: did you mean config\.sft\.learning_rate\?"),
        (
            "stf.learning_rate=1",
            r"config\.stf\.learning_rate is not a field: did you mean config\.sft\.learning_rate\?",
        ),
        ("sft.learning_rate=abc", r"config\.sft\.learning_rate=abc: could not convert"),
        ("note=abc", r"config\.note is None in the config file"),
    ],
)
def test_load_config_refuses(config_file, override, sentence):
    with pytest.raises(UserError, match=sentence):
        config.load_config(config_file, [override])


LOOSE = """
import ml_collections
from chestx_jax.config import untyped_field

def get_config():
    init = untyped_field(ml_collections.ConfigDict({"steps": 3}))
    return ml_collections.ConfigDict({"init": init, "note": untyped_field(None)})
"""


def test_loose_fields_take_a_text_or_a_group(tmp_path):
    path = tmp_path / "job.py"
    path.write_text(LOOSE)
    load = functools.partial(config.load_config, str(path))
    assert load(["init=hf:owner/name"]).init == "hf:owner/name"
    assert load(["init.steps=5", "note=x"]).to_dict() == {"init": {"steps": 5}, "note": "x"}
    with pytest.raises(UserError, match=r"did you mean config\.init\.steps"):
        load(["init.stesp=5"])


@dataclasses.dataclass(frozen=True)
class Chain:
    before: "str | Chain" = "random"
    link: "Link | None" = None


@dataclasses.dataclass(frozen=True)
class Link:
    chain: Chain | None = None


def test_dataclasses_may_nest_in_themselves():
    built = config.to_dataclass(Chain, {"before": {"before": "x"}, "link": {"chain": {}}})
    assert built == Chain(Chain("x"), Link(Chain()))
    with pytest.raises(UserError, match=r"config\.before\.befor is not a field: did you mean config\.before\.before"):
        config.to_dataclass(Chain, {"before": {"befor": "x"}})


def test_what_a_config_file_refuses_is_one_sentence(tmp_path):
    path = tmp_path / "job.py"
    path.write_text(
        "def get_config(preset=''):\n    raise ValueError(f'there is no preset {preset!r}; take phantom')\n"
    )
    with pytest.raises(UserError, match=r"^\S*job\.py:phantm: there is no preset 'phantm'; take phantom$"):
        config.load_config(f"{path}:phantm")


def test_load_config_missing_file(config_file):
    with pytest.raises(UserError, match=r"did you mean .*stage\.py"):
        config.load_config(config_file.replace("stage", "stag"))


def test_config_flags_are_checked(config_file):
    cli.check_config_flags(["door", f"--config={config_file}", "--config.sft.learning_rate=1", "--other"])
    for arguments in (
        ["--config", config_file, "--config.sft.nam=1"],
        [f"-config={config_file}", "-config.sft.nam", "1"],
    ):
        with pytest.raises(UserError, match=r"did you mean config\.sft\.name"):
            cli.check_config_flags(["door", *arguments])


DOOR = """
from absl import flags
from ml_collections import config_flags
from chestx_jax import cli
from chestx_jax.errors import UserError

CONFIG = config_flags.DEFINE_config_file("config")

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
        (["stray"], 2, "error: There is nothing to do with 'stray': every option is written --name=value."),
    ],
)
def test_door(config_file, tmp_path, arguments, status, output):
    script = tmp_path / "script.py"
    script.write_text(DOOR)
    command = [sys.executable, str(script), f"--config={config_file}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert (done.stdout + done.stderr).strip() == output
