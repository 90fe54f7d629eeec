"""Tokenizers that have the tags of the answer form as tokens of their own: written, sampled, decoded and rewarded as
text."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chestx_jax import findings, lexicon
from chestx_jax.inference.answers import answer_probability
from chestx_jax.inference.generate import stream_text
from chestx_jax.inference.loaded_model import allowed_ids
from chestx_jax.rewards.reward import RewardConfig, score
from chestx_jax.tokens import chat
from chestx_jax.tokens.tokenizer import (
    TAGS,
    decode_text,
    encode_text,
    load_tokenizer,
    special_ids,
    token_bytes,
    train_tokenizer,
)
from chestx_jax.types import Completion
from tests.helpers.paths import DATA

STEPS = ("There is a small effusion on the left side of the chest, as the angle shows.",)
TEXT = chat.target_text(STEPS, "A", True)
FORMS = {
    "special": {"special": True, "normalized": False},
    "added": {"special": False, "normalized": False},
    "normalised": {"special": True, "normalized": True},
    "stripping": {"special": True, "normalized": False, "lstrip": True, "rstrip": True},
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer([TEXT, "The heart is enlarged."] * 9, folder, 400)
    return folder


@pytest.fixture(scope="module", params=FORMS)
def tokenizer(plain, tmp_path_factory, request):
    from tokenizers import AddedToken

    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = load_tokenizer(plain)
    tokenizer.add_tokens([AddedToken(tag, **FORMS[request.param]) for tag in TAGS])
    tokenizer.save_pretrained(folder)
    loaded = load_tokenizer(folder)
    assert len(loaded) == len(load_tokenizer(plain)) + len(TAGS)
    return loaded


pieces = st.sampled_from([*TAGS, " ", "\n", "The heart", " is", "enlarged.", "<think", "answer>", "</", "é"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.lists(pieces, max_size=12).map("".join))
def test_text_is_written_and_read_as_by_transformers(tokenizer, text):
    ids = encode_text(tokenizer, text)
    assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]
    decoded = tokenizer.decode(ids, skip_special_tokens=False)  # no other special token is in the text
    assert decode_text(tokenizer, ids) == decoded
    table = token_bytes(tokenizer)
    assert b"".join(table[id] for id in ids).decode() == decoded


def test_other_special_tokens_are_no_text(tokenizer):
    special = special_ids(tokenizer)
    ids = chat.target_ids(tokenizer, special, "<|im_end|>" + TEXT)
    assert ids[-1] == special.im_end
    assert special.im_end not in ids[:-1]
    assert decode_text(tokenizer, [special.vision_start, *ids]).replace(" ", "") == f"<|im_end|>{TEXT}".replace(" ", "")
    written: list[str] = []
    emit = stream_text(tokenizer, written.append)
    for count in range(len(ids) + 1):
        emit(ids[:count])
    assert "".join(written) == decode_text(tokenizer, ids)


def test_tags_may_be_sampled(tokenizer):
    allowed = allowed_ids(tokenizer, special_ids(tokenizer), len(tokenizer) + 3)
    assert allowed[tokenizer.convert_tokens_to_ids(list(TAGS))].all()
    assert not allowed[special_ids(tokenizer).image_pad]
    assert not allowed[-3:].any()


def rewards(tokenizer):
    known = lexicon.load()
    tables = lexicon.compile_tables(known, token_bytes(tokenizer))
    targets = findings.reward_targets(known, [("Small left pleural effusion.",)], [()], ["A"], ["binary"], slots=16)
    ids = chat.target_ids(tokenizer, special_ids(tokenizer), TEXT)
    completion = Completion(jnp.asarray([ids]), jnp.asarray([len(ids)]), jnp.asarray([0]))
    terms = score(RewardConfig(), tables, completion, targets).terms
    return {name: float(term[0]) for name, term in terms.items()}


def test_a_perfect_completion_earns_what_it_does_with_tags_in_pieces(tokenizer, plain):
    earned = rewards(tokenizer)
    assert (earned["format"], earned["accuracy"]) == (1.0, 1.0)
    assert earned["process"] > 0
    assert earned == pytest.approx(rewards(load_tokenizer(plain)))


def test_the_answer_s_probability_is_read_between_tag_tokens(tokenizer):
    ids = encode_text(tokenizer, TEXT)
    inside = [tokenizer.decode([id]).strip() == "A" for id in ids]
    logprobs = np.where(list(itertools.accumulate(inside)), 0.0, -1.0) - np.where(inside, 0.5, 0.0)
    probability = answer_probability([tokenizer.decode([id]) for id in ids], logprobs.astype(np.float32))
    assert probability == pytest.approx(np.exp(-0.5))


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the development data")
def test_a_folder_that_went_wrong():
    earned = rewards(load_tokenizer(DATA / "faults/hf/think_special"))
    assert (earned["format"], earned["accuracy"]) == (1.0, 1.0)
    assert earned["process"] > 0
