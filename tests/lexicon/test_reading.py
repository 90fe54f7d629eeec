"""The lexicon's data, its check, and the reading of report language on the host."""

import pytest

from chestx_jax import lexicon
from chestx_jax.errors import UserError
from chestx_jax.findings import extract, reward_targets
from chestx_jax.labels import LABELS
from chestx_jax.lexicon.__main__ import main as check_command
from chestx_jax.lexicon.check import find_problems
from chestx_jax.lexicon.lexicon import CHANGES, SIDES, parse


def read(text, **options):
    loaded = lexicon.load()
    return [
        (loaded.concepts[f.concept].name, "-+"[f.polarity], f.certainty, SIDES[f.side], CHANGES[f.change], f.step)
        for f in extract(loaded, text, **options)
    ]


def test_labels_come_first_and_the_lexicon_is_large_enough():
    concepts = lexicon.load().concepts
    assert tuple(concept.name for concept in concepts[:13]) == LABELS
    assert sum(not concept.general for concept in concepts) >= 90


def test_the_lexicon_has_no_problems(capsys):
    assert find_problems(lexicon.load()) == []
    assert check_command(["--check"]) == 0
    assert "no problems" in capsys.readouterr().out


@pytest.mark.parametrize("label", LABELS)
def test_every_label_is_read_by_its_own_name(label):
    assert [(name, sign) for name, sign, *_ in read(label)] == [(label, "+")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Small right pleural effusion.", [("Pleural Effusion", "+", 2, "right", "", 0)]),
        (
            "No effusion, stable cardiomegaly.",
            [("Pleural Effusion", "-", 2, "", "", 0), ("Cardiomegaly", "+", 2, "", "stable", 0)],
        ),
        ("Bibasilar atelectasis has worsened.", [("Atelectasis", "+", 2, "both", "worsening", 0)]),
        ("The new image shows a left pneumothorax.", [("Pneumothorax", "+", 2, "left", "", 0)]),
        ("There is a new left pneumothorax.", [("Pneumothorax", "+", 2, "left", "worsening", 0)]),
        (
            "An effusion would appear as a meniscus.",
            [("Pleural Effusion", "+", 0, "", "", 0), ("Meniscus", "+", 0, "", "", 0)],
        ),
        ("Does this show edema?", [("Edema", "+", 0, "", "", 0)]),
        ("A) Edema\nB) Fracture", [("Edema", "+", 0, "", "", 0), ("Fracture", "+", 0, "", "", 1)]),
        ("There is nо edema.", [("Edema", "+", 2, "", "", 0)]),  # a Cyrillic letter hides no claim
        (
            "Edema measuring 5.2 cm seen by Dr. Roe. No mass.",
            [("Edema", "+", 2, "", "", 0), ("Mass", "-", 2, "", "", 1)],
        ),
        ("1. Edema.\n2. No fracture.", [("Edema", "+", 2, "", "", 0), ("Fracture", "-", 2, "", "", 1)]),
        ("There is a small left\npleural effusion.", [("Pleural Effusion", "+", 2, "left", "", 0)]),
        (
            "Heart and mediastinum are normal.",
            [("Cardiomegaly", "-", 2, "", "", 0), ("Enlarged Cardiomediastinum", "-", 2, "", "", 0)],
        ),
        ("PLEURAL-EFFUSIONS", [("Pleural Effusion", "+", 2, "", "", 0)]),
        ("Bilateral pulmonary edema.", [("Edema", "+", 2, "both", "", 0)]),
        (  # a supposition ends where the text observes again
            "To determine if there is effusion, I should look for a meniscus. In this image, a meniscus is seen.",
            [("Pleural Effusion", "+", 0, "", "", 0), ("Meniscus", "+", 0, "", "", 0), ("Meniscus", "+", 2, "", "", 1)],
        ),
        ("The film shows edema, typically seen in sepsis.", [("Edema", "+", 2, "", "", 0)]),
        ("Check if the film shows edema.", [("Edema", "+", 0, "", "", 0)]),
        ("To assess the heart, no effusion is seen.", [("Pleural Effusion", "-", 2, "", "", 0)]),
        ("Ensure clear margins, no effusion.", [("Pleural Effusion", "-", 0, "", "", 0)]),
        ("There is an interval increase in heart size.", [("Cardiomegaly", "+", 2, "", "", 0)]),
        ("The cardiac silhouette is larger than normal.", [("Cardiomegaly", "+", 2, "", "", 0)]),
        ("Minimal cardiomediastinal shift.", [("Mediastinal Shift", "+", 2, "", "", 0)]),
        ("No acute disease.", [("Acute Process", "-", 2, "", "", 0)]),
        ("There are no significant findings.", [("No Finding", "+", 2, "", "", 0)]),
        ("The images appear to be within normal limits.", [("No Finding", "+", 2, "", "", 0)]),
        ("No abnormalities are seen, no abnormality on the image.", [("No Finding", "+", 2, "", "", 0)]),
        ("Pneumothorax: no evidence.", [("Pneumothorax", "-", 2, "", "", 0)]),
        ("An effusion, no evidence that it grows.", [("Pleural Effusion", "+", 2, "", "", 0)]),
        ("CT is more sensitive in detecting nodules.", [("Nodule", "+", 0, "", "", 0)]),
        (  # the next section is no part of the denial
            "There is no fracture Impression: Normal chest.",
            [("Fracture", "-", 2, "", "", 0), ("No Finding", "+", 2, "", "", 0)],
        ),
        # a hypothetical finding is denied without its name
        ("Look for edema. None is seen.", [("Edema", "-", 2, "", "", 0)]),
        ("Look for edema. The heart is enlarged.", [("Edema", "+", 0, "", "", 0), ("Cardiomegaly", "+", 2, "", "", 1)]),
        (
            "Option A suggests edema. There is no mass, ruling out this option.",
            [("Edema", "-", 2, "", "", 0), ("Mass", "-", 2, "", "", 1)],
        ),
        # headings and concluded options
        ("Edema: the film shows a mass.", [("Edema", "+", 0, "", "", 0), ("Mass", "+", 2, "", "", 0)]),
        ("Edema: small.", [("Edema", "+", 2, "", "", 0)]),
        ("The correct answer is:\nA) Edema", [("Edema", "+", 2, "", "", 1)]),
    ],
)
def test_report_language(text, expected):
    assert read(text) == expected


