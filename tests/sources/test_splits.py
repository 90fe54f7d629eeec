"""Patients stand on one side of a split, also across sets that share films."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestx_jax.errors import UserError
from chestx_jax.sources.splits import check_disjoint, complete_split
from chestx_jax.sources.study import Study
from tests.helpers.raw_sets import write_nih, write_rsna, write_siim
from tests.helpers.studies import read_all


@given(st.text(), st.sampled_from(["train", "validation", "test", ""]), st.sampled_from([0.0, 0.1, 0.3]))
def test_given_test_and_validation_stay(patient, given, share):
    split = complete_split(patient, given, share, share)
    assert split == given if given in ("validation", "test") else split
    assert split in (("train", "validation") if given == "train" else ("train", "validation", "test", given))
    assert share or split == (given or "train")


def test_shares_of_patients():
    splits = [complete_split(f"nih:{i}", "") for i in range(4000)]
    assert abs(splits.count("validation") / 4000 - 0.1) < 0.02
    assert abs(splits.count("test") / 4000 - 0.1) < 0.02


def test_films_of_two_sets_agree_where_patients_are_known(tmp_path):
    nih, _ = read_all("nih", write_nih(tmp_path / "nih"))
    rsna, _ = read_all("rsna", write_rsna(tmp_path / "rsna"))
    check_disjoint([*nih, *rsna])
    assert {(s.patient, s.split) for s in rsna} == {(s.patient, s.split) for s in nih}


def test_films_whose_patients_are_unknown_are_on_no_other_side(tmp_path):
    nih, _ = read_all("nih", write_nih(tmp_path / "nih"))
    siim, _ = read_all("siim", write_siim(tmp_path / "siim"))
    rsna, _ = read_all("rsna", write_rsna(tmp_path / "rsna", mapped=False))
    for unknown in (siim, rsna):
        check_disjoint(unknown)
        with pytest.raises(UserError, match=r"may be those of nih in (train|test) split"):
            check_disjoint([*nih, *unknown])


def test_a_patient_on_two_sides_is_one_sentence():
    with pytest.raises(UserError, match=r"Patient nih:1 is in train split of nih and in test split of rsna"):
        check_disjoint([Study("nih", "nih:1", "a", split="train"), Study("rsna", "nih:1", "b", split="test")])
