"""The paper's recipe is the dataclasses' defaults, presets are what they change of it, and every field can be set."""

import contextlib
import dataclasses
import typing
from dataclasses import replace
from typing import Literal

import pytest
from ml_collections.config_flags.config_path import get_value

from chestx_jax.buckets import LengthsConfig
from chestx_jax.cli import load_config
from chestx_jax.config import to_dataclass, to_dict
from chestx_jax.data.mixture import SourceConfig
from chestx_jax.errors import UserError
from chestx_jax.eval.config import EvalConfig
from chestx_jax.recipes import EvaluationConfig, GrpoConfig, JobConfig, ReferenceConfig, SftConfig
from chestx_jax.rollout.sampling import SamplingConfig
from chestx_jax.tokens.rows import RowsConfig
from chestx_jax.update.losses import PolicyConfig
from chestx_jax.update.optimizer import OptimizerConfig
from configs import eval as evaluation
from configs import rl, sft
from tests.helpers.paths import ROOT
from tests.model.hf.test_shapes import MODELS

PRESETS = [
    (JobConfig, "sft.py", sft.PAPER),
    (JobConfig, "sft.py:mined", sft.MINED),
    (JobConfig, "sft.py:qwen3_vl_8b", sft.QWEN3_VL_8B),
    (JobConfig, "sft.py:phantom", sft.PHANTOM),
    (JobConfig, "sft.py:nih", sft.NIH),
    (JobConfig, "rl.py", rl.PAPER),
    (JobConfig, "rl.py:mined", rl.MINED),
    (JobConfig, "rl.py:qwen3_vl_8b", sft.QWEN3_VL_8B),
    (JobConfig, "rl.py:phantom", rl.PHANTOM),
    (JobConfig, "rl.py:nih", rl.NIH),
    (EvalConfig, "eval.py", {}),
    (EvalConfig, "eval.py:phantom", evaluation.PHANTOM),
]
# Fields that must agree with others, all of which are set at once: another value for each.
AGREEING = {
    "channels": lambda value: value,  # one is legal
    "head_dim": lambda value: value,
    "family": lambda value: "qwen2_5_vl" if value == "qwen2_vl" else value,
    "rule": lambda value: value,  # step credit, set beside it, is legal with one
    "step_weight": lambda value: 0.0 if value else 0.5,
    "kl_clamp": lambda value: value,  # the other estimators have none
    "old_logprobs": lambda value: value,  # a correction, set beside it, is of the trainer's
    "mrope_section": lambda value: value[::-1] if value != value[::-1] else value,
    "window": lambda value: value + 112,
    "decoder": lambda value: "lora",
    "height": lambda value: 224,
    "width": lambda value: 2 * value if value else 224,
    "patch_size": lambda value: 28 if value == 14 else 14,
}


def load(cls, name, *overrides):
    return to_dataclass(cls, load_config(str(ROOT / "configs" / name), overrides))


def leaves(config, prefix=""):
    """Path, type and value of every field of a typed config that is no group of fields."""
    hints = typing.get_type_hints(type(config))
    for name, value in vars(config).items():
        path = prefix + name
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{path}.")
        elif isinstance(value, tuple) and any(map(dataclasses.is_dataclass, value)):
            for i, item in enumerate(value):
                yield from leaves(item, f"{path}[{i}].")
        else:
            yield path, hints[name], value


def another(path, hint, value):
    """A legal value of the field that is not `value`; doubling keeps films multiples of their patches."""
    name = path.rpartition(".")[2]
    if name in AGREEING:
        return AGREEING[name](value)
    if typing.get_origin(hint) is Literal:
        return next(option for option in typing.get_args(hint) if option != value)
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        if dataclasses.is_dataclass(item):
            return (item(path="another"),)
        return tuple(another("", item, x) for x in value) or (another("", item, item()),)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return 2 * abs(value) or 1
    if isinstance(value, float):
        return value / 2 or 0.5
    if isinstance(value, str):
        return f"{value}x"
    return next(arm for arm in typing.get_args(hint) if arm is not type(None))()  # of an absent optional field


