"""What a study shows, by its report and its labels."""

from dataclasses import replace

import pytest

from chestx_jax.lexicon import load
from chestx_jax.mining.reference import read_references, told_report
from chestx_jax.mining.rules import positive_findings
from chestx_jax.sources.study import Box, Film, Labels, Study
from tests.helpers.mined_studies import make_study


def statuses(report, labels=(), source="openi"):
    (reference,) = read_references(load(), [make_study("1", report, source=source, labels=labels)])
    return reference.statuses


@pytest.mark.parametrize(
    ("report", "label", "value", "basis"),
    [
        ("FINDINGS: Small left pleural effusion.", "Pleural Effusion", "present", "stated"),
        ("FINDINGS: No pleural effusion.", "Pleural Effusion", "absent", "stated"),
        ("IMPRESSION: No acute cardiopulmonary abnormality.", "Pneumonia", "absent", "implied"),
        ("FINDINGS: The heart is enlarged.", "Fracture", "absent", "not mentioned"),
        # denied in part
        ("FINDINGS: Right lung clear. Large left effusion.", "Atelectasis", "uncertain", "stated"),
        ("FINDINGS: The left lung is clear. The right lung is clear.", "Atelectasis", "absent", "implied"),
        ("FINDINGS: No large pleural effusion.", "Pleural Effusion", "uncertain", "stated"),
        ("FINDINGS: There may be a small effusion.", "Pleural Effusion", "uncertain", "stated"),
        # said and denied
        ("FINDINGS: No effusion. IMPRESSION: Pleural effusion.", "Pleural Effusion", "uncertain", "stated"),
        ("FINDINGS: No left effusion. Small right effusion.", "Pleural Effusion", "present", "stated"),
        # a kind is shown, what is broader is denied: the kind counts, the broader is in doubt
        ("FINDINGS: No focal opacity. Basilar atelectasis.", "Atelectasis", "present", "stated"),
        ("FINDINGS: No focal opacity. Basilar atelectasis.", "Lung Opacity", "uncertain", "stated"),
        ("FINDINGS: Basilar atelectasis.", "Lung Opacity", "present", "stated"),
        # not mentioned, beside what may be it by another name, or something else in the same place
        ("FINDINGS: Left basilar opacity.", "Pneumonia", "uncertain", "not mentioned"),
        ("FINDINGS: Calcified granuloma.", "Lung Lesion", "uncertain", "not mentioned"),
        ("FINDINGS: Sternotomy wires.", "Support Devices", "uncertain", "not mentioned"),
        ("FINDINGS: Sternotomy wires.", "Pneumothorax", "absent", "not mentioned"),
        # what the report does not tell of this film
        ("INDICATION: Pneumonia.\nFINDINGS: The heart is enlarged.", "Pneumonia", "absent", "not mentioned"),
        ("COMPARISON: Fracture.\nFINDINGS: The heart is enlarged.", "Fracture", "absent", "not mentioned"),
        ("FINDINGS: Heart size is normal. Lungs are clear.", "No Finding", "present", "implied"),
        ("FINDINGS: Heart size is normal. Old granuloma.", "No Finding", "uncertain", "implied"),
        ("FINDINGS: Cardiomegaly.", "No Finding", "absent", "implied"),
    ],
)
def test_the_report(report, label, value, basis):
    status = statuses(report)[label]
    assert (status.value, status.basis) == (value, basis)


@pytest.mark.parametrize(
    ("report", "values", "expected"),
    [
        ("FINDINGS: Edema.", {"Edema": 1}, "present"),
        ("FINDINGS: Edema.", {"Edema": None}, "present"),
        ("FINDINGS: Edema.", {"Edema": 0}, "uncertain"),
        ("FINDINGS: Edema.", {"Edema": -1}, "uncertain"),
        ("FINDINGS: No edema.", {"Edema": 1}, "uncertain"),
        ("FINDINGS: No edema.", {"Edema": 0}, "absent"),
        ("FINDINGS: Fracture.", {"Edema": 1}, "uncertain"),
        ("FINDINGS: Fracture.", {"Edema": 0}, "absent"),
        ("", {"Edema": 1}, "present"),
        ("", {"Edema": 0}, "absent"),
        ("", {"Edema": -1}, "uncertain"),
        ("", {"Fracture": 1}, "uncertain"),  # a labeller that does not know edema
    ],
)
def test_labels_are_a_second_opinion(report, values, expected):
    assert statuses(report, (Labels("chexpert", values),))["Edema"].value == expected


def test_a_radiologist_outweighs_labellers_and_labellers_must_agree():
    one, other = Labels("chexpert", {"Edema": 1}), Labels("negbio", {"Edema": 0})
    assert statuses("", (one, other))["Edema"].value == "uncertain"
    assert statuses("", (one, other, Labels("radiologist", {"Edema": 0})))["Edema"].value == "absent"


def test_boxes_say_the_side():
    def sides(*boxes):
        boxes = [Box("f", "Mass", left, 10, 100, 50, (1000, 1000), "reader") for left in boxes]
        study = Study("nih", "nih:1", "1", films=(Film("f", "f.png", "PA"),), boxes=tuple(boxes))
        labels = Labels("nih", {"Mass": 1, "Edema": 0})
        (reference,) = read_references(load(), [replace(study, labels=(labels,))])
        return {f.side for f in reference.findings if f.polarity}

    assert sides(100) == {2}  # the patient's right is at the picture's left
    assert sides(800) == {1}
    assert sides(100, 800) == {3}
    assert sides(450) == {0}  # over the midline
    assert sides() == {0}


def test_the_statement_is_the_reports_own_sentence():
    status = statuses("FINDINGS: The heart is normal. There is a small\nleft pleural effusion. Bones intact.")
    assert status["Pleural Effusion"].statement == "There is a small left pleural effusion."


def test_attributes_of_one_side_are_not_those_of_both():
    report = (
        "FINDINGS: A small left effusion is seen. A large right effusion is seen. "
        "Scarring at the left base. Right apical scarring."
    )
    (reference,) = read_references(load(), [make_study("1", report)])
    for finding in reference.findings:
        assert (finding.side, finding.severity, finding.site) == (3, 0, 0)
    assert {mention.severity for mention in reference.mentions} == {0, 1, 3}


def test_what_a_study_shows_is_told_most_closely():
    (reference,) = read_references(load(), [make_study("1", "FINDINGS: Basilar atelectasis. Cardiomegaly.")])
    assert reference.shown == ("Atelectasis", "Cardiomegaly")


def test_the_report_is_what_tells_of_the_films():
    report = " FINAL REPORT\n INDICATION:  ___ man, cough.\n\n FINDINGS:  Clear lungs.\n\n IMPRESSION:  Normal."
    assert told_report(make_study("1", report)) == "FINDINGS: Clear lungs.\nIMPRESSION: Normal."
    assert told_report(make_study("1", "Clear lungs.")) == "Clear lungs."
    assert told_report(Study("padchest", "p", "1", report="radiografi torax")) == ""


def test_a_sign_does_not_stand_for_a_finding_of_which_more_is_said():
    def told(report):
        (reference,) = read_references(load(), [make_study("1", report)])
        return {load().concepts[finding.concept].name for finding in positive_findings(load(), reference)}

    assert told("FINDINGS: A moderate right effusion with air fluid level.") == {"Pleural Effusion", "Meniscus"}
    assert told("FINDINGS: An effusion with a large right meniscus.") == {"Meniscus"}
