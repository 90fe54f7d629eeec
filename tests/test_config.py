"""Typed configs: whatever a dataclass can hold survives the round trip, and every misfit is named by its full path."""

import dataclasses
from typing import Literal

import hypothesis.strategies as st
import ml_collections
import pytest
from hypothesis import given
from ml_collections import config_dict

from chestx_jax.config import bounded, from_defaults, to_dataclass, to_dict
from chestx_jax.errors import UserError, choose
from chestx_jax.model.config import VisionConfig


@dataclasses.dataclass(frozen=True)
class Optimizer:
    learning_rate: float = bounded(1e-4, min=0, max=1)
    betas: tuple[float, float] = bounded((0.9, 0.999), min=0, max=1)
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_steps: int | None = bounded(None, min=0)


@dataclasses.dataclass(frozen=True)
class Source:
    path: str
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Stage:
    steps: int
    optimizer: Optimizer = Optimizer(learning_rate=2e-4)
    sources: tuple[Source, ...] = ()
    init: Source | str | None = None
    loop_images: bool = False


numbers = st.floats(allow_nan=False).map(
    lambda number: number + 0.0
)  # no -0.0, which equals 0.0 but is written otherwise
unit = st.floats(0, 1).map(lambda number: number + 0.0)
optimizers = st.builds(
    Optimizer,
    learning_rate=unit,
    betas=st.tuples(unit, unit),
    schedule=st.sampled_from(["constant", "cosine"]),
    warmup_steps=st.none() | st.integers(0, 2**31 - 1),
)
sources = st.builds(Source, path=st.text(), weight=numbers)
stages = st.builds(
    Stage,
    steps=st.integers(),
    optimizer=optimizers,
    sources=st.lists(sources).map(tuple),
    init=st.none() | st.text() | sources,
    loop_images=st.booleans(),
)


@given(stages)
def test_round_trip(stage):
    assert to_dataclass(Stage, to_dict(stage)) == stage
    assert to_dataclass(Stage, from_defaults(Stage, to_dict(stage))) == stage


def test_a_nested_mapping_changes_the_default_of_its_field():
    stage = to_dataclass(Stage, {"steps": 1, "optimizer": {"warmup_steps": 5}})
    assert stage.optimizer == Optimizer(learning_rate=2e-4, warmup_steps=5)
    again = to_dataclass(Stage, {"optimizer": {"schedule": "constant"}}, default=stage)
    assert again == Stage(1, Optimizer(learning_rate=2e-4, warmup_steps=5, schedule="constant"))


def test_changes_are_made_in_turn():
    first = {"steps": 1, "optimizer": {"warmup_steps": 5}, "init": "random"}
    second = {"optimizer": {"warmup_steps": None}, "init": {"path": "a"}, "sources": ({"path": "b"},)}
    config = from_defaults(Stage, first, second)
    assert to_dataclass(Stage, config) == Stage(1, Optimizer(learning_rate=2e-4), (Source("b"),), Source("a"))
    with pytest.raises(UserError, match=r"config\.optimizer\.warmup_step is not a field"):
        from_defaults(Stage, first, {"optimizer": {"warmup_step": 5}})


def test_ml_collections_types():
    given_config = ml_collections.ConfigDict({"steps": 3, "optimizer": {"learning_rate": 1}})
    given_config.optimizer.warmup_steps = config_dict.placeholder(int)
    given_config.sources = [{"path": "a", "weight": 2}]
    given_config.again = given_config.get_ref("steps")
    del given_config.again
    stage = to_dataclass(Stage, given_config)
    assert stage == Stage(3, Optimizer(1.0), (Source("a", 2.0),))
    assert type(stage.optimizer.learning_rate) is float


