"""A workdir belongs to one configuration, whatever a kill or a user left in its config.json."""

import json
from dataclasses import replace

import pytest

from chestx_jax.config import to_dict
from chestx_jax.errors import UserError
from chestx_jax.recipes import GrpoConfig, JobConfig
from chestx_jax.rewards.reward import RewardConfig
from chestx_jax.training.workdir import same_configuration

JOB = JobConfig(grpo=GrpoConfig(rewards=RewardConfig()))


def test_the_configuration_is_kept_and_compared(tmp_path):
    same_configuration(JOB, tmp_path)
    same_configuration(JOB, tmp_path)
    with pytest.raises(UserError, match=r"config\.max_bad was 0\.01, now it is 0\.5"):
        same_configuration(replace(JOB, max_bad=0.5), tmp_path)


def test_a_field_newer_than_the_workdir_had_its_default(tmp_path):
    same_configuration(JOB, tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    del saved["grpo"]["rewards"]["slots"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    same_configuration(JOB, tmp_path)
    grpo = replace(JOB.grpo, rewards=replace(JOB.grpo.rewards, slots=8))
    with pytest.raises(UserError, match=r"config\.grpo\.rewards\.slots was 64, now it is 8"):
        same_configuration(replace(JOB, grpo=grpo), tmp_path)


def test_a_workdir_from_before_aspect_squashes_films(tmp_path):
    old = to_dict(JOB)
    old["image"] = {**old["image"], "height": 448, "width": 448}
    del old["image"]["aspect"]
    (tmp_path / "config.json").write_text(json.dumps(old))
    squashed = replace(JOB, image=replace(JOB.image, aspect="squash", height=448, width=448))
    same_configuration(squashed, tmp_path)
    with pytest.raises(UserError, match=r"config\.image\.aspect was 'squash', now it is 'keep'"):
        same_configuration(JOB, tmp_path)


@pytest.mark.parametrize("content", ["", '{"grpo": {"name"', "\x00", "3", "[]"])
def test_a_configuration_that_cannot_be_read_is_one_sentence(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    sentence = r"config\.json is (not valid JSON .*another workdir|.* but must be a group of fields)"
    with pytest.raises(UserError, match=sentence):
        same_configuration(JOB, tmp_path)
