"""Only what defines the model and the data of what a workdir holds is locked; whatever else changes is logged."""

import json
from dataclasses import replace

import pytest

from chestx_jax import config
from chestx_jax.data.mixture import SourceConfig
from chestx_jax.errors import UserError
from chestx_jax.recipes import EvaluationConfig, GrpoConfig, JobConfig, SftConfig
from chestx_jax.training.changes import adopt_configuration, changes_since, describe_changes

SOURCES = (SourceConfig(path="a.json", image_root="images"), SourceConfig(path="b.json", weight=2.0))
BASE = SftConfig(name="base", init="random", sources=SOURCES)
SFT = SftConfig(init=BASE, sources=SOURCES, validation=SourceConfig(path="v.json"))
GRPO = GrpoConfig(source=SourceConfig(path="rl.json"))
JOB = JobConfig(init=SFT, grpo=GRPO, evaluation=EvaluationConfig())


def changed(job, path, value):
    """The job with the field at a dotted path set."""
    name, _, rest = path.partition(".")
    if isinstance(job, tuple):
        return tuple(changed(item, rest, value) if i == int(name) else item for i, item in enumerate(job))
    return replace(job, **{name: changed(getattr(job, name), rest, value) if rest else value})


@pytest.fixture
def workdir(tmp_path):
    """A run whose base stage is finished, whose SFT has a checkpoint and whose GRPO has not begun."""
    adopt_configuration(JOB, tmp_path)
    (tmp_path / "base" / "params").mkdir(parents=True)
    (tmp_path / "sft" / "checkpoints" / "20").mkdir(parents=True)
    return tmp_path


FREE = [
    ("mesh.fsdp", 8),
    ("wandb", "online"),
    ("max_bad", 0.5),
    ("data_root", "/elsewhere"),
    ("model.compute.param_dtype", "bfloat16"),
    ("model.compute.remat", "dots"),
    ("init.steps", 7),
    ("init.batch", 64),
    ("init.micro_batches", 4),
    ("init.rows.length", 4096),
    ("init.optimizer.rate", 1e-6),
    ("init.optimizer.max_skipped", 3),
    ("init.cadence.save", 1),
    ("init.cadence.keep", 9),
    ("init.result", "best"),
    ("init.sources.0.image_root", "/elsewhere/images"),
    ("init.init.steps", 9),
    ("evaluation", None),
    ("evaluation.length", 12),  # no answers yet
    ("grpo", None),
    ("grpo.source.path", "other.json"),  # not begun
    ("grpo.seed", 3),
    ("grpo.sampling.temperature", 0.7),
]
LOCKED = [
    ("model.layers", 3, "sft"),
    ("model.rope_theta", 1e4, "sft"),
    ("model.tuning.decoder", "lora", "sft"),
    ("image.max_pixels", 336 * 336, "sft"),
    ("tokenizer", "other", "sft"),
    ("init.seed", 3, "sft"),
    ("init.sources.1.weight", 0.5, "sft"),
    ("init.sources.0.path", "other.json", "sft"),
    ("init.sources", SOURCES[:1], "sft"),
    ("init.validation.path", "other.json", "sft"),
    ("init.optimizer.rule", "muon", "sft"),
    ("init.init.seed", 3, "base"),
    ("init.init.init", "hf:other/model", "base"),
    ("init.init", "random", "base"),
    ("init", "orbax:elsewhere", "sft"),
]


@pytest.mark.parametrize(("path", "value"), FREE)
def test_what_defines_neither_model_nor_data_may_change(workdir, path, value):
    job = changed(JOB, path, value)
    (change,) = adopt_configuration(job, workdir)
    assert config.to_dict(value) == change.new
    assert changes_since(workdir / "config.json", job) == []
    (logged,) = [json.loads(line) for line in (workdir / "config_changes.jsonl").read_text().splitlines()]
    assert (logged["name"], logged["new"]) == (change.name, change.new)
    (line,) = describe_changes([change], job, workdir)
    assert f"config.{change.name}: " in line
    assert ("base is finished and stays as it is" in line) == path.startswith("init.init.")


@pytest.mark.parametrize(("path", "value", "stage"), LOCKED)
def test_what_defines_model_or_data_is_locked_once_a_stage_was_made_with_it(workdir, path, value, stage):
    job = changed(JOB, path, value)
    with pytest.raises(UserError, match=r"config\.init|config\.model|config\.image|config\.tokenizer") as caught:
        adopt_configuration(job, workdir)
    assert stage in str(caught.value)
    assert " was " in str(caught.value)
    assert "now it is" in str(caught.value)
    assert changes_since(workdir / "config.json", JOB) == []  # nothing was written


@pytest.mark.parametrize(("path", "value", "stage"), LOCKED)
def test_a_mistake_may_be_corrected_while_nothing_was_made_with_it(tmp_path, path, value, stage):
    adopt_configuration(JOB, tmp_path)
    assert adopt_configuration(changed(JOB, path, value), tmp_path)


def test_answers_lock_what_they_answer(workdir):
    (workdir / "test").mkdir()
    (workdir / "test" / "SFT.jsonl").write_text("{}\n")
    for path, value in (("evaluation.length", 12), ("evaluation.source.path", "other.json")):
        with pytest.raises(UserError, match="answers to a test"):
            adopt_configuration(changed(JOB, path, value), workdir)
    assert adopt_configuration(changed(JOB, "evaluation.batch", 2), workdir)
    assert adopt_configuration(changed(JOB, "evaluation", None), workdir)


def test_priors_lock_what_they_were_counted_on(workdir):
    assert adopt_configuration(changed(JOB, "grpo.rewards.value.unasked", 0.3), workdir)
    assert adopt_configuration(JOB, workdir)
    (workdir / "grpo").mkdir()
    (workdir / "grpo" / "priors.json").write_text("{}")
    for path, value in (("grpo.rewards.value.unasked", 0.3), ("grpo.source.path", "other.json")):
        with pytest.raises(UserError, match="the priors of the stage grpo"):
            adopt_configuration(changed(JOB, path, value), workdir)
    assert adopt_configuration(changed(JOB, "grpo.rewards.process", 3.0), workdir)


def test_a_field_newer_than_the_workdir_had_its_default(workdir):
    saved = json.loads((workdir / "config.json").read_text())
    del saved["init"]["seed"]
    (workdir / "config.json").write_text(json.dumps(saved))
    assert adopt_configuration(JOB, workdir) == []
    with pytest.raises(UserError, match=r"config\.init\.seed was 0, now it is 8"):
        adopt_configuration(changed(JOB, "init.seed", 8), workdir)


def test_a_workdir_from_before_aspect_squashes_films(workdir):
    old = config.to_dict(JOB)
    old["image"] = {**old["image"], "height": 448, "width": 448}
    del old["image"]["aspect"]
    (workdir / "config.json").write_text(json.dumps(old))
    squashed = replace(JOB, image=replace(JOB.image, aspect="squash", height=448, width=448))
    assert adopt_configuration(squashed, workdir) == []
    with pytest.raises(UserError, match=r"config\.image\.aspect was 'squash', now it is 'keep'"):
        adopt_configuration(JOB, workdir)


@pytest.mark.parametrize("content", ["", '{"grpo": {"name"', "\x00", "3", "[]"])
def test_a_configuration_that_cannot_be_read_is_one_sentence(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    sentence = r"config\.json is (not valid JSON .*another workdir|.* but must be a group of fields)"
    with pytest.raises(UserError, match=sentence):
        adopt_configuration(JOB, tmp_path)
