"""MS-CXR-T: both studies of each pair as MIMIC-CXR has them, the later one with its changes."""

import shutil

import pytest

from chestx_jax.errors import UserError
from chestx_jax.sources.study import Change
from tests.helpers.raw_sets import write_ms_cxr_t
from tests.helpers.studies import read_all


def test_studies_of_a_folder(tmp_path):
    studies, problems = read_all("ms_cxr_t", write_ms_cxr_t(tmp_path / "raw"))
    mimic, _ = read_all("mimic_cxr", tmp_path / "raw")
    assert [study.id for study in studies] == ["s50000009", "s50000002"]
    for study, original in zip(studies, mimic, strict=False):
        assert study.source == "ms_cxr_t"
        assert vars(study) == {**vars(original), "source": "ms_cxr_t", "changes": study.changes}
    assert studies[0].changes == ()
    assert studies[1].changes == (
        Change("edema", "stable", "ac", "s50000009", "aa", "ms_cxr_t one_expert"),
        Change("pleural effusion", "improving", "ac", "s50000009", "aa", "ms_cxr_t multiple_experts"),
    )
    assert problems.noted["no number of a study"] == 1
    assert not problems.noted["a film is missing"]  # films of other studies are not looked for


def test_without_mimic_it_is_one_sentence(tmp_path):
    raw = write_ms_cxr_t(tmp_path / "raw")
    shutil.rmtree(raw / "mimic-cxr-jpg")
    with pytest.raises(UserError, match="MS-CXR-T has no films of its own"):
        read_all("ms_cxr_t", raw)
