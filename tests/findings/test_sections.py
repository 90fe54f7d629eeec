"""Reports are read by section: history, comparison, technique and recommendation assert nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestx_jax import lexicon
from chestx_jax.findings import read_reports
from chestx_jax.findings.sections import asserting_text, split_sections


def present(report):
    loaded = lexicon.load()
    findings = read_reports(loaded, [report])[0].findings
    return [loaded.concepts[f.concept].name for f in findings if f.polarity and f.certainty]


SILENT = (
    "HISTORY", "INDICATION", "Clinical information", "REASON FOR EXAM", "REASON FOR THIS EXAMINATION", "COMPARISON",
    "TECHNIQUE", "RECOMMENDATION", "EXAMINATION", "CLINICAL HISTORY",
)  # fmt: skip
ASSERTING = ("FINDINGS", "IMPRESSION", "ADDENDUM", "Addendum by Dr. Roe", "WET READ", "PLEURA", "Conclusion")


@pytest.mark.parametrize("silent", SILENT)
@pytest.mark.parametrize("asserting", ASSERTING)
@pytest.mark.parametrize("joint", ["\n", "\n\n", ". "])
def test_only_some_sections_assert(silent, asserting, joint):
    report = f"{silent}: Pneumonia. Effusion{joint}{asserting}: Edema.{joint}{silent}: Fracture."
    joined_in_a_line = joint == ". " and asserting == "PLEURA"  # headers of unknown name need a line of their own
    assert present(report) == ([] if joined_in_a_line else ["Edema"])


def test_text_behind_a_blank_line_asserts_where_no_header_follows():
    report = "REASON FOR EXAM: Pneumonia?\n___\n\nThere is edema.\nHeart is enlarged."
    assert present(report) == ["Edema", "Cardiomegaly"]


@given(st.lists(st.sampled_from([*"ab é×\n.:_*", "INDICATION:", "FINDINGS:", "\nHISTORY:"])).map("".join))
def test_sections_cover_the_report_and_blanks_keep_its_bytes(report):
    sections = split_sections(report)
    assert "".join(report[section.header : section.end] for section in sections) == report
    assert len(asserting_text(report).encode()) == len(report.encode())
