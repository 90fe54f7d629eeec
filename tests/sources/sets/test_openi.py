"""Open-i: exactly the studies of small folders in its three forms, and the counts of the real reports."""

from collections import Counter

import pytest

from chestx_jax.sources.study import Film, Labels, Study
from tests.helpers.raw_sets import write_openi, write_openi_kaggle
from tests.helpers.studies import read_all

ASKED = "XXXX-year-old with chest pain"


def study(number, films, sections, *names):
    report = "\n".join(f"{name.upper()}: {text}" for name, text in sections.items())
    mesh = (Labels("mesh", dict.fromkeys(names, 1)),)
    return Study("openi", f"openi:{number}", f"CXR{number}", None, "", films, report, sections, mesh)


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("films", [False, True])
def test_studies_of_the_reports(tmp_path, archived, films):
    studies, problems = read_all("openi", write_openi(tmp_path / "openi", archived, films))
    first = Film("2_IM-0652-1001", "NLMCXR_png/CXR2_2_IM-0652-1001.png", "unknown")
    second = Film("10_IM-0002-1001", "NLMCXR_png/CXR10_10_IM-0002-1001.png", "unknown")
    common = {"comparison": "None.", "indication": ASKED}
    assert studies == [
        study(2, (first,) * films, {**common, "impression": "Left basilar atelectasis."}, "pulmonary atelectasis"),
        study(4, (), {**common, "findings": "Stable cardiomegaly."}, "cardiomegaly", "opacity"),
        study(
            10, (second,) * films, {**common, "findings": "The XXXX is clear.", "impression": "Normal chest."}, "normal"
        ),
    ]
    assert problems.skipped == {
        "neither film nor findings nor impression": 1,
        "the file is no whole XML": 1,
    }
    assert problems.noted == {"a film is missing": 1 if films else 3}


def test_studies_of_the_tables(tmp_path):
    studies, problems = read_all("openi", write_openi_kaggle(tmp_path / "openi"))
    films = [
        Film(name, f"images/images_normalized/{name}.dcm.png", view)
        for name, view in (
            ("2_IM-0652-1001", "lateral"),
            ("10_IM-0002-1001", "frontal"),
            ("10_IM-0002-2001", "lateral"),
        )
    ]
    large = {"indication": "Pain", "findings": "The heart, as before, is large.", "impression": "Atelectasis."}
    normal = {"comparison": "None.", "indication": ASKED, "findings": "The XXXX is clear."}
    assert studies == [
        study(2, (films[0],), large, "pulmonary atelectasis", "opacity"),
        study(10, tuple(films[1:]), {**normal, "impression": "Normal chest."}, "normal"),
    ]
    assert problems.skipped == {"neither film nor findings nor impression": 1}


@pytest.mark.parametrize("folder", ["openi_xml", "openi"])
def test_counts_of_the_real_reports(shared_data, folder):
    """2,575 reports, 16 of them without findings and impression."""
    studies, problems = read_all("openi", shared_data / folder)
    assert len(studies) == 2559
    assert problems.skipped == {"neither film nor findings nor impression": 16}
    counts = Counter(name for study in studies for name in study.sections)
    lost = 2 if folder == "openi" else 0
    assert counts == {"impression": 2553, "indication": 2519 - lost, "findings": 2235, "comparison": 2155}
    assert sum(study.labels[0].values == {"normal": 1} for study in studies if study.labels) == 911


def test_both_forms_of_the_real_reports_are_the_same_studies(shared_data):
    """But for two indications that a spreadsheet lost."""
    forms = [read_all("openi", shared_data / folder)[0] for folder in ("openi_xml", "openi")]
    different = [
        (one.id, name)
        for one, other in zip(*forms, strict=True)
        for name in {*one.sections, *other.sections}
        if one.sections.get(name, "").split() != other.sections.get(name, "").split()
    ]
    assert different == [("CXR1555", "indication"), ("CXR3784", "indication")]
