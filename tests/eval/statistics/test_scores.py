"""Rows, intervals and baselines: what the numbers mean, on cases whose answers are known."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax.eval.predictions.records import Prediction
from chestx_jax.eval.report import tables
from chestx_jax.eval.statistics import blind_baselines
from chestx_jax.eval.statistics.audit import audit, record_remarks
from chestx_jax.eval.statistics.intervals import mean_interval, paired_difference, share_interval, wilson
from chestx_jax.eval.statistics.scores import evaluate_predictions, paired_differences
from chestx_jax.lexicon import load

YES_NO = "Does this chest X-ray show edema? Options:\nA) Yes\nB) No"
FOUR = "Which finding is in this chest X-ray? Options:\nA) Edema\nB) Fracture\nC) Pneumonia\nD) Lung Lesion"
REPORT = "There is moderate pulmonary edema. There is a small left pleural effusion. No pneumothorax."
STEPS = ("There is pulmonary edema.", "There is a left pleural effusion.", "No pneumothorax is seen.")


def prediction(reasoning, answer="A", task="binary", gold="A", question=YES_NO, reports=(REPORT,), number=0, **fields):
    text = f"<think> {reasoning} </think><answer> {answer} </answer>"
    return Prediction(f"p{number}", task, "phantom", question, gold, text, reports, STEPS if reports else (), **fields)


def judged(reasoning, **fields):
    return evaluate_predictions([prediction(reasoning, **fields)], load()).items[0].judgement


def test_a_true_complete_chain_scores_one():
    judgement = judged(" ".join(STEPS))
    assert (judgement.factuality, judgement.completeness, judgement.effectiveness, judgement.radrscore) == (1, 1, 1, 1)
    assert [mark.verdict for mark in judgement.marks] == ["supported"] * 3


def test_each_kind_of_claim_gets_its_verdict():
    claims = "There is pulmonary edema. There is a pneumothorax. There is a rib fracture. There is no pneumonia."
    judgement = judged(claims)
    verdicts = {mark.concept: mark.verdict for mark in judgement.marks}
    assert verdicts["Edema"] == "supported"
    assert verdicts["Pneumothorax"] == "contradicted"
    assert verdicts["Fracture"] == "unsupported"
    assert verdicts["Pneumonia"] == "inferred"  # the report leaves the lungs abnormal
    assert judgement.factuality == pytest.approx((1 + 0 + 0 + 0.5) / 4)


def test_a_denied_finding_and_a_wrong_side_are_false():
    assert judged("There is no edema.").marks[0].verdict == "contradicted"
    assert judged("There is a right pleural effusion.").factuality == 0
    assert judged("There is a left pleural effusion.").factuality == 1


def test_without_a_report_there_is_no_score():
    judgement = judged("There is edema.", reports=())
    assert (judgement.factuality, judgement.completeness, judgement.effectiveness, judgement.radrscore) == (None,) * 4
    assert [mark.verdict for mark in judgement.marks] == ["not scored"]


def test_saying_nothing_scores_zero():
    judgement = judged("The film is looked at.")
    assert (judgement.factuality, judgement.completeness, judgement.claims) == (0, 0, 0)


def test_drawn_truth_knows_sides_kinds_and_absence():
    drawn = ("Edema|both|", "Pleural Effusion|left|")
    assert judged("There is pulmonary edema. There is a lung opacity.", drawn=drawn).ground_truth_factuality == 1
    assert judged("There is a right pleural effusion.", drawn=drawn).ground_truth_factuality == 0
    assert judged("There is no edema.", drawn=drawn).ground_truth_factuality == 0
    assert judged("There is no fracture.", drawn=drawn).ground_truth_factuality == 1
    assert judged("There is a fracture.", drawn=drawn).ground_truth_factuality == 0
    assert judged("The film is looked at.", drawn=drawn).ground_truth_factuality is None
    assert judged("There is edema.").ground_truth_factuality is None


def test_marks_count_characters_not_bytes():
    judgement = judged("Größe normal – there is pulmonary edema.")
    mark = next(mark for mark in judgement.marks if mark.concept == "Edema")
    assert "Größe normal – there is pulmonary edema."[mark.start : mark.end] == "pulmonary edema"


def test_rows_count_families_and_average_them_alike():
    predictions = [prediction("There is edema.", number=n) for n in range(3)]
    predictions += [prediction("There is edema.", "B", "single", "A", FOUR, number=9, truncated=True)]
    predictions += [prediction("There is edema.", "Edema", "anomaly", "Edema, Pneumonia", "Which findings?", number=10)]
    evaluation = evaluate_predictions(predictions, load())
    assert evaluation.mean("binary", "accuracy") == 1
    assert evaluation.mean("single", "accuracy") == 0
    assert evaluation.mean("closed", "accuracy") == 0.5
    assert evaluation.mean("anomaly", "accuracy") == 0
    assert evaluation.mean("anomaly", "f1") == pytest.approx(2 / 3)
    assert evaluation.mean("temporal", "accuracy") is None
    assert (evaluation.rows["all"].n, evaluation.rows["all"].truncated) == (5, 1)
    json.dumps(evaluation.to_json(), allow_nan=False)


def test_tables_show_every_model_and_escape_latex():
    predictions = [prediction("There is edema.", number=n) for n in range(4)]
    both = {"blind_1": evaluate_predictions(predictions, load()), "SFT": evaluate_predictions(predictions[:2], load())}
    text = tables.aligned(tables.task_rows(both))
    assert "blind_1" in text
    assert "100.0 [51.0, 100.0]" in text
    assert r"blind\_1" in tables.latex_table(both)
    assert tables.csv_table(both).splitlines()[0] == "model,row,metric,mean,low,high,n"
    differences = paired_differences(both["blind_1"], both["SFT"])
    assert "p=1.000" in tables.aligned(tables.difference_rows("SFT minus blind_1", differences))


def test_comparison_uses_common_samples_only():
    first = evaluate_predictions([prediction("x", "B", number=n) for n in range(10)], load())
    second = evaluate_predictions([prediction("x", "A", number=n) for n in range(5, 15)], load())
    difference = paired_differences(first, second)["binary"]["accuracy"]
    assert (difference.n, difference.mean) == (5, 1.0)


def test_other_centres_stand_apart_unless_they_are_alone():
    def eval_samples(source, answers):
        return [replace(prediction("x", a, number=n), source=source) for n, a in enumerate(answers)]

    siim = eval_samples("siim_binary_test_option", "BB")
    both = evaluate_predictions([*eval_samples("mimic", "AAAB"), *siim], load())
    assert (both.rows["binary"].n, both.mean("binary", "accuracy")) == (4, 0.75)
    assert both.rows["all"].n == 4
    assert {source: row.n for source, row in both.sources.items()} == {"mimic": 4, "siim_binary_test_option": 2}
    alone = evaluate_predictions(eval_samples("siim_binary_test_option", "AB"), load())
    assert alone.rows["binary"].n == 2
    assert paired_differences(both, both)["binary"]["accuracy"].n == 4


def test_calibration_is_shown_in_tenths():
    predictions = [prediction("x", "AB"[n % 2], number=n, probability=0.95 if n % 2 else 0.05) for n in range(10)]
    rows = tables.calibration_rows({"SFT": evaluate_predictions(predictions, load())})
    assert rows[1] == ["SFT", "all", "10", "50", "50", "0.903", "0.950"]
    assert rows[-1] == ["SFT", "0.9–1.0", "5", "95", "0", "", ""]


def test_records_that_repeat_an_id_are_compared_each_with_its_own():
    first = evaluate_predictions([prediction("x", answer, number=1) for answer in "BBA"], load())
    second = evaluate_predictions([prediction("x", answer, number=1) for answer in "AAA"], load())
    difference = paired_differences(first, second)["binary"]["accuracy"]
    assert (difference.n, difference.mean) == (3, pytest.approx(2 / 3))


def test_differences_on_one_film_are_not_taken_for_many():
    zeros = {n: 0.0 for n in range(40)}
    better = {n: float(n < 30) for n in range(40)}
    apart, together = (
        paired_difference(zeros, better, groups=groups) for groups in (None, {n: n // 10 for n in range(40)})
    )
    assert apart.mean == together.mean == 0.75
    assert apart.p < 0.01 < together.p
    assert together.high - together.low > 2 * (apart.high - apart.low)


@settings(max_examples=60)
@given(st.lists(st.none() | st.floats(0, 1), max_size=40), st.integers(0, 5))
def test_an_interval_holds_its_mean_and_repeats(values, seed):
    for interval in (mean_interval, share_interval):
        around = interval(values, seed)
        known = [value for value in values if value is not None]
        assert around.n == len(known)
        if known:
            assert around.low - 1e-9 <= around.mean <= around.high + 1e-9
            assert around.mean == pytest.approx(np.mean(known))
        assert around == interval(values, seed)


@settings(max_examples=200)
@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_symmetric_holds_the_share_and_stays_inside_zero_and_one(counts):
    right, n = counts
    low, high = wilson(right / n, n)
    assert 0 <= low <= right / n <= high <= 1
    assert high - low > 0
    assert wilson((n - right) / n, n) == pytest.approx((1 - high, 1 - low))
    narrower = wilson(right / n, 4 * n)
    assert narrower[1] - narrower[0] < high - low
    # The bounds are the shares p at which the observed one is 1.96 standard errors away.
    for bound in (low, high):
        assert abs(right / n - bound) == pytest.approx(1.959964 * np.sqrt(bound * (1 - bound) / n), abs=1e-7)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # this and three more: Newcombe 1998 (Stat Med 17:857), table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (10, 10, 0.7225, 1.0),  # n / (n + z²)
    ],
)
def test_wilson_gives_the_published_bounds(right, n, low, high):
    bounds = share_interval([1.0] * right + [0.0] * (n - right))
    assert (bounds.low, bounds.high) == pytest.approx((low, high), abs=5e-5)


def test_a_score_that_is_not_right_or_wrong_is_bootstrapped():
    values = [0.5, 1.0, 0.0, 1.0]
    assert share_interval(values, 3) == mean_interval(values, 3)
    assert share_interval([None, None]) == mean_interval([])


@pytest.mark.parametrize("interval", [mean_interval, share_interval])
def test_an_interval_covers_as_often_as_it_says(interval):
    rng = np.random.default_rng(0)
    draws = rng.random((200, 100)) < 0.7
    inside = sum(i.low <= 0.7 <= i.high for i in (interval(list(row.astype(float))) for row in draws))
    assert 0.9 <= inside / 200 <= 0.99


def test_wilson_covers_where_the_bootstrap_does_not():
    rng = np.random.default_rng(1)
    draws = [list(row.astype(float)) for row in rng.random((400, 20)) < 0.97]
    covered = {f: np.mean([i.low <= 0.97 <= i.high for i in map(f, draws)]) for f in (mean_interval, share_interval)}
    assert covered[share_interval] > 0.9 > 0.6 > covered[mean_interval]


@pytest.mark.parametrize("interval", [mean_interval, share_interval])
def test_grouped_items_widen_the_interval(interval):
    values = [float(n // 10 % 2) for n in range(200)]
    alone, grouped = interval(values), interval(values, groups=[n // 10 for n in range(200)])
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_groups_of_one_item_change_nothing_and_equal_items_of_a_group_count_once():
    values = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    alone = share_interval(values)
    assert share_interval(values, groups=list("abcdef")) == alone
    twice = share_interval(values * 2, groups=list("abcdef") * 2)
    assert (twice.low, twice.high) == pytest.approx((alone.low, alone.high))
    assert share_interval([1.0] * 8, groups=list("aabbccdd")).low == pytest.approx(share_interval([1.0] * 4).low)


def test_a_paired_test_sees_what_an_unpaired_one_cannot():
    rng = np.random.default_rng(1)
    hard = rng.random(200)
    first, second = ({str(n): v + gain for n, v in enumerate(hard)} for gain in (0.0, 0.02))
    difference = paired_difference(first, second)
    assert difference.p < 0.01
    assert difference.low > 0
    same = paired_difference(
        {str(n): v for n, v in enumerate(hard)}, {str(n): v for n, v in enumerate(rng.permutation(hard))}
    )
    assert same.p > 0.01


LABELS = ["atelectasis", "cardiomegaly", "consolidation", "edema", "fracture", "lung lesion", "pneumonia"]


def multiple(rng, number, leak):
    """Four options; with `leak` only the gold one lists its labels in column order, as the release's files do."""
    options = [list(rng.choice(len(LABELS), 3, replace=False)) for _ in range(4)]
    gold = int(rng.integers(4))
    if leak:
        options = [sorted(o) if i == gold else (o if o != sorted(o) else o[::-1]) for i, o in enumerate(options)]
    lines = [f"{chr(65 + i)}) {', '.join(LABELS[k] for k in o)}" for i, o in enumerate(options)]
    question = "Which findings are in this chest X-ray? Options:\n" + "\n".join(lines)
    return Prediction(f"m{number}", "multiple", "x", question, chr(65 + gold), "")


