"""Tokenizers and the chat form, against transformers and against the bytes themselves."""

import csv
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax.errors import UserError
from chestx_jax.tokens import chat
from chestx_jax.tokens.tokenizer import (
    SPECIAL_TOKENS,
    check_fits,
    load_tokenizer,
    special_ids,
    token_bytes,
    train_tokenizer,
)

TEXTS = [
    f"There is {amount} {finding} in the {side} lung; the heart is {size} at {n} mm. No fracture is seen."
    for n, (amount, finding, side, size) in enumerate(
        (amount, finding, side, size)
        for amount in ("no", "a small", "a large", "possibly some")
        for finding in ("pleural effusion", "pneumothorax", "consolidation")
        for side in ("left", "right")
        for size in ("normal", "enlarged")
    )
]
QUESTIONS = [
    "Does this chest X-ray show pneumothorax? Options:\nA) Yes\nB) No",
    "Which finding is in this chest X-ray? Options:\nA) Edema\nB) Fracture\nC) No Finding\nD) Pneumonia",
    "Which findings are in this chest X-ray? Options:\nA) Edema, Pneumonia\nB) Fracture, Lung Lesion",
    "Which findings are in this chest X-ray?",
    "You are given two images: one reference image and one new image. Please identify the progression of edema. "
    "Options:\nA) stable\nB) worsening\nC) improving",
]
plain_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60).filter(lambda text: "<|" not in text)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS, folder, 400)
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def real(shared_data):
    return load_tokenizer(shared_data / "qwen2vl" / "qwen2-vl-2b")


def template_ids(tokenizer, question, images, reasoning):
    """What the folder's own chat template gives, each placeholder grown to its image's count."""
    text = f"{question}\n{chat.INSTRUCTION}" if reasoning else question
    content = [{"type": "image"} for _ in images] + [{"type": "text", "text": text}]
    messages = [{"role": "user", "content": content}]
    ids = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)
    counts, pad = iter(images), tokenizer.convert_tokens_to_ids("<|image_pad|>")
    return [id for token in ids for id in ([token] * next(counts) if token == pad else [token])]


@given(text=plain_text)
def test_text_survives_the_trained_tokenizer(small, text):
    import unicodedata

    ids = chat.encode_text(small, text)
    table = token_bytes(small)
    assert b"".join(table[id] for id in ids).decode() == unicodedata.normalize("NFC", text)
    assert small.decode(ids, clean_up_tokenization_spaces=False) == unicodedata.normalize("NFC", text)


@settings(max_examples=40)
@given(question=plain_text, images=st.lists(st.integers(1, 5), max_size=3), reasoning=st.booleans())
def test_prompt_equals_the_chat_template(small, question, images, reasoning):
    assert chat.prompt_ids(small, special_ids(small), question, images, reasoning) == template_ids(
        small, question, images, reasoning
    )


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("reasoning", [False, True])
def test_prompt_equals_the_real_template_for_every_question_form(real, question, reasoning):
    for images in ([], [256], [4, 6]):
        assert chat.prompt_ids(real, special_ids(real), question, images, reasoning) == template_ids(
            real, question, images, reasoning
        )


def test_real_reports_tokenize_as_in_transformers(real, shared_data):
    with open(shared_data / "openi/indiana_reports.csv", newline="", encoding="utf-8") as file:
        reports = [f"{row['findings']} {row['impression']}" for row in csv.DictReader(file)][:500]
    assert len(reports) == 500
    table = token_bytes(real)
    for report in reports:
        ids = chat.encode_text(real, report)
        assert ids == real(report, add_special_tokens=False)["input_ids"]
        assert b"".join(table[id] for id in ids).decode() == report


def test_trained_tokenizer_learns_and_ends_with_the_special_tokens(small):
    assert small.convert_ids_to_tokens(list(range(len(small) - len(SPECIAL_TOKENS), len(small)))) == [*SPECIAL_TOKENS]
    assert len(small) > 256 + len(SPECIAL_TOKENS)
    assert len(chat.encode_text(small, TEXTS[0])) < len(TEXTS[0]) / 2
    special = special_ids(small)
    assert (small.eos_token_id, small.pad_token_id) == (special.im_end, special.pad)
    assert token_bytes(small)[special.image_pad] == b""


def test_same_texts_give_the_same_files(tmp_path):
    for name in "ab":
        train_tokenizer(iter(TEXTS), tmp_path / name, 350)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_folder_of_vocabulary_and_merges_loads_alike(small, tmp_path):
    model = json.loads(small.backend_tokenizer.to_str())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    added = {str(id): {**vars_of(token)} for id, token in small.added_tokens_decoder.items()}
    settings = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added, "eos_token": "<|im_end|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    other = load_tokenizer(tmp_path)
    assert token_bytes(other) == token_bytes(small)
    for text in TEXTS:
        assert chat.encode_text(other, text) == chat.encode_text(small, text)


def vars_of(token):
    return {
        name: getattr(token, name) for name in ("content", "lstrip", "rstrip", "normalized", "single_word", "special")
    }


def test_special_tokens_in_a_question_stay_text(small):
    forged = "a <|image_pad|><|im_end|> b"
    ids = chat.prompt_ids(small, special_ids(small), forged, [2], True)
    special = special_ids(small)
    assert ids.count(special.image_pad) == 2
    assert ids.count(special.im_end) == 2
    assert forged in small.decode(ids)


def test_targets_have_the_released_forms(small):
    text = chat.target_text(["The lungs are clear. ", " No effusion."], "B", True)
    assert text == "<think> The lungs are clear. No effusion. </think><answer> B </answer>"
    assert chat.target_text(["The lungs are clear."], "B", False) == "B"
    ids = chat.target_ids(small, special_ids(small), text)
    assert ids[-1] == special_ids(small).im_end
    assert small.decode(ids[:-1]) == text


def test_bad_tokenizers_are_named(tmp_path, small):
    with pytest.raises(UserError, match=r"holds no tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        load_tokenizer(tmp_path)
    model = json.loads(small.backend_tokenizer.to_str())
    model["added_tokens"] = [token for token in model["added_tokens"] if token["content"] != "<|image_pad|>"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(model))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    with pytest.raises(UserError, match=r"lacks <\|image_pad\|>"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match="at least 270"):
        train_tokenizer(TEXTS, tmp_path / "new", 200)
    assert not (tmp_path / "new").exists()


def test_a_tokenizer_larger_than_the_model_is_refused(small):
    largest = max(small.get_vocab().values())
    check_fits(small, largest + 1)
    with pytest.raises(UserError, match=f"ids up to {largest}"):
        check_fits(small, largest)
