"""How answers are read: the strict rule on every form models write, and the release's rules with their bugs."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax.errors import UserError
from chestx_jax.eval.answers.official import family_of, official
from chestx_jax.eval.answers.parsing import given_labels, given_letters, reasoning_text, strict, strip_echo

YES_NO = "Does this chest X-ray show edema? Options:\nA) Yes\nB) No"
FOUR = "Which finding is in this chest X-ray? Options:\nA) Edema\nB) Fracture\nC) Pneumonia\nD) Lung Lesion"
OPEN = "Which findings are in this chest X-ray?"
ECHO = f"system\nYou help.\nuser\n{YES_NO}\nthink within <think></think>, <answer></answer>.\nassistant\n"


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("<think> fluid </think><answer> A </answer>", "A"),
        ("<answer>B) No</answer>", "B"),
        ("<answer>\nA) Yes\n</answer>", "A"),
        ("<think> so <answer>B</answer> </think>", None),
        ("<think> so <answer>B</answer>", "B"),
        ("<think> first <answer>B</answer>, but no </think><answer> A </answer>", "A"),
        ("<think> fluid </think><answer> A", "A"),
        ("<answer> No </answer>", "B"),
        ("<ANSWER>(a) none</ANSWER><answer>(A)</answer>", "A"),
        ("A) Yes", "A"),
        ("(B) No", "B"),
        ("B", "B"),
        ("**A) Yes** because of the Kerley lines.", "A"),
        ("Look at the hila.\n\n**Final answer:**\n**B) No.** " + "The film is clear. " * 20, "B"),
        ("Perihilar haze is seen. Therefore the answer is A.", "A"),
        ("Nothing is seen, so **Option B (No)** is right.", "B"),
        (ECHO + "<think> haze </think><answer> A </answer>", "A"),
        ("", None),
        ("<answer></answer>", None),
        ("<think> haze </think><answer> </answer>", None),
        (ECHO, None),
        ("I am sorry, I cannot read films.", None),
        ("A small effusion may be there.", None),
        ("If haze is seen, the answer is A; otherwise the answer would be B.", None),
        ("- If haze is visible → **A) Yes**\n- If none is → **B) No**", None),
        ("<answer> E </answer>", None),
        ("<answer> it depends </answer>", None),
    ],
)
def test_strict_reads_what_a_reader_would(text, letters):
    assert given_letters(text, YES_NO) == (None if letters is None else frozenset(letters))


SETS = "Which findings are in this film? Options:\nA) edema, fracture\nB) pneumonia, edema\nC) edema\nD) no finding"


@pytest.mark.parametrize(
    ("block", "letters"),
    [
        ("A: Edema; C: Pneumonia", "AC"),
        ("A. Edema, C. Pneumonia", "AC"),
        ("A. Edema\nC. Pneumonia", "AC"),
        ("A) Edema C) Pneumonia", "AC"),
        ("- A: Edema\n- C: Pneumonia", "AC"),
        ("1. Edema\n2. Pneumonia", "AC"),
        ("1) Edema 2) Pneumonia", "AC"),
        ("Pneumonia, Edema", "AC"),
        ("edema and lung lesion", "AD"),
        ("AC", "AC"),
        ("A C", "AC"),
        ("(A)(C)", "AC"),
        ("[A, C]", "AC"),
        ("A & C", "AC"),
        ("Both A and C", "AC"),
        ("The answers are A and C.", "AC"),
        ("It shows edema, so the answer is A) Edema and C) Pneumonia.", "AC"),
        ('["A", "C"]', "AC"),
        ('{"answer": ["A", "C"], "sure": 0.9}', "AC"),
        ("b", "B"),
        ("(b)", "B"),
        ("b) fracture", "B"),
        ("b.", "B"),
        ("option b", "B"),
        ("B：Fracture", "B"),
        ("Ｂ）Fracture", "B"),
        ("B – Fracture", "B"),
        ("B - Fracture", "B"),
        ("B Fracture", "B"),
        ("B (Fracture)", "B"),
        ("B, fracture.", "B"),
        ("答案：B", "B"),
        ("答案是B。", "B"),
        ("Respuesta: B", "B"),
        ("Final answer: **B**", "B"),
        ("\\boxed{B}", "B"),
        ("$\\boxed{\\text{B}}$", "B"),
        ("**B**", "B"),
        ("__B) Fracture__", "B"),
        ("`B`", "B"),
        ("“B”", "B"),
        ("'B'", "B"),
        ("B!", "B"),
        ("B\u200b", "B"),
        ('{"answer": "B"}', "B"),
        ('```json\n{"answer": "B", "why": "a line"}\n```', "B"),
        ("Fracture.", "B"),
        ("Fracture, of the sixth rib.", "B"),
        ("B) Fracture, an old one of the rib", "B"),
        ("A or B", None),
        ("A/B", None),
        ("Either A or B", None),
        ("A) Edema or C) Pneumonia", None),
        ("Edema or pneumonia", None),
        ("the answer is A or B", None),
        ("A pneumonia is seen", None),
        ("a small haze", None),
        ("E", None),
        ("A, E", None),
        ("No edema", None),
    ],
)
@pytest.mark.parametrize("form", ["<think> x </think><answer>{}</answer>", "<think>x</think>\n{}", "{}"])
def test_forms_in_which_letters_are_written(block, letters, form):
    expected = None if letters is None else frozenset(letters)
    text = form.replace("{}", block)
    assert given_letters(text, FOUR) == expected
    assert strict(text, ", ".join(letters or "AB"), FOUR).correct == (letters is not None)


@pytest.mark.parametrize(
    ("block", "letters"),
    [
        ("fracture, edema", "A"),
        ("Edema; Pneumonia", "B"),
        ("B) edema, pneumonia", "B"),
        ("edema", "C"),
        ("No finding.", "D"),
        ("1. Fracture\n2. Edema", "A"),
        ("fracture", None),
    ],
)
def test_an_option_of_several_labels_in_any_order(block, letters):
    assert given_letters(f"<answer>{block}</answer>", SETS) == (letters and frozenset(letters))


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("Yes, a small effusion is seen.", "A"),
        ("<answer>No, a film without fluid.</answer>", "B"),
        ("yes", "A"),
        ("No.", "B"),
        ("No fluid is seen.", None),
        ("<think>Answer in the form <answer>A</answer>.</think>", None),
        ("<think>Answer in the form <answer>A</answer>.</think> B", "B"),
        ("<think>Answer in the form <answer>A</answer>.</think><answer>B</answer>", "B"),
        ("<think>Like <answer>A</answer>. The film shows", None),
        ("Like <answer>A</answer>, so I think </think> B) No", "B"),
        ("I think it is A) Yes. </think>", None),
        ("<think>x</think><think>The answer is A.</think>", None),
        ("<THINK>so <answer>A</answer></THINK>\n<Answer>B</Answer>", "B"),
        ("<answer>B</answer><think>as the film is clear, not A)</think>", "B"),
        ("<think>no tag follows, the answer is A", None),
    ],
)
def test_thoughts_are_no_answer(text, letters):
    assert given_letters(text, YES_NO) == (letters and frozenset(letters))


def test_why_nothing_was_read():
    reasons = {
        "": "empty",
        "I'm sorry, I cannot read films.": "refused",
        "<think>so <answer>A</answer></think>": "answered inside the think block",
        "<answer>A or B</answer>": "several options joined by or",
        "A haze.": "no answer found",
    }
    assert {text: strict(text, "A", YES_NO).reason for text in reasons} == reasons
    unreadable = strict("A", "A", "Is it? Options: Yes, No")
    assert (unreadable.valid, unreadable.reason) == (False, "the question's options cannot be read")


def test_small_failing_inputs_of_others(shared_data):
    path = shared_data / "faults" / "records" / "pred_answers.jsonl"
    for record in map(json.loads, path.read_text().splitlines()):
        wrong = "wrong" in record["want"] or "hedge" in record["want"]
        assert strict(record["pred"], record["answer"], record["question"]).correct != wrong, record


def test_numbers_answer_numbered_options():
    numbered = "Which? Options:\n1. Edema\n2. Fracture"
    assert given_letters("<answer>2. Fracture</answer>", numbered) == {"B"}
    assert strict("<answer>2</answer>", "2", numbered).correct
    assert not strict("<answer>2</answer>", "1", numbered).correct
    assert strict("<answer>B</answer>", "2", numbered).correct


MARKS = ("{A}", "{A})", "({A})", "{A}.", "{A}:", "**{A}**", "`{A}`", "{A}：", "Option {A}")
JOINTS = (", ", "; ", "\n", " and ", " & ", ",", "\n- ")
WRAPS = ("{}", "**{}**", '"{}"', "\\boxed{{{}}}", "Answer: {}", "答案：{}", '{{"answer": "{}"}}', "{}.", " \n{}\n ")


@settings(max_examples=300)
@given(
    st.sets(st.sampled_from("ABCD"), min_size=1), st.sampled_from(MARKS), st.booleans(), st.booleans(),
    st.sampled_from(JOINTS), st.sampled_from(WRAPS), st.booleans(), st.randoms(),
)  # fmt: skip
def test_any_set_in_any_form_is_read_back(letters, mark, words, small, joint, wrap, block, random):
    texts = dict(zip("ABCD", ("Edema", "Fracture", "Pneumonia", "Lung Lesion"), strict=True))
    order = random.sample(sorted(letters), len(letters))
    items = [mark.format(A=letter) + (f" {texts[letter]}" if words else "") for letter in order]
    text = wrap.format(joint.join(items))
    text = f"<think>A) or B)?</think><answer>{text}</answer>" if block else f"<think>A) or B)?</think>{text}"
    text = text.lower() if small else text
    assert given_letters(text, FOUR) == frozenset(letters)
    if len(order) > 1:
        hedged = wrap.format(" or ".join(items))
        assert given_letters(f"<answer>{hedged}</answer>", FOUR) is None


@pytest.mark.parametrize(
    "block",
    [
        "Edema, Pleural Effusion",
        "pleural effusion; edema",
        "1. Edema\n2. Pleural Effusion",
        "1) Edema, 2) Pleural Effusion.",
        "- **Edema**\n- **Pleural Effusion**",
        "• Edema\n• Pleural Effusion",
        "Edema and Pleural Effusion",
        "Edema, and Pleural  Effusion!",
        '["Edema", "Pleural Effusion"]',
        '{"answer": "Edema, Pleural Effusion"}',
        "Findings: Edema, Pleural Effusion",
        "The findings are edema and pleural effusion.",
        "\\boxed{\\text{Edema, Pleural Effusion}}",
        "Edema、Pleural Effusion",
        "Edema，Pleural Effusion。",
    ],
)
@pytest.mark.parametrize("form", ["<think> x </think><answer>{}</answer>", "<think>Fracture.</think>\n{}", "{}"])
def test_forms_in_which_labels_are_written(block, form):
    text = form.replace("{}", block)
    assert given_labels(text) == {"edema", "pleural effusion"}
    assert strict(text, "Pleural Effusion, Edema", OPEN).correct


def test_several_letters_are_a_set():
    assert given_letters("<answer> A, C </answer>", FOUR) == frozenset("AC")
    assert given_letters("<answer> B and D </answer>", FOUR) == frozenset("BD")
    assert not strict("<answer> A, C </answer>", "A", FOUR).correct


def test_strict_is_an_exact_set_match():
    assert strict("<answer> C </answer>", "<answer> C </answer>", FOUR).correct
    assert strict("<answer> Pneumonia </answer>", "C", FOUR).correct
    assert not strict("<answer> B </answer>", "C", FOUR).correct
    nothing = strict("", "C", FOUR)
    assert (nothing.valid, nothing.correct, nothing.reason) == (False, False, "empty")


def test_open_answers_are_label_sets():
    assert given_labels("<think> x </think><answer> Edema,  pleural effusion. </answer>") == {
        "edema",
        "pleural effusion",
    }
    assert strict("<answer> Pleural Effusion, Edema </answer>", "Edema, Pleural Effusion", OPEN).correct
    assert not strict("<answer> Edema </answer>", "Edema, Pleural Effusion", OPEN).correct
    assert not strict("<answer></answer>", "Edema", OPEN).valid


def test_echo_is_stripped_and_nothing_else():
    assert (
        strip_echo(ECHO + "<think> a user wrote\nassistant\n </think>") == "<think> a user wrote\nassistant\n </think>"
    )
    assert strip_echo("<|im_start|>assistant\nA") == "A"
    assert strip_echo("The assistant\nsaw edema.") == "The assistant\nsaw edema."


def test_reasoning_is_the_think_block_else_all_but_the_answer():
    assert reasoning_text(ECHO + "<think> Haze. </think><answer> A </answer>") == "Haze."
    assert reasoning_text("Haze at both bases. <answer> A </answer>") == "Haze at both bases."
    assert reasoning_text("<think> Haze, cut off") == "Haze, cut off"
    assert reasoning_text("Haze. <answer> A") == "Haze."


def test_official_rules_keep_their_bugs():
    # "ours": the prediction is looked for in the gold, across lines it is missed, and empty ones leave the denominator.
    assert official("<answer> b </answer>", "<answer> B </answer>", YES_NO, "ours").correct
    assert not official("<answer>\nB\n</answer>", "<answer> B </answer>", YES_NO, "ours").valid
    assert not official("<answer></answer>", "<answer> B </answer>", YES_NO, "ours").valid
    assert not official("<answer> B </answer>", "B", YES_NO, "ours").valid  # it finds no gold without tags
    # "qwen": the gold in the prediction, and the first answer block is the echoed instruction's.
    assert official("<answer>A or B</answer>", "A", YES_NO, "qwen").correct
    assert not official(ECHO + "<answer> A </answer>", "<answer> A </answer>", YES_NO, "qwen").valid
    assert official(ECHO + "<answer> A </answer>", "<answer> A </answer>", YES_NO, "qwen", echo_stripped=True).correct
    # "chexagent": the gold letter anywhere in the text.
    assert official("An Abnormal film: B) No", "A", YES_NO, "chexagent").correct
    assert not official("", "A", YES_NO, "chexagent").valid
    assert not official(["A) Yes"], "A", YES_NO, "chexagent").correct


def test_official_says_why_it_has_no_number():
    assert "LLM judge" in official("A", "A", YES_NO, "judged").reason
    assert "RaTEScore" in official("Edema", "Edema", OPEN, "ours").reason
    with pytest.raises(UserError, match="--family=theirs"):
        official("A", "A", YES_NO, "theirs")


def test_family_is_read_off_the_path():
    assert family_of("accuracy_res/ours_process_final_150/siim.json") == "ours"
    assert family_of("res/qwenvl7b/siim.json") == "qwen"
    assert family_of("res/chexagent3b/siim.json") == "chexagent"
    assert family_of("res/gpt4o/siim.json") == "judged"


@settings(max_examples=300)
@given(st.text(alphabet=st.sampled_from("AB <>/answerthik().\n*:"), max_size=80))
def test_any_text_is_accounted_for(text):
    verdict = strict(text, "A", YES_NO)
    assert verdict.valid == (verdict.given is not None)
    assert verdict.correct == (verdict.given == frozenset("A"))
    assert verdict.valid or verdict.reason


@given(st.sampled_from("ABCD"), st.text(alphabet=st.characters(exclude_characters="<>"), max_size=60))
def test_a_well_formed_block_always_wins(letter, prose):
    assert given_letters(f"{prose}<answer> {letter} </answer>", FOUR) == frozenset(letter)
