"""Aggregation of judge replies: the release's defects reproduced, the clean rule free of them."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax.errors import UserError
from chestx_jax.eval.judges.judgements import TERMS, aggregate, clean_item, official_item, summary


def record(gold=4, given=2, recalled=1, correct=1, effective=3, ineffective=1):
    seen = lambda n: [{"observation": f"finding {i}", "status": "present"} for i in range(n)]  # noqa: E731
    return {
        "correct": "yes",
        "gt_key_finding": {"key_conclusion": seen(gold)},
        "pred_key_finding": {"key_conclusion": seen(given)},
        "recall_res": {"recalled_findings": seen(recalled), "recalled_count": recalled},
        "precision_res": {"correct_steps": seen(correct), "correct_count": correct},
        "efficiency": {
            "effective_steps": ["s"] * effective,
            "effective_count": effective,
            "ineffective_count": ineffective,
        },
    }


BROKEN = record() | {"efficiency": {"reason_steps": "Error", "refined_steps": [], "final_conclusion": ""}}


@pytest.mark.parametrize("aggregation", ["official", "clean"])
def test_a_sound_record_scores_the_same_under_both(aggregation):
    summed = aggregate([record()], aggregation)
    assert [summed[term] for term in TERMS] == [0.25, 0.5, 0.75]
    assert summed["radrscore"] == pytest.approx(0.5)
    assert (summed["n"], summed["n_valid"], summed["malformed"]) == (1, 1, 0)


def test_official_keeps_the_terms_of_a_broken_record():
    summed = aggregate([record(), BROKEN], "official")
    assert (summed["n_valid"], summed["malformed"]) == (1, 1)
    assert summed["completeness"] == 0.5  # two sums over one count
    assert summed["effectiveness"] == 0.75


def test_clean_leaves_a_broken_record_out_whole():
    summed = aggregate([record(), BROKEN], "clean")
    assert (summed["n_valid"], summed["malformed"]) == (1, 1)
    assert summed["completeness"] == 0.25


def test_only_clean_clamps():
    inflated = record(given=1, correct=1)
    inflated["precision_res"] = {"correct_steps": [{}, {}], "correct_count": 2}
    assert aggregate([inflated], "official")["factuality"] == 2.0
    summed = aggregate([inflated, record()], "clean")
    assert summed["factuality"] == pytest.approx((1.0 + 0.5) / 2)
    assert summed["notes"] == {"a ratio above 1 was cut to 1": 1}


def test_clean_checks_a_count_against_its_list():
    boasting = record(correct=0)
    boasting["precision_res"]["correct_count"] = 2
    assert official_item(boasting).terms["factuality"] == 1.0
    summed = clean_item(boasting)
    assert summed.terms["factuality"] == 0.0
    assert summed.noted == ("precision_res.correct_count differs from its list",)


def test_empty_lists_score_zero_and_count():
    for aggregation in ("official", "clean"):
        summed = aggregate([record(gold=0, given=0, recalled=0, correct=0, effective=0, ineffective=0)], aggregation)
        assert summed["n_valid"] == 1
        assert summed["radrscore"] == 0.0


def test_macro_counts_files_and_micro_records():
    first, second = [record()], [record(recalled=4), record(recalled=4), record(recalled=4)]
    files = [{"file": name, **aggregate(summed, "clean")} for name, summed in (("a", first), ("b", second))]
    document = summary(files, aggregate(first + second, "clean"))
    assert [file["file"] for file in document["files"]] == ["a", "b"]
    assert document["macro"]["completeness"] == pytest.approx((0.25 + 1.0) / 2)
    assert document["micro"]["completeness"] == pytest.approx((0.25 + 3.0) / 4)
    assert document["macro"].keys() == document["micro"].keys()
    assert document["macro"]["radrscore"] == pytest.approx(sum(document["macro"][term] for term in TERMS) / 3)


def test_nothing_valid():
    assert aggregate([BROKEN], "clean")["radrscore"] is None
    assert aggregate([], "official")["radrscore"] == 0.0
    with pytest.raises(UserError, match="--aggregation=mine"):
        aggregate([], "mine")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["key_conclusion", "key_conclusions", "recalled_count", "correct_count", "effective_count", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
REPLY = st.sampled_from(["gt_key_finding", "pred_key_finding", "recall_res", "precision_res", "efficiency", "correct"])


@settings(max_examples=500)
@given(st.lists(st.tuples(st.booleans(), st.dictionaries(REPLY, JSON, max_size=6)) | JSON, max_size=6))
def test_any_reply_is_accounted_for(entries):
    records = [record() | entry[1] if isinstance(entry, tuple) and entry[0] else entry for entry in entries]
    for aggregation in ("official", "clean"):
        summed = aggregate(records, aggregation)
        assert summed["n_valid"] + summed["malformed"] == summed["n"] == len(records)
        assert sum(summed["problems"].values()) == summed["malformed"]
    clean = aggregate(records, "clean")
    assert clean["radrscore"] is None or 0 <= clean["radrscore"] <= 1
    json.dumps(clean, allow_nan=False)
    assert all(value is None or not math.isnan(value) for value in (clean[term] for term in TERMS))
