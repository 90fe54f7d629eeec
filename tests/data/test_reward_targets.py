"""Reward targets of samples: an answer that is no label is named with its file and record."""

import json

import pytest

from chestx_jax import lexicon
from chestx_jax.data.reader import read_samples
from chestx_jax.data.reward_targets import reward_targets
from chestx_jax.errors import UserError


def test_an_unknown_label_is_named_with_its_record(tmp_path):
    path = tmp_path / "rl.jsonl"
    question = "Which findings are in this chest X-ray?"
    answers = ["Edema", "Edema, Nodule"]
    path.write_text("\n".join(json.dumps({"question": question, "answer": a, "image_path": []}) for a in answers))
    samples = read_samples(path)
    assert reward_targets(lexicon.load(), samples[:1], 8).labels.sum() == 1
    with pytest.raises(UserError, match=r"record rl-1 \(.*rl\.jsonl, record 1\): .*nodule"):
        reward_targets(lexicon.load(), samples, 8)