@pytest.mark.parametrize(("cls", "name"), [(cls, name) for cls, name, _ in PRESETS])
def test_every_field_of_a_preset_can_be_set(cls, name):
    others = {path: another(path, hint, value) for path, hint, value in leaves(load(cls, name))}
    config = load(cls, name, *(f"{path}={to_dict(other)}" for path, other in others.items()))
    assert {path: get_value(path, config) for path in others} == others
    print(f"{name}: {len(others)} fields")


def test_groups_of_fields_are_set_as_a_whole():
    groups = ("init.init=random", "init.validation=None", "init.sources=({'path': 'a'},)", "grpo=None")
    config = load(JobConfig, "rl.py:phantom", *groups, "init.rows={'length': 99}")
    assert (config.init.init, config.init.validation, config.grpo) == ("random", None, None)
    assert config.init.sources == (SourceConfig("a"),)
    assert config.init.rows == RowsConfig(length=99, image_slots=4)  # the other fields by default, not by preset
    added = load(JobConfig, "sft.py", "grpo={'source': {'path': 'rl.json'}}")
    assert added.grpo == GrpoConfig(source=SourceConfig("rl.json"))


@pytest.mark.parametrize(
    ("name", "override", "sentence"),
    [
        ("sft.py", "grpo.steps=3", "config.grpo.steps cannot be set, since config.grpo is None here"),
        ("rl.py", "init.steps=3", "config.init.steps cannot be set, since config.init is 'orbax:runs/"),
        (
            ":phantom",
            "init.init.stesp=3",
            "config.init.init.stesp is not a field: did you mean config.init.init.steps?",
        ),
        (":phantom", "gpo.steps=3", "config.gpo.steps is not a field: did you mean config.grpo.steps?"),
        (":phantom", "model.tuning.decoder=lor", "config.model.tuning.decoder is 'lor': did you mean 'lora'?"),
        (":phantom", "grpo.steps=0", "config.grpo.steps is 0 but must be at least 1."),
        (":phantom", "image.height=tall", "config.image.height is 'tall' but must be a whole number."),
        (":phantm", "grpo.steps=3", "There is no preset of configs/rl.py 'phantm': did you mean 'phantom'?"),
    ],
)
def test_what_does_not_fit_a_preset_is_one_sentence(name, override, sentence):
    with pytest.raises(UserError) as error:
        load(JobConfig, name.replace(":", "rl.py:"), override)
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


def without_one(changes):
    """Every copy of nested changes that lacks one of them, and the name of what it lacks."""
    if isinstance(changes, tuple):
        for i, item in enumerate(changes):
            for name, fewer in without_one(item):
                yield f"{i}.{name}", (*changes[:i], fewer, *changes[i + 1 :])
    elif isinstance(changes, dict):
        for key, value in changes.items():
            smaller = list(without_one(value))
            yield from ((f"{key}.{name}", {**changes, key: fewer}) for name, fewer in smaller)
            if not smaller:
                yield key, {name: value for name, value in changes.items() if name != key}


@pytest.mark.parametrize(("cls", "changes"), [(cls, changes) for cls, _, changes in PRESETS])
def test_presets_write_only_what_differs_from_the_defaults(cls, changes):
    def typed(changes):
        with contextlib.suppress(UserError):  # some fields must agree with each other
            return to_dataclass(cls, changes)

    assert [name for name, fewer in without_one(changes) if typed(fewer) == typed(changes)] == []


