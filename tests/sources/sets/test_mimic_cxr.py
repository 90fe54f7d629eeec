"""MIMIC-CXR: exactly the studies of a small folder, in both versions, archived and extracted."""

import shutil

import pytest

from chestx_jax.errors import UserError
from chestx_jax.sources.labels import CHEXPERT
from chestx_jax.sources.study import Film, Study
from tests.helpers.raw_sets import MIMIC_REPORTS, write_mimic_cxr
from tests.helpers.studies import labels, read_all

FORMS = [("2.1.0", True, True), ("2.1.0", False, True), ("2.0.0", False, False), ("2.0.0", True, False)]


def expected(version):
    root = f"mimic-cxr-jpg/{version}/files"
    first, last = "mimic:10000001", "mimic:11000003"
    texts = [text.replace("\r\n", "\n") for text in MIMIC_REPORTS.values()]

    def both(**values):
        return tuple(labels(labeller, CHEXPERT, **values) for labeller in ("chexpert", "negbio"))

    reader = (labels("radiologist", CHEXPERT, Lung_Opacity=1, Support_Devices=0),)
    effusion = {
        "addendum": "Dr. ___ was called.",
        "indication": "___ year old man with cough.",
        "findings": "There is a small left pleural\neffusion.",
        "impression": "1.  Small left pleural effusion.\n2.  No pneumothorax.",
    }
    clear = {
        "wet read": "___ ___ 9:41 PM\nNo pneumothorax.",
        "history": "Fever.",
        "last_paragraph": "The lungs are clear.  Compared with ___, no change.",
    }
    return [
        Study(
            "mimic_cxr", first, "s50000009", 0, "train",
            (
                Film("aa", f"{root}/p10/p10000001/s50000009/aa.jpg", "PA"),
                Film("ab", f"{root}/p10/p10000001/s50000009/ab.jpg", "lateral"),
            ),
            texts[0], effusion, both(Pleural_Effusion=1, Pneumonia=-1, Pneumothorax=0),
        ),
        Study(
            "mimic_cxr", first, "s50000002", 1, "train",
            (Film("ac", f"{root}/p10/p10000001/s50000002/ac.jpg", "AP"),),
            texts[1], clear, both(No_Finding=1),
        ),
        Study(
            "mimic_cxr", first, "s50000001", 2, "train",
            (Film("ad", f"{root}/p10/p10000001/s50000001/ad.jpg", "AP"),),
        ),
        Study(
            "mimic_cxr", last, "s53000003", 0, "validation",
            (Film("ba", f"{root}/p11/p11000003/s53000003/ba.jpg", "unknown"),),
            texts[2], {}, reader if version == "2.1.0" else (),
        ),
        Study("mimic_cxr", last, "s53000004", None, "validation", (), texts[3], {"impression": "Edema."}),
    ]  # fmt: skip


@pytest.mark.parametrize(("version", "archived", "gzipped"), FORMS)
def test_studies_of_a_folder(tmp_path, version, archived, gzipped):
    studies, problems = read_all("mimic_cxr", write_mimic_cxr(tmp_path / "raw", version, archived, gzipped))
    assert studies == expected(version)
    assert problems.skipped == {"neither a film nor a report": 1}
    assert problems.noted == {
        "a film is missing": 2,
        "no report": 1,
        "a report without findings": 1,
        "Support Devices is none of 1, 0, -1 and blank": 2,
    }


def test_reports_alone_are_studies(tmp_path):
    raw = write_mimic_cxr(tmp_path / "raw")
    shutil.rmtree(raw / "mimic-cxr-jpg")
    studies, problems = read_all("mimic_cxr", raw)
    assert [(s.id, s.order, s.split, s.films) for s in studies] == [
        (name, None, "", ()) for name in ("s50000002", "s50000009", "s53000003", "s53000004")
    ]
    assert problems.noted["the table of splits is missing"] == 1


def test_films_alone_are_studies(tmp_path):
    raw = write_mimic_cxr(tmp_path / "raw")
    shutil.rmtree(raw / "mimic-cxr")
    studies, problems = read_all("mimic_cxr", raw)
    assert [s.id for s in studies] == [study.id for study in expected("2.1.0") if study.films]
    assert problems.noted["no report"] == 4


def test_an_archive_cut_short_is_one_sentence(tmp_path):
    raw = write_mimic_cxr(tmp_path / "raw")
    path = raw / "mimic-cxr/2.1.0/mimic-cxr-reports.zip"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"mimic-cxr-reports\.zip is no whole zip archive: download it again"):
        read_all("mimic_cxr", raw)