@pytest.mark.parametrize(
    ("mapping", "sentence"),
    [
        ({"stepz": 1}, "config.stepz is not a field: did you mean config.steps?"),
        ({"lerning_rate": 1}, "config.lerning_rate is not a field: did you mean config.optimizer.learning_rate?"),
        ({"optimizer": {"shedule": 1}}, "config.optimizer.shedule is not a field: did you mean config.optimizer.s"),
        ({"qqqq": 1}, "config.qqqq is not a field: config has init, loop_images"),
        ({"sources": [{"path": "a"}, {"weight": 2}]}, "config.sources[1].path is missing"),
        ({"steps": True}, "config.steps is True but must be a whole number."),
        ({"steps": 1.5}, "config.steps is 1.5 but must be a whole number."),
        ({"steps": "1"}, "config.steps is '1' but must be a whole number."),
        ({"loop_images": 1}, "config.loop_images is 1 but must be True or False."),
        ({"sources": "abc"}, "config.sources is 'abc' but must be a list of values."),
        ({"optimizer": 3}, "config.optimizer is 3 but must be a group of fields."),
        ({"optimizer": {"learning_rate": -1}}, "config.optimizer.learning_rate is -1.0 but must be at least 0."),
        ({"optimizer": {"learning_rate": 2}}, "config.optimizer.learning_rate is 2.0 but must be at most 1."),
        ({"optimizer": {"learning_rate": float("nan")}}, "config.optimizer.learning_rate is not a number"),
        ({"optimizer": {"betas": (0.9, 1.5)}}, "config.optimizer.betas[1] is 1.5 but must be at most 1."),
        ({"optimizer": {"betas": (0.9,)}}, "config.optimizer.betas has 1 values but needs 2."),
        ({"optimizer": {"warmup_steps": -1}}, "config.optimizer.warmup_steps is -1 but must be at least 0."),
        ({"optimizer": {"schedule": "cosin"}}, "config.optimizer.schedule is 'cosin': did you mean 'cosine'?"),
        ({"init": 3}, "config.init is 3 but must be a group of fields or a text or None."),
        ({"init": {"pth": "x"}}, "config.init.pth is not a field: did you mean config.init.path?"),
    ],
)
def test_misfits_are_named(mapping, sentence):
    with pytest.raises(UserError) as error:
        to_dataclass(Stage, {"steps": 1} | mapping)
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


def test_fields_of_earlier_versions_are_passed_over():
    former = {"layers": 3, "norm": "layer", "gated": False}
    assert to_dataclass(VisionConfig, former) == VisionConfig(layers=3)


def test_missing_field_is_named():
    with pytest.raises(UserError, match=r"^config\.steps is missing: set it to a whole number\.$"):
        to_dataclass(Stage, {})


def test_checks_between_fields_keep_their_path():
    @dataclasses.dataclass(frozen=True)
    class Range:
        low: int
        high: int

        def __post_init__(self):
            if self.low > self.high:
                raise UserError(f"low is {self.low}, above high {self.high}: swap them.")

    with pytest.raises(UserError, match=r"^config\.range: low is 2, above high 1"):
        to_dataclass(Range, {"low": 2, "high": 1}, "config.range")


def test_choose():
    assert choose({"phantom": 1, "paper": 2}, "paper", "preset") == 2
    with pytest.raises(UserError, match="There is no preset 'phantm': did you mean 'phantom'"):
        choose({"phantom": 1, "paper": 2}, "phantm", "preset")


@dataclasses.dataclass(frozen=True)
class Chain:
    before: "str | Chain" = "random"
    link: "Link | None" = None


@dataclasses.dataclass(frozen=True)
class Link:
    chain: Chain | None = None


def test_dataclasses_may_nest_in_themselves():
    built = to_dataclass(Chain, {"before": {"before": "x"}, "link": {"chain": {}}})
    assert built == Chain(Chain("x"), Link(Chain()))
    with pytest.raises(UserError, match=r"config\.before\.befor is not a field: did you mean config\.before\.before"):
        to_dataclass(Chain, {"before": {"befor": "x"}})
