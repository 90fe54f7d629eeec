"""Sections under common names, by the quirks of MIMIC-CXR's reports."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestx_jax.sources.reports import named_sections


@pytest.mark.parametrize(
    ("report", "sections"),
    [
        (" FINAL REPORT\n CHEST, TWO VIEWS:  Clear.\n\n IMPRESSION:  No.", {"findings": "Clear.", "impression": "No."}),
        (" PORTABLE AP: ___\n FINDINGS: Edema.", {"findings": "Edema."}),
        (" CHEST: Old.\n FINDINGS: Edema.", {"findings": "Edema."}),
        (" FINDINGS: Edema.\n FINDINGS: Effusion.", {"findings": "Effusion."}),
        (" FINDINGS: Edema.\n FINDINGS:\n", {"findings": "Edema."}),
        (" IMPRESSON: Edema.", {"impression": "Edema."}),
        (" FINDINGS AND IMPRESSION: Edema.", {"impression": "Edema."}),
        (" REASON FOR EXAM: Cough.\n\n Edema.", {"indication": "Cough.", "last_paragraph": "Edema."}),
        (" FINAL REPORT\n HISTORY: Cough.\n\n Ed.\n\n Eff.", {"history": "Cough.", "last_paragraph": "Ed.\n\nEff."}),
        ("Edema.", {"last_paragraph": "Edema."}),
        (" FINAL REPORT\n ___\n", {}),
        ("", {}),
        ("FINDINGS: Edema.\r\n\r\nIMPRESSION:\r\n1. Edema.\r\n", {"findings": "Edema.", "impression": "1. Edema."}),
    ],
)  # fmt: skip
def test_sections_by_common_names(report, sections):
    assert named_sections(report) == sections


@given(st.lists(st.sampled_from([*"ab 1\n._:", "INDICATION:", "FINDINGS:", "\nCHEST, PA:", "\n\n"])).map("".join))
def test_sections_are_parts_of_the_report_with_words(report):
    words = report.split()
    for name, text in named_sections(report).items():
        assert name
        assert any(letter.isalpha() for letter in text)
        assert all(word in " ".join(words) for word in text.split())