def test_which_part_of_a_completion_counts():
    text = "<think> Edema. </think><answer> Fracture </answer>"
    assert [name for name, *_ in read(text, think_only=True)] == ["Edema"]
    assert [name for name, *_ in read(text)] == ["Edema"]
    assert [name for name, *_ in read("Mass. <answer> Fracture </answer>")] == ["Mass"]
    assert read("Mass. <answer> Fracture </answer>", think_only=True) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('name = "Pneumonia"\n', 'name = "Pneumonitis"\n'), "first concepts must be"),
        (('parents = ["Lung Lesion"]', 'parents = ["Lung Lesions"]'), "not defined"),
        (('roles = ["verb"]', 'roles = ["verbs"]'), "none of"),
        (('phrases = ["sarcoidosis", "sarcoid"]', 'phrases = ["sarcoidosis", "edema"]'), "two meanings"),
        (("[words]", "[words"), "not valid TOML"),
    ],
)
def test_mistakes_in_the_lexicon_are_named(change, message):
    from importlib import resources

    text = resources.files("chestx_jax.lexicon").joinpath("lexicon.toml").read_text(encoding="utf-8")
    assert change[0] in text
    with pytest.raises(UserError, match=message):
        parse(text.replace(*change, 1))


def test_targets_of_two_films_carry_the_change():
    targets = reward_targets(lexicon.load(), [["Left effusion.", "No effusion."]], [[]], ["C"], ["temporal"], 8)
    assert targets.report.polarity[0, :2].tolist() == [1, 0]
    assert CHANGES[targets.report.change[0, 1]] == "improving"
    assert int(targets.letters[0]) == 4


def test_answers_outside_the_labels_are_refused():
    with pytest.raises(UserError, match="no label"):
        reward_targets(lexicon.load(), [[]], [[]], ["Edema, Flu"], ["anomaly"], 8)
    with pytest.raises(UserError, match="task"):
        reward_targets(lexicon.load(), [[]], [[]], ["A"], ["other"], 8)
