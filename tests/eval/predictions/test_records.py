"""Prediction records: written in the release's form, read in all of its variants, resumed after a kill."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    read_good_predictions,
    read_predictions,
    to_record,
)
from chestx_jax.eval.predictions.resume import predict_missing
from chestx_jax.eval.score_files import score_file, summary, verdict

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
