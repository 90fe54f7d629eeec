"""Prediction records: written in the release's form, read in all of its variants, resumed after a kill."""

import contextlib
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax import lexicon
from chestx_jax.data.fields import FieldError
from chestx_jax.data.reader import find_problems, read_samples
from chestx_jax.data.schema import Sample
from chestx_jax.errors import UserError
from chestx_jax.eval.answers.official import official
from chestx_jax.eval.predictions.records import (
    Prediction,
    append_predictions,
    from_record,
    from_sample,
    keys,
    read_good_predictions,
    read_predictions,
    to_record,
)
from chestx_jax.eval.predictions.resume import predict_missing
from chestx_jax.eval.score_files import score_file, summary, verdict
from chestx_jax.eval.statistics.scores import evaluate_predictions, paired_differences
from chestx_jax.tokens.chat import INSTRUCTION

YES_NO = "Does this chest X-ray show edema? Options:\nA) Yes\nB) No"
TEXT = st.text(max_size=30).filter(lambda text: "\x00" not in text)
WORDS = st.text(st.characters(categories=["L"]), min_size=1, max_size=8)

predictions = st.builds(
    Prediction,
    sample_id=WORDS,
    task=st.sampled_from(["binary", "single", "multiple", "anomaly", "temporal"]),
    source=WORDS,
    question=TEXT,
    answer=st.sampled_from(["A", "B", "Edema, Pneumonia"]),
    pred=TEXT,
    reports=st.lists(WORDS, max_size=2).map(tuple),
    steps=st.lists(WORDS, max_size=3).map(tuple),
    images=st.lists(WORDS, max_size=2).map(tuple),
    truncated=st.booleans(),
    drawn=st.none() | st.lists(st.sampled_from(["Edema|both|", "Fracture|left|"]), max_size=2).map(tuple),
    patient=st.just("") | WORDS,
    views=st.lists(WORDS, max_size=2).map(tuple),
    tokens=st.none() | st.integers(0, 4096),
    probability=st.none() | st.floats(0, 1),
    model=st.just("") | WORDS,
)


@settings(max_examples=100)
@given(predictions)
def test_a_prediction_comes_back_as_it_was(prediction):
    assert from_record(json.loads(json.dumps(to_record(prediction)))) == prediction


def test_our_files_are_scored_by_the_release_s_rule(tmp_path):
    sample = Sample("s", "binary", YES_NO, "A", ("a.png",), ("Edema.",), ("Edema.",), "phantom")
    record = to_record(from_sample(sample, "<think> haze </think><answer> A </answer>"))
    assert official(record["pred"], record["answer"], record["question"], "ours").correct
    list(append_predictions(tmp_path / "ours.jsonl", [from_record(record)] * 4))
    scores = score_file(tmp_path / "ours.jsonl", "official")
    assert (scores["n"], scores["n_valid"], scores["accuracy"]) == (4, 4, 1.0)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"original_report": "Edema."}, ("Edema.",)),
        ({"original_report_1": "Clear.", "original_report_2": "Edema."}, ("Clear.", "Edema.")),
        ({"original_report1": "Clear.", "original_report2": "Edema."}, ("Clear.", "Edema.")),
        ({"original_report": ""}, ()),
        ({"original_report": None}, ()),
        ({}, ()),
    ],
)
def test_reports_of_every_variant(fields, expected):
    assert from_record({"question": YES_NO, "answer": "A", "pred": "A", **fields}).reports == expected


def test_variants_of_steps_answers_and_predictions():
    record = {
        "question": YES_NO,
        "answer": "<answer> B </answer>",
        "pred": ["Edema", "Pneumonia"],
        "reason_steps": "One. Two.",
    }
    parsed = from_record(record)
    assert (parsed.answer, parsed.pred, parsed.steps) == ("B", "Edema, Pneumonia", ("One.", "Two."))
    assert from_record(record | {"reason_steps": {"reason_steps": ["One."]}}).steps == ("One.",)
    assert (
        from_record(record | {"item_id": "[rsna] [x]RSNA", "dataset_name": "reason Image Classification"}).source
        == "rsna"
    )
    with pytest.raises(FieldError, match="int"):
        from_record(record | {"pred": 3})


def test_problems_name_file_index_and_field(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(
        json.dumps({"question": YES_NO, "pred": 1}) + "\n[1]\n" + json.dumps({"question": "Q?", "pred": "A"}) + "\n"
    )
    problem, problems = read_good_predictions(path)
    assert len(problem) == 1
    assert [("record 0" in p, "pred" in p) for p in problems[:1]] == [(True, True)]
    assert "record 1" in problems[1]
    with pytest.raises(UserError, match=r"p\.jsonl, record 0, field pred"):
        read_predictions(path)


@pytest.mark.parametrize("text", ["", "  \n", "[{", '{"a"', '[{"a": 1}, {"a"', "[" * 100_000, "\ufeff[]"])
def test_half_written_files_are_one_sentence(tmp_path, text):
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"p\.json"):
        score_file(path, "strict")