def test_the_defaults_are_the_recipe_of_the_release():
    job, grpo = JobConfig(), GrpoConfig()
    stage = job.init
    assert stage.init == "hf:Qwen/Qwen2-VL-7B-Instruct"
    assert (job.model.family, job.model.layers, job.model.width, job.model.vocab_size) == ("qwen2_vl", 28, 3584, 152064)
    assert (job.image.aspect, job.image.max_pixels) == ("keep", 448 * 448)
    compute = job.model.compute
    assert (compute.dtype, compute.param_dtype, compute.remat) == ("bfloat16", "float32", "layer")
    assert stage.optimizer == OptimizerConfig("adamw", 2e-6, "cosine", warmup=0.1, weight_decay=0.0, clip=1.0)
    assert (stage.batch, stage.steps, stage.rows) == (32, 5000, RowsConfig(2048, image_slots=4, patches=1024))
    assert (grpo.prompts, grpo.updates, grpo.steps) == (256, 1, 150)
    assert grpo.sampling == SamplingConfig(temperature=1.0, top_p=1.0, top_k=0, length=2048, group=8)
    assert grpo.optimizer == OptimizerConfig("adamw", 5e-7, "constant", warmup=0.0, weight_decay=0.01, clip=1.0)
    assert (grpo.optimizer.b1, grpo.optimizer.b2) == (0.9, 0.999)
    assert grpo.policy == PolicyConfig("token", 0.2, 0.2, 3.0, "token", "k3", kl_weight=0.001, entropy_weight=0.001)
    assert (grpo.advantages.baseline, grpo.advantages.scale) == ("group", "std")
    assert grpo.reference == ReferenceConfig("bfloat16", offload=True)
    assert grpo.rows == RowsConfig(2048, image_slots=2, patches=1024)


def test_the_presets_take_the_recipe_as_it_is():
    paper, first = load(JobConfig, "rl.py"), load(JobConfig, "sft.py").init
    files = {"sources": (), "validation": None}
    assert replace(first, **files) == SftConfig()
    of_data = {"source": SourceConfig(), "rows": RowsConfig()}  # its files, and how many films a question has
    assert replace(paper.grpo, **of_data, lengths=LengthsConfig(), micro_batches=1) == GrpoConfig()
    assert replace(paper.evaluation, **of_data) == EvaluationConfig()
    assert paper.grpo.rows == paper.evaluation.rows == RowsConfig(2048, image_slots=3, patches=1024)
    assert paper.grpo.buckets == ((1024, 2048), (3,), (320, 512, 1024, 2048))


def test_qwen3_vl_takes_the_recipe_with_its_own_model():
    for name in ("sft.py", "rl.py"):
        paper, other = load(JobConfig, name), load(JobConfig, f"{name}:qwen3_vl_8b")
        changed = {
            field.name
            for field in dataclasses.fields(paper)
            if getattr(paper, field.name) != getattr(other, field.name)
        }
        assert changed == {"model", "image"} | ({"init"} if name == "sft.py" else set())
        assert other.model == replace(MODELS["qwen3-vl-8b"], compute=paper.model.compute)
        assert other.image.max_patches == paper.image.max_patches
    assert (
        replace(load(JobConfig, "sft.py:qwen3_vl_8b").init, init=JobConfig().init.init)
        == load(JobConfig, "sft.py").init
    )


def test_a_family_is_one_field_of_the_phantom_job():
    plain, other = load(JobConfig, "rl.py:phantom"), load(JobConfig, "rl.py:phantom", "model.family=qwen3_vl")
    assert replace(other, model=plain.model) == plain
    assert replace(other.model, family="qwen2_vl") == plain.model
    assert other.model.architecture.deepstack


def test_the_phantom_job():
    """What README's numbers were made with."""
    job = load(JobConfig, "rl.py:phantom")
    stages = (job.init.init, job.init, job.grpo)
    assert [(stage.steps, stage.optimizer.rate) for stage in stages] == [(700, 8e-3), (480, 5e-3), (90, 2.5e-4)]
    assert [stage.optimizer.rule for stage in stages] == ["muon", "muon", "adamw"]
    assert (job.init.init.batch, job.init.batch, job.grpo.prompts, job.grpo.sampling.group) == (8, 8, 16, 8)
    assert [source.weight for source in job.init.sources] == [3.0, 0.2, 0.7, 0.4, 0.7, 0.9, 0.6]
    assert job.model.compute.dtype == job.grpo.reference.dtype == "float32"
    assert (job.grpo.rewards.credit, job.grpo.advantages.step_weight) == ("step", 0.5)
    assert replace(job, grpo=None) == load(JobConfig, "sft.py:phantom")
