"""Chat forms beside Qwen2-VL's: no system turn, think tags as tokens of their own, a thought the prompt opens."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax import lexicon
from chestx_jax.errors import UserError
from chestx_jax.findings import reward_targets
from chestx_jax.rewards.reward import RewardConfig, score
from chestx_jax.tokens import chat
from chestx_jax.tokens.rows import encode
from chestx_jax.tokens.tokenizer import load_tokenizer, special_ids, token_bytes, train_tokenizer
from chestx_jax.types import Completion
from tests.tokens.test_text import QUESTIONS, TEXTS, plain_text, template_ids

TURNS = (
    "{%- for message in messages -%}{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- else -%}{{- part['text'] -}}{%- endif -%}{%- endfor -%}{{- '<|im_end|>\\n' -}}{%- endfor -%}"
)  # no system turn, as in Qwen3-VL
INSTRUCT = TURNS + "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
THINKING = TURNS + "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n<think>\\n' -}}{%- endif -%}"
TARGET = chat.target_text(["Small left pleural effusion.", "No pneumothorax."], "B", True)


def with_think_tokens(folder, template):
    """The tokenizer of a folder with four more tokens, as Qwen3's has them, and a template."""
    from tokenizers import AddedToken

    tokenizer = load_tokenizer(folder)
    names = ("<tool_response>", "</tool_response>", "<think>", "</think>")
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in names])
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS, folder, 400)
    return folder


@pytest.fixture(scope="module", params=[INSTRUCT, THINKING], ids=["instruct", "thinking"])
def small(folder, request):
    return with_think_tokens(folder, request.param)


@pytest.fixture(scope="module")
def thinking(folder):
    return with_think_tokens(folder, THINKING)


@pytest.fixture(scope="module", params=[INSTRUCT, THINKING], ids=["instruct", "thinking"])
def real(shared_data, request):
    """A stand-in for Qwen3-VL's tokenizer: Qwen2.5-VL's with the added tokens."""
    tokenizer = with_think_tokens(shared_data / "qwen2vl" / "qwen2.5-vl-7b", request.param)
    assert tokenizer.convert_tokens_to_ids(["<think>", "</think>"]) == [151667, 151668]
    return tokenizer


@settings(max_examples=40)
@given(question=plain_text, images=st.lists(st.integers(1, 5), max_size=3))
def test_reasoning_prompts_equal_the_template(small, question, images):
    ids = chat.prompt_ids(small, special_ids(small), question, images, True)
    assert ids == template_ids(small, question, images, True)


@pytest.mark.parametrize("question", QUESTIONS)
def test_reasoning_prompts_equal_the_template_of_a_real_tokenizer(real, question):
    for images in ([], [256], [4, 6]):
        ids = chat.prompt_ids(real, special_ids(real), question, images, True)
        assert ids == template_ids(real, question, images, True)


def test_an_answer_without_reasoning_opens_no_thought(small):
    special = special_ids(small)
    ids = chat.prompt_ids(small, special, "Clear?", [4], False)
    assert small.decode(ids).endswith("<|im_start|>assistant\n")
    assert chat.opened_text(small, ids) == ""
    assert small.decode(chat.target_ids(small, special, "B", False)[:-1]) == "B"


def test_prompt_and_target_make_one_reasoning(small):
    """The tags are tokens of their own, each once; what the prompt opens is not learned again."""
    special = special_ids(small)
    example = encode(small, special, "Clear?", [], True, TARGET)
    ids, learned = example.ids.tolist(), example.weights == 1
    think, closed = small.convert_tokens_to_ids(["<think>", "</think>"])
    start = ids.index(special.im_start, ids.index(special.im_start) + 1)  # of the assistant's turn
    turn = ids[start:]
    assert turn.count(think) == turn.count(closed) == 1
    text = small.decode(turn[:-1]).removeprefix("<|im_start|>assistant\n")
    assert " ".join(text.split()) == TARGET
    prompt = example.ids[~learned].tolist()
    assert (think in example.ids[learned]) == (chat.chat_form(small).opening == "")
    assert chat.opened_text(small, prompt) + small.decode(example.ids[learned][:-1]) == text


def test_rewards_read_what_the_prompt_has_opened(thinking):
    """A perfect completion, one with a wrong answer and one that never ends its thought earn what they earn with their
    own think tag, and tags that are tokens of their own are read."""
    known, slots = lexicon.load(), 16
    targets = reward_targets(known, [("Small left pleural effusion.",)], [()], ["B"], ["binary"], slots)
    opening = chat.chat_form(thinking).opening
    texts = [TARGET, TARGET.replace(" B ", " A "), TARGET.split("</think>")[0], "<think>\n</think><answer> B </answer>"]
    bytes_of = token_bytes(thinking)
    think = thinking.convert_tokens_to_ids("<think>")
    assert bytes_of[think] == b"<think>"

    def terms(texts, opening):
        rows = [chat.encode_text(thinking, text) for text in texts]
        ids = np.zeros((len(rows), 120), np.int32)
        for row, values in zip(ids, rows, strict=True):
            row[: len(values)] = values
        completion = Completion(ids, np.array([*map(len, rows)], np.int32), np.zeros(len(rows), np.int32))
        return jax.device_get(
            score(RewardConfig(slots=slots), lexicon.compile_tables(known, bytes_of, opening), completion, targets)
        )

    whole = terms(texts, "")
    continued = terms([text.removeprefix("<think>").lstrip() for text in texts], opening)
    for name, values in whole.terms.items():
        np.testing.assert_allclose(continued.terms[name], values, err_msg=name)
    np.testing.assert_allclose(continued.sequence, whole.sequence)
    assert whole.terms["format"].tolist() == [1.0, 1.0, 0.0, 1.0]
    assert whole.terms["accuracy"].tolist() == [1.0, 0.0, 0.0, 1.0]
    assert whole.sequence[0] > whole.sequence[1] > whole.sequence[2]
    assert terms(["Clear. </think><answer> B </answer>"], "").terms["format"] == 0.0


def test_templates_of_another_form_are_refused(folder):
    for template in ("{{ messages[0]['content'] }}", "{{ raise_exception('none') }}", "[INST] x [/INST]"):
        tokenizer = with_think_tokens(folder, template)
        with pytest.raises(UserError, match="not the form of Qwen's models"):
            chat.chat_form(tokenizer)


def test_a_template_in_a_file_of_its_own_is_read(folder, tmp_path):
    import json
    import shutil

    shutil.copyfile(folder / "tokenizer.json", tmp_path / "tokenizer.json")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert chat.chat_form(load_tokenizer(tmp_path)) == chat.ChatForm()
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": THINKING}))
    assert chat.chat_form(load_tokenizer(tmp_path)) == chat.ChatForm(None, "<think>\n")