def test_the_order_of_labels_gives_the_leak_away():
    rng = np.random.default_rng(2)
    leaky = audit([multiple(rng, n, True) for n in range(200)])
    sound = audit([multiple(rng, n, False) for n in range(200)])
    assert leaky["tasks"]["multiple"]["order"] > 0.9
    assert leaky["blind"] > 0.9
    assert any("without the film" in remark for remark in leaky["remarks"])
    assert sound["blind"] < 0.4
    assert not sound["remarks"]


def test_label_priors_are_fitted_apart_from_what_they_guess():
    rng = np.random.default_rng(3)
    items = []
    for number in range(200):
        gold = "A" if rng.random() < 0.8 else "B"
        items.append(Prediction(f"b{number}", "binary", "x", YES_NO, gold, ""))
    rows = blind_baselines.fitted_baselines(items[:100], items[100:])
    share = np.mean([item.answer == "A" for item in items[100:]])
    assert rows["binary"]["label"] == rows["binary"]["letter"] == pytest.approx(share)
    assert blind_baselines.cross_fitted_baselines(items)["binary"]["n"] == 200


def test_what_goes_with_the_view_is_guessed_by_it():
    """Edema on nearly every AP film, and yes as often as no: from text alone that is chance."""
    rng = np.random.default_rng(0)
    items = []
    for number in range(400):
        gold = "AB"[number % 2]
        view = ("AP" if gold == "A" else "PA") if rng.random() < 0.9 else rng.choice(["AP", "PA"])
        items.append(Prediction(f"b{number}", "binary", "x", YES_NO, gold, "", views=(view,)))
    row = blind_baselines.fitted_baselines(items[:200], items[200:])["binary"]
    shares = [(("A" if item.views == ("AP",) else "B") == item.answer) for item in items[200:]]
    assert row["view"] == np.mean(shares) > 0.9
    assert row["combined"] == 0.5
    without = [replace(item, views=()) for item in items]
    assert "view" not in blind_baselines.fitted_baselines(without[:200], without[200:])["binary"]