def test_a_line_that_is_cut_off_is_one_unread_record(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"question": YES_NO, "answer": "A", "pred": "A"}) + '\n{"question": "Is th')
    score = score_file(path, "strict")
    assert (score["n"], score["n_valid"], score["n_correct"], score["unparsed"]) == (2, 1, 1, 1)
    assert list(score["reasons"]) == ["the record is a line that is not JSON, not an object"]
    assert len(read_good_predictions(path)[0]) == 1
    assert [problem.index for problem in find_problems(path, require_images=False)] == [1]
    with pytest.raises(UserError, match="line 2: not JSON"):
        read_samples(path, require_images=False)


def test_appending_goes_on_after_a_cut_line(tmp_path):
    path = tmp_path / "p.jsonl"
    one = Prediction("1", "binary", "x", YES_NO, "A", "A")
    list(append_predictions(path, [one]))
    with path.open("a") as file:
        file.write('{"question": "cut')
    list(append_predictions(path, [Prediction("2", "binary", "x", YES_NO, "A", "B")]))
    assert [p.sample_id for p in read_predictions(path)] == ["1", "2"]


def test_answers_of_other_data_are_not_taken_for_these(tmp_path):
    samples = [Sample(f"s{n}", "binary", YES_NO, "A", (), (), (), "x") for n in range(3)]
    path = tmp_path / "p.jsonl"
    predict_missing(path, samples, lambda missing: (from_sample(sample, "A") for sample in missing))
    others = [Sample("t", "binary", "Is there a fracture?", "A", (), (), (), "x")]
    with pytest.raises(UserError, match="other samples"):
        predict_missing(path, others, lambda missing: iter(()))


def test_two_models_do_not_share_a_file(tmp_path):
    samples = [Sample(f"s{n}", "binary", YES_NO, "A", (), (), (), "x") for n in range(3)]
    path = tmp_path / "p.jsonl"
    answer = lambda missing: (from_sample(sample, "A") for sample in missing)  # noqa: E731
    predictions = predict_missing(path, samples[:2], answer, model="one")
    assert {p.model for p in predictions} == {p.model for p in read_predictions(path)} == {"one"}
    with pytest.raises(UserError, match="answers of one; give another --out for those of two"):
        predict_missing(path, samples, lambda missing: (from_sample(s, "A") for s in missing), model="two")
    assert len(predict_missing(path, samples, lambda missing: (from_sample(s, "A") for s in missing), model="one")) == 3


def test_summary_leaves_undecidable_files_out():
    decided = {"n": 10, "n_valid": 8, "n_correct": 4, "unparsed": 2, "accuracy": 0.5, "accuracy_all": 0.4}
    undecided = decided | {"n_valid": 0, "n_correct": 0, "accuracy": None, "accuracy_all": None}
    document = summary(
        [decided, undecided, decided | {"n": 30, "n_valid": 30, "n_correct": 30, "accuracy": 1.0, "accuracy_all": 1.0}]
    )
    assert document["macro"]["accuracy"] == 0.75
    assert document["micro"]["accuracy"] == pytest.approx(34 / 38)
    assert document["micro"]["accuracy_all"] == pytest.approx(34 / 40)
    assert document["macro"].keys() == document["micro"].keys()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ["question", "answer", "pred", "reason_steps", "original_report", "image_path", "item_id", "task"]
)


@settings(max_examples=300)
@given(
    st.dictionaries(FIELDS, JSON | st.sampled_from([YES_NO, "A", "<answer> A </answer>", "<answer>"]), max_size=8)
    | JSON
)
def test_any_record_is_accounted_for(record):
    for rule, family in (("strict", "auto"), ("official", "ours"), ("official", "qwen"), ("official", "chexagent")):
        outcome = verdict(record, rule, family)
        assert not (outcome.correct and not outcome.valid)
        assert outcome.valid or outcome.reason
    with contextlib.suppress(FieldError):
        from_record(record)


def test_the_time_left_is_that_of_whole_batches(tmp_path, monkeypatch):
    """Batches of four, six seconds each: said once a batch, and right to the batch."""
    clock = [0.0]
    monkeypatch.setattr("chestx_jax.eval.predictions.resume.time.monotonic", lambda: clock[0])
    samples = [Sample(f"s{n}", "binary", YES_NO, "A", (), (), (), "x") for n in range(16)]

    def batches(missing):
        for n, sample in enumerate(missing):
            clock[0] += 6.0 if n % 4 == 0 else 0.0
            yield from_sample(sample, "A")

    log_lines: list[str] = []
    predict_missing(tmp_path / "p.jsonl", samples, batches, log_lines.append)
    # When the first of a batch is here, the batch itself takes no more time.
    assert log_lines == [f"{done} of 16 answered, {left} s left" for done, left in ((5, 12), (9, 6), (13, 0))]


