"""Options are read in every spelling people write, and asked in one; the instruction is no part of a question."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestx_jax.data.fields import FieldError
from chestx_jax.data.questions import canonical_question, options, parts, question_key, without_instruction
from chestx_jax.data.schema import sample_from_record
from chestx_jax.tokens.chat import INSTRUCTION

CANONICAL = "Is there edema? Options:\nA) Yes\nB) No"


@pytest.mark.parametrize(
    "question",
    [
        CANONICAL,
        f"{CANONICAL}\n{INSTRUCTION}",
        f"{CANONICAL}\nPut your thoughts in <think></think> and the letter in <answer></answer> tags.",
        "Is there edema? Options: A) Yes B) No",
        "Is there edema? Options: A) Yes, B) No",
        "Is there edema? Options: (A) Yes or (B) No",
        "Is there edema?\nOptions:\n(A) Yes\n(B) No",
        "Is there edema? Choices:\nA) Yes\nB) No",
        "Is there edema? Answer choices:\nA. Yes\nB. No",
        "Is there edema? options: a) Yes b) No",
        "Is there edema? OPTIONS:\r\n[A] Yes\r\n[B] No\r\n",
        "Is there edema? Options: A: Yes; B: No",
        "Is there edema? Options:\n1. Yes\n2. No",
        "Is there edema? Choices: 1) Yes 2) No",
        "Is there edema? Options：\nA：Yes\nB：No",
        "Is there edema? Options:\n**A)** Yes\n**B)** No",
        "Is there edema? Options:\n- A) Yes\n- B) No",
        "Is there edema?\nA) Yes\nB) No",
        "Is there edema? (A) Yes (B) No",
        "Is there edema? Options: (choose one)\nA. Yes\nB. No",
    ],
)
def test_one_question_in_every_spelling(question):
    assert options(question) == {"A": "Yes", "B": "No"}
    sample = sample_from_record({"question": question, "answer": "B", "image_path": []}, "file")
    assert (sample.answer, sample.task) == ("B", "binary")
    if "choose" not in question:
        assert question_key(question) == question_key(CANONICAL)


def test_the_release_s_form_is_left_as_it_is():
    for question in (CANONICAL, f"{CANONICAL}\nAnswer with a letter.", "Which findings are there?", "1. A? 2. B?"):
        assert canonical_question(question) == question
    assert (
        canonical_question("Is it? Options: a) Yes b) No\nAnswer now.") == "Is it? Options:\nA) Yes\nB) No\nAnswer now."
    )


@pytest.mark.parametrize(
    "question",
    [
        "Which findings are in this chest X-ray?",
        "Describe 1. the heart 2. the lungs",
        "Is there a type A) aneurysm?",
        "Name the choices of therapy.",
        "Does vitamin A. B. C. matter?",
    ],
)
def test_open_questions_have_no_options(question):
    assert not options(question)
    assert not parts(question).unreadable


@pytest.mark.parametrize(
    "listing", ["Yes, No", "Yes / No", "- Yes\n- No", "A) Yes\nA) No", "", "Yes\nNo", "27. x", "0) x\n1) y"]
)
def test_options_that_cannot_be_read_are_no_open_question(listing):
    record = {"question": f"Is it? Options:\n{listing}", "answer": "A", "image_path": []}
    with pytest.raises(FieldError, match="options that cannot be read"):
        sample_from_record(record, "file")


def test_empty_and_wrapped_options_keep_their_letters():
    assert options("Q? Options:\nA) \nB) No") == {"A": "", "B": "No"}
    assert options("Q? Options:\nA) edema with\n  fluid\nB) none") == {"A": "edema with fluid", "B": "none"}
    assert options("Q? Options:\nB) No\nA) Yes") == {"B": "No", "A": "Yes"}
    assert options("Q? Options:\nA) Yes\nB) No, A) is wrong") == {"A": "Yes", "B": "No, A) is wrong"}


def test_numbered_gold_answers_become_letters():
    record = {"question": "Is it? Options: 1. Yes 2. No", "answer": "2", "image_path": []}
    assert sample_from_record(record, "file").answer == "B"
    assert sample_from_record({**record, "answer": "No"}, "file").answer == "B"
    with pytest.raises(FieldError, match="none of the options"):
        sample_from_record({**record, "answer": "3"}, "file")


WORDS = st.lists(st.sampled_from(["edema", "no finding", "fracture, mild", "Pneumonia", "是"]), min_size=2, max_size=6)
MARKS = st.sampled_from(["{A})", "({A})", "{A}.", "{A}:", "[{A}]", "{a})", "({a})", "{n}.", "{n})"])


@given(WORDS, MARKS, st.sampled_from(["\n", " ", "; ", "\r\n", "\n\n"]), st.sampled_from(["Options:", "Choices: "]))
def test_any_marks_and_separators_give_the_same_options(texts, mark, separator, header):
    letters = "ABCDEF"[: len(texts)]
    lines = [
        f"{mark.format(A=letter, a=letter.lower(), n=number)} {text}"
        for number, (letter, text) in enumerate(zip(letters, texts, strict=True), start=1)
    ]
    question = f"What is it? {header}\n{separator.join(lines)}"
    assert options(question) == dict(zip(letters, texts, strict=True))
    canonical = canonical_question(question)
    assert canonical_question(canonical) == canonical
    assert options(canonical) == options(question)


@given(st.text(max_size=80))
def test_any_text_has_parts(text):
    split = parts(text)
    assert not (split.options and split.unreadable)
    canonical_question(without_instruction(text))
