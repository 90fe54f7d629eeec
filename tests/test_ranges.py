"""Every number of a configuration has a range, and values that make no sense together are one sentence."""

import dataclasses
import math
import subprocess
import sys
import typing

import pytest

from chestx_jax.cli import load_config
from chestx_jax.config import to_dataclass
from chestx_jax.errors import UserError
from chestx_jax.eval.config import EvalConfig
from chestx_jax.recipes import JobConfig
from tests.helpers.paths import CONFIGS, ROOT


def arms(hint):
    """The plain types of a hint: those of its unions and tuples."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return []
    return [plain for arm in inner for plain in arms(arm)] if inner else [hint]


def classes(cls, known=()):
    """A configuration's dataclass and all that its fields may hold, each once."""
    found = [cls]
    for hint in typing.get_type_hints(cls).values():
        for arm in arms(hint):
            if dataclasses.is_dataclass(arm) and arm not in (*known, *found):
                found += [other for other in classes(arm, (*known, *found)) if other not in found]
    return found


CLASSES = [cls for config in (JobConfig, EvalConfig) for cls in classes(config)]
NUMBERS = [
    (cls, field)
    for cls in CLASSES
    for field in dataclasses.fields(cls)
    if {int, float} & set(arms(typing.get_type_hints(cls)[field.name]))
]


def test_every_number_has_a_range():
    assert len(CLASSES) > 20
    assert [f"{cls.__name__}.{field.name}" for cls, field in NUMBERS if "range" not in field.metadata] == []


def outside(field, hint):
    """Values next to the ends of a field's range."""
    least = 1 if int in arms(hint) else 1e-6
    bounds = field.metadata["range"]
    yield from (bounds.min - least,) if bounds.min is not None else ()
    yield from (bounds.max + least,) if bounds.max not in (None, math.inf) else ()
    yield from (bound for bound in (bounds.above, bounds.below) if bound is not None)
    if float in arms(hint):
        yield from (math.nan, -math.inf) if bounds.max == math.inf else (math.nan, math.inf, -math.inf)


@pytest.mark.parametrize(("cls", "field"), NUMBERS, ids=lambda x: getattr(x, "name", getattr(x, "__name__", "")))
def test_a_value_outside_of_its_range_is_one_sentence(cls, field):
    hint = typing.get_type_hints(cls)[field.name]
    wrong = list(outside(field, hint))
    required = {other.name: 20 for other in dataclasses.fields(cls) if other.default is other.default_factory}
    assert wrong
    for value in wrong:
        values = value
        if typing.get_origin(hint) is tuple:
            values = [value] * (len(field.default) or 1)
        with pytest.raises(UserError) as error:
            to_dataclass(cls, required | {field.name: values})
        assert str(error.value).startswith(f"config.{field.name}")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("flag", "complaint"),
    [("--top-p=0", "sampling.top_p is 0.0 but must be above 0.0."), ("--seed=-1", "--seed=-1")],
)
def test_flags_have_the_same_ranges(flag, complaint):
    command = [sys.executable, "-m", "chestx_jax.generate", "--model=hf:x", "--question=?", flag]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert complaint in done.stderr


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["init.optimizer.warmup=10"], "config.init.optimizer.warmup is 10.0 but must be at most 1"),
        (["grpo.sampling.top_p=0"], "config.grpo.sampling.top_p is 0.0 but must be above 0"),
        (["grpo.sampling.group=1"], "config.grpo: sampling.group is 1, and a completion is compared"),
        (["grpo.sampling.group=1", "grpo.advantages.baseline=others"], "config.grpo: sampling.group is 1"),
        (["grpo.sampling.group=0"], "config.grpo.sampling.group is 0 but must be at least 1"),
        (["grpo.sampling.temperature=0"], "config.grpo: sampling.temperature is 0, with which all completions"),
        (["grpo.optimizer.rate=-1e-6"], "config.grpo.optimizer.rate is -1e-06 but must be above 0"),
        (["grpo.rewards.format=-1"], "config.grpo.rewards.format is -1.0 but must be at least 0"),
        (["grpo.rewards.process=0"], "config.grpo.rewards: credit=step pays nothing while the weight process is 0"),
        (["grpo.advantages.step_weight=0"], "config.grpo: rewards.credit=step pays nothing while advantages.step"),
        (["grpo.rewards.credit=sequence"], "config.grpo: advantages.step_weight is 0.5 and no step has credit"),
        (["grpo.micro_batches=3"], "config.grpo: prompts is 16 and micro_batches 3: set micro_batches to a divisor"),
        (["grpo.mini_batches=3"], "config.grpo: prompts is 16 and mini_batches × micro_batches 3: set mini_batches ×"),
        (["grpo.mini_batches=4", "grpo.micro_batches=8"], "config.grpo: prompts is 16 and mini_batches × micro_ba"),
        (["grpo.policy={'kl': 'k2', 'kl_clamp': 10}"], "config.grpo.policy: kl_clamp is 10 and kl k2"),
        (
            ["grpo.policy={'correction': 'token', 'old_logprobs': 'sampler'}"],
            "config.grpo.policy: correction=token compares the trainer's log-probs with the sampler's",
        ),
        (["grpo.rollout_slots=-1"], "config.grpo.rollout_slots is -1 but must be at least 0"),
        (["init.micro_batches=5"], "config.init: batch is 8 and micro_batches 5"),
        (["init.init.micro_batches=16"], "config.init.init: batch is 8 and micro_batches 16"),
        (["grpo.policy.dual_clip=0.5"], "config.grpo.policy: dual_clip is 0.5: set it above 1, or to 0"),
        (["grpo.overlong={'rule': 'penalise', 'penalty': 0}"], "config.grpo.overlong: rule=penalise with penalty 0"),
        (["grpo.overlong={'rule': 'penalise', 'buffer': 500}"], "config.grpo: overlong.buffer is 500 tokens"),
        (["init.name=grpo"], "config: A stage is called 'grpo'"),
        (["init.name=base"], "config: A stage is called 'base'"),
        (["grpo.name=../x"], "config: A stage is called '../x'"),
        (["model.heads=5"], "config.model: width is 128 and heads 5: make the first a multiple of the second"),
        (["model.kv_heads=3"], "config.model: heads is 4 and kv_heads 3"),
        (["model.mrope_section=(4, 6, 7)"], "config.model: mrope_section is (4, 6, 7), which sums to 17: make it half"),
        (["model.vision.heads=5"], "config.model: vision.width is 96 and 4 × vision.heads 20"),
        (["model.vision.hidden=100"], "config.model: vision.hidden is 100 and vision.width 96"),
        (["model.family=qwen2_5_vl", "model.vision.window=100"], "config.model: vision.window is 100"),
        (["model.tuning.targets=('[',)"], "config.model.tuning: targets holds '[', which is no regular expression"),
        (
            [f"model.tuning.{part}=freeze" for part in ("vision", "merger", "decoder")],
            "config.model.tuning: vision, merger and decoder are all frozen",
        ),
    ],
)
def test_values_that_make_no_sense_are_one_sentence(overrides, sentence):
    with pytest.raises(UserError) as error:
        to_dataclass(JobConfig, load_config(str(CONFIGS / "rl.py:phantom"), overrides))
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)