TWO_FILMS = [Sample("s", "binary", YES_NO, gold, (f"/films/{gold}.png",), (), (), "x") for gold in "AB"]


def by_film(missing):
    return (from_sample(sample, sample.images[0][-5]) for sample in missing)


def test_two_films_under_one_id_and_question_are_each_scored_on_their_own(tmp_path):
    records = [{**to_record(from_sample(sample, "")), "image_path": []} for sample in TWO_FILMS]
    (tmp_path / "set.jsonl").write_text("\n".join(map(json.dumps, records)))
    samples = read_samples(tmp_path / "set.jsonl")
    samples = [replace(sample, images=two.images) for sample, two in zip(samples, TWO_FILMS, strict=True)]
    path = tmp_path / "p.jsonl"
    predict_missing(path, samples[1:], by_film)
    answers = predict_missing(path, samples, by_film)
    assert [(p.sample_id, p.pred, p.answer) for p in answers] == [("s", "A", "A"), ("s#2", "B", "B")]
    # The same records answered elsewhere, in their order and without our ids.
    (tmp_path / "theirs.jsonl").write_text("\n".join(json.dumps(record | {"pred": "A"}) for record in records))
    assert keys(read_predictions(tmp_path / "theirs.jsonl")) == keys(answers)


def test_records_that_changed_before_a_resume(tmp_path):
    path = tmp_path / "p.jsonl"
    predict_missing(path, TWO_FILMS[:1], lambda missing: (from_sample(s, "A", tokens=3) for s in missing), model="m")
    corrected = replace(TWO_FILMS[0], answer="B", reports=("Clear.",), images=("/moved/A.png",))
    nothing_asked = lambda missing: iter([None] * len(missing))  # noqa: E731
    (answer,) = predict_missing(path, [corrected], nothing_asked, model="m")
    assert (answer.answer, answer.reports, answer.images) == ("B", ("Clear.",), ("/moved/A.png",))
    assert (answer.pred, answer.tokens, answer.model) == ("A", 3, "m")
    other_film = replace(TWO_FILMS[0], images=("/films/C.png",))
    with pytest.raises(UserError, match="other samples"):
        predict_missing(path, [other_film], by_film, model="m")
    asked = predict_missing(path, [corrected, other_film], by_film, model="m")
    assert [p.pred for p in asked] == ["A", "C"]


@pytest.mark.parametrize(
    "question",
    [
        f"{YES_NO}\n{INSTRUCTION}",
        f"{YES_NO} {INSTRUCTION}",
        YES_NO.replace("\nA)", " A)").replace("\nB)", " B)"),
        YES_NO.replace("\n", "\r\n"),
        YES_NO.replace(" Options", "\nOptions"),
    ],
)
def test_questions_that_differ_in_form_alone_are_one_item(question):
    record = {"item_id": "s", "question": YES_NO, "answer": "A", "pred": "A"}
    one, other = (from_record(record | {"question": text}) for text in (YES_NO, question))
    assert keys([one]) == keys([other])
    evaluations = [evaluate_predictions([prediction], lexicon.load()) for prediction in (one, other)]
    assert paired_differences(*evaluations)["all"]["accuracy"].n == 1


def test_gold_answers_of_every_form_are_letters():
    record = {"item_id": "s", "pred": "A", "question": YES_NO}
    for gold in ("A", "a)", "Yes", "<answer>A) Yes</answer>", ["A"]):
        assert from_record(record | {"answer": gold}).answer == "A"
    with pytest.raises(FieldError, match="options that cannot be read"):
        from_record(record | {"question": "Is it? Options: Yes, No"})


def test_what_json_cannot_hold_does_not_stop_scoring(tmp_path):
    path = tmp_path / "p.jsonl"
    lines = [
        '{"item_id": NaN, "question": "Is it? Options:\\nA) Yes\\nB) No", "answer": "A", "pred": "A\\ud800"}',
        '{"item_id": 1, "question": "Is it? Options:\\nA) Yes\\nB) No", "answer": "A", "answer": "B", "pred": "A"}',
        '{"item_id": 2, "question": "Is it? Options:\\nA) Yes\\nB) No", "answer": "A", "pred": NaN}',
    ]
    path.write_text("\n".join(lines))
    predictions, problems = read_good_predictions(path)
    assert [p.sample_id for p in predictions] == ["p-0", "2"]
    assert "record 1" in problems[0]
    assert "names 'answer' twice" in problems[0]
    scores = score_file(path, "strict")
    assert (scores["n"], scores["n_valid"], scores["unparsed"]) == (3, 1, 2)
    evaluate_predictions(predictions, lexicon.load())
