"""Records of every release variant become the same sample, and samples survive the way to disk and back."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax.data.fields import FieldError, steps_of
from chestx_jax.data.questions import options
from chestx_jax.data.schema import (
    Drawn,
    Sample,
    infer_task,
    parse_drawn,
    record_from_sample,
    sample_from_record,
)
from chestx_jax.labels import LABELS

INSTRUCTION = (
    "Let's think step by step. Enclose the reasoning within <think></think> and the answer within <answer></answer>."
)
BINARY = "Does this chest X-ray show edema? Options:\nA) Yes\nB) No"
SINGLE = "Which finding is in this chest X-ray? Options:\nA) edema\nB) fracture\nC) no finding\nD) pneumonia"
MULTIPLE = "Which findings are in this chest X-ray? Options:\nA) edema, fracture\nB) pneumonia, fracture"
ANOMALY = "Which findings are in this chest X-ray?"
TEMPORAL = (
    "You are given two images: one reference image and one new image. "
    "Please identify the progression of edema. Options:\nA) stable\nB) worsening\nC) improving"
)
QUESTIONS = {"binary": BINARY, "single": SINGLE, "multiple": MULTIPLE, "anomaly": ANOMALY, "temporal": TEMPORAL}


def record(**changes):
    plain = {"question": BINARY, "answer": "A", "image_path": ["a.png"], "item_id": "x1", "dataset_name": "made"}
    return {**plain, **changes}


def read(**changes) -> Sample:
    return sample_from_record(record(**changes), "file")


@pytest.mark.parametrize("task", QUESTIONS)
def test_task_is_read_from_the_question(task):
    assert infer_task(QUESTIONS[task]) == task


def test_explicit_task_wins_and_must_be_known():
    assert read(question=SINGLE, task="multiple").task == "multiple"
    with pytest.raises(FieldError, match="no task family"):
        read(task="diagnosis")


@pytest.mark.parametrize("answer", ["A", " A ", "<answer> A </answer>", "(A)", "A) Yes", "(A) Yes", "Yes", ["A"]])
def test_gold_letter_in_every_spelling(answer):
    assert read(answer=answer).answer == "A"


def test_several_gold_letters_are_kept():
    assert read(question=SINGLE, answer="D, B").answer == "B, D"


@pytest.mark.parametrize("answer", ["E", "", None, "maybe", 3])
def test_an_answer_that_is_no_option_is_refused(answer):
    with pytest.raises(FieldError) as caught:
        read(answer=answer)
    assert caught.value.field == "answer"


def test_open_answer_may_be_a_list():
    assert read(question=ANOMALY, answer=["Edema", "Fracture"]).answer == "Edema, Fracture"


def test_instruction_is_not_part_of_the_question():
    assert read(question=f"{BINARY}\n{INSTRUCTION}").question == BINARY


STEPS = ("There is edema.", "No fracture is seen.")


@pytest.mark.parametrize(
    "fields",
    [
        {"reason_steps": list(STEPS)},
        {"reason_steps": " ".join(STEPS)},
        {"reason_steps": {"reason_steps": list(STEPS)}},
        {"reason_steps": json.dumps({"reason_steps": list(STEPS)}, indent=2)},
        {"reason_steps": f"```json\n{json.dumps({'reason_steps': list(STEPS)})}\n```"},
        {"reason_steps": "", "process": f"<think> {' '.join(STEPS)} </think><answer> A </answer>"},
        {"process": list(STEPS)},
    ],
)
def test_steps_in_every_spelling(fields):
    assert steps_of(fields) == STEPS


def test_no_steps():
    assert steps_of({"reason_steps": ""}) == () == steps_of({})


@pytest.mark.parametrize(
    "names", [("original_report_1", "original_report_2"), ("original_report1", "original_report2")]
)
def test_two_reports_in_order(names):
    fields = dict(zip(names, ("old", "new"), strict=True))
    sample = read(question=TEMPORAL, image_path=["a.png", "b.png"], **fields)
    assert sample.reports == ("old", "new")
    with pytest.raises(FieldError, match="missing beside"):
        read(question=TEMPORAL, image_path=["a.png", "b.png"], **{names[0]: "old"})


def test_text_only_must_be_said():
    assert read(image_path=[]).images == ()
    without = {key: value for key, value in record().items() if key != "image_path"}
    with pytest.raises(FieldError) as caught:
        sample_from_record(without, "file")
    assert caught.value.field == "image_path"
    assert sample_from_record(without, "file", require_images=False).images == ()


def test_temporal_needs_both_films():
    with pytest.raises(FieldError, match="one film"):
        read(question=TEMPORAL, image_path=["a.png"])


@pytest.mark.parametrize("bad", ["text", 3, None, ["a"]])
def test_a_record_must_be_an_object(bad):
    with pytest.raises(FieldError):
        sample_from_record(bad, "file")


@pytest.mark.parametrize("question", [None, "", 5, INSTRUCTION])
def test_a_question_is_needed(question):
    with pytest.raises(FieldError) as caught:
        read(question=question)
    assert caught.value.field == "question"


def test_drawn_is_checked():
    assert read(drawn=["Edema|both"]).drawn == ("Edema|both|",)
    with pytest.raises(FieldError, match="drawn finding"):
        read(drawn=["Oedema|both"])
    with pytest.raises(FieldError, match="drawn finding"):
        read(drawn=["Edema|up"])


words = st.text("abcdefg hij", min_size=1, max_size=30).map(str.strip).filter(bool)
drawn_findings = st.builds(Drawn, st.sampled_from(LABELS[:-1]), st.sampled_from(["", "left", "right", "both"]))


@st.composite
def samples(draw) -> Sample:
    task = draw(st.sampled_from(list(QUESTIONS)))
    listed = options(QUESTIONS[task])
    images = draw(st.lists(st.sampled_from(["a.png", "b/c.png"]), min_size=2, max_size=3))
    count = draw(st.sampled_from([0, 2 if task == "temporal" else 1]))
    return Sample(
        id=draw(words),
        task=task,
        question=QUESTIONS[task],
        answer=draw(st.sampled_from(sorted(listed))) if listed else "Edema, Fracture",
        images=tuple(images),
        steps=tuple(draw(st.lists(words, max_size=4))),
        reports=tuple(draw(st.lists(words, min_size=count, max_size=count))),
        source=draw(words),
        drawn=draw(st.none() | st.lists(drawn_findings.map(str), max_size=3).map(tuple)),
        patient=draw(st.just("") | words),
        views=tuple(draw(st.lists(words, max_size=2))),
    )


@settings(deadline=None)
@given(samples())
def test_a_sample_survives_its_record(sample):
    text = json.dumps(record_from_sample(sample))
    assert sample_from_record(json.loads(text), "file") == sample


@given(drawn_findings, st.sampled_from(["", "stable", "worsening", "improving"]))
def test_drawn_survives_its_text(finding, change):
    whole = Drawn(finding.label, finding.side, change)
    assert parse_drawn(str(whole)) == whole


def test_a_record_of_an_open_question_may_list_what_to_go_through():
    """As the phantom's option checks do; the task that is named decides, else the list makes it a closed question."""
    question = "Which of these findings are in this chest X-ray?\nA) edema\nB) fracture"
    record = {"question": question, "answer": "Option (A) edema present.", "image_path": [], "task": "anomaly"}
    sample = sample_from_record(record, "checks")
    assert (sample.task, sample.question, sample.answer) == ("anomaly", question, record["answer"])
    assert sample_from_record({**record, "task": "multiple", "answer": "A"}, "checks").question != question