def test_items_of_a_patient_are_not_independent():
    """Four films of each of 25 patients, all right or all wrong: the interval is twice as wide as of 100 patients."""
    right = lambda number: "A" if number // 4 % 2 else "B"  # noqa: E731
    asked = [prediction("x.", answer=right(number), number=number, images=(f"{number}.png",)) for number in range(100)]
    width = lambda items: np.diff([getattr(_accuracy(items), end) for end in ("low", "high")])[0]  # noqa: E731
    of_patients = [replace(item, patient=f"p{number // 4}") for number, item in enumerate(asked)]
    assert width(of_patients) == pytest.approx(2 * width(asked), rel=0.1)


def _accuracy(predictions):
    return evaluate_predictions(predictions, load()).rows["all"].metrics["accuracy"]


def test_remarks_on_repeated_and_mixed_records():
    record = {"item_id": "1", "question": YES_NO, "pred": "A"}
    assert record_remarks([record, record | {"item_id": "2"}]) == []
    assert "repeat" in record_remarks([record, record])[0]
    assert "mixed" in record_remarks([record, record | {"item_id": "2", "pred": "user\nx\nassistant\nA"}])[0]
    assert "mixed" in record_remarks([record | {"model": "a"}, record | {"item_id": "2", "model": "b"}])[0]
