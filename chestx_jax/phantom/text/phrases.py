"""Sentences for findings, present and absent: one small vocabulary shared by reports and reasoning."""

from collections.abc import Sequence

import numpy as np

from chestx_jax.phantom.finding import Finding

_SIZE = {"mild": "small", "moderate": "moderate", "severe": "large"}
_ADVERB = {"mild": "mildly", "moderate": "moderately", "severe": "severely"}

# Reasoning uses the first form of each label, reports any of them.
_PRESENT = {
    "Atelectasis": (
        "There is {severity} linear atelectasis at the {side} lung base with a raised {side} hemidiaphragm.",
        "{Severity} {side} basilar atelectasis with elevation of the {side} hemidiaphragm.",
        "Plate-like atelectasis is seen at the {side} lung base with a raised {side} hemidiaphragm.",
    ),
    "Cardiomegaly": (
        "There is {severity} cardiomegaly with an increased cardiothoracic ratio.",
        "The heart is {adverb} enlarged.",
        "The cardiac silhouette is {adverb} enlarged, with a cardiothoracic ratio above 0.5.",
    ),
    "Consolidation": (
        "There is {severity} consolidation in the {side} {zone} lung with air bronchograms.",
        "Dense {side} {zone} zone consolidation with air bronchograms.",
        "{Severity} consolidation is present in the {side} {zone} lung with air bronchograms.",
    ),
    "Edema": (
        "There is {severity} bilateral pulmonary edema with perihilar haze and Kerley B lines.",
        "{Severity} bilateral pulmonary edema with perihilar haze and Kerley B lines.",
        "Perihilar haze, vascular congestion and Kerley B lines, in keeping with {severity} bilateral pulmonary edema.",
    ),
    "Enlarged Cardiomediastinum": (
        "There is an enlarged cardiomediastinum with {severity} widening of the upper mediastinum.",
        "The mediastinum is {adverb} widened.",
        "{Severity} widening of the upper mediastinum is present.",
    ),
    "Fracture": (
        "There is a displaced {side} rib fracture with a step-off.",
        "Displaced {side} rib fractures.",
        "Displaced fractures of the {side} ribs are present.",
    ),
    "Lung Lesion": (
        "There is a {size} round lung lesion in the {side} {zone} lung.",
        "A {size} round {nodule} is seen in the {side} {zone} zone.",
        "{Size} well-defined {nodule} in the {side} {zone} lung.",
    ),
    "Lung Opacity": (
        "There is a {severity} hazy lung opacity in the {side} {zone} lung.",
        "{Severity} hazy ground-glass opacity in the {side} {zone} zone.",
        "A {severity} hazy lung opacity is present in the {side} {zone} lung.",
    ),
    "Pleural Effusion": (
        "There is a {size} {side} pleural effusion with blunting of the {side} costophrenic angle.",
        "{Size} {side} pleural effusion with a blunted {side} costophrenic angle.",
        "A {size} {side} pleural effusion blunts the {side} costophrenic angle with a meniscus.",
    ),
    "Pneumonia": (
        "There is {severity} patchy pneumonia in the {side} {zone} lung.",
        "{Severity} patchy airspace disease in the {side} {zone} lung, compatible with pneumonia.",
        "{Severity} {side} {zone} lung pneumonia.",
    ),
    "Pneumothorax": (
        "There is a {size} {side} pneumothorax with a visible pleural line.",
        "{Size} {side} pneumothorax.",
        "A {size} {side} pneumothorax is present with a visible pleural line.",
    ),
}
_DEVICE = {
    "pacemaker": ("There is a {side} chest pacemaker with its lead in the heart.", "A {side} pacemaker is in place."),
    "central line": (
        "There is a {side} central line ending in the superior vena cava.",
        "A {side} central venous catheter is in place.",
    ),
    "endotracheal tube": (
        "There is an endotracheal tube ending above the carina.",
        "The endotracheal tube is in place above the carina.",
    ),
    "enteric tube": ("There is an enteric tube ending in the stomach.", "An enteric tube ends in the stomach."),
}
_IMPRESSION = {
    "Atelectasis": "{Severity} {side} basilar atelectasis.",
    "Cardiomegaly": "{Severity} cardiomegaly.",
    "Consolidation": "{Side} {zone} lung consolidation.",
    "Edema": "{Severity} bilateral pulmonary edema.",
    "Enlarged Cardiomediastinum": "Enlarged cardiomediastinum.",
    "Fracture": "{Side} rib fractures.",
    "Lung Lesion": "{Size} {side} lung {nodule}.",
    "Lung Opacity": "{Side} {zone} lung opacity.",
    "Pleural Effusion": "{Size} {side} pleural effusion.",
    "Pneumonia": "{Side} {zone} lung pneumonia.",
    "Pneumothorax": "{Size} {side} pneumothorax.",
    "Support Devices": "Support devices as above.",
}
_BILATERAL = (  # replacements in a form with the side "both"
    ("There is a {size} both pleural effusion", "There are {size} bilateral pleural effusions"),
    ("A {size} both pleural effusion blunts the", "{Size} bilateral pleural effusions with blunting of the"),
    ("{Size} both pleural effusion", "{Size} bilateral pleural effusions"),
    ("the both costophrenic angle", "both costophrenic angles"),
    ("a blunted both costophrenic angle", "blunting of both costophrenic angles"),
    ("at the both lung base", "at both lung bases"),
    ("a raised both hemidiaphragm", "both hemidiaphragms raised"),
    ("elevation of the both hemidiaphragm", "elevation of both hemidiaphragms"),
    ("{Severity} both basilar", "{Severity} bilateral basilar"),
)


def name(label: str) -> str:
    """A label as written in questions and sentences."""
    return label.lower()


def listing(labels: Sequence[str], last: str) -> str:
    """ "a", "a or b", "a, b or c" in lower case, with `last` as the conjunction."""
    words = [name(label) for label in labels]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def present(finding: Finding) -> str:
    """The plain sentence that states a finding."""
    return _fill(_forms(finding)[0], finding)


def present_varied(finding: Finding, rng: np.random.Generator) -> str:
    """A sentence that states a finding as one of many reports would."""
    forms = _forms(finding)
    return _fill(forms[rng.integers(len(forms))], finding)


def possible(finding: Finding) -> str | None:
    """The hedged form of the plain sentence, None where there is none."""
    text = present(finding)
    return text.replace("There is a ", "There is a possible ", 1) if text.startswith("There is a ") else None


def impression(finding: Finding) -> str:
    """The finding as an impression line."""
    return _fill(_IMPRESSION[finding.label], finding)


def absent(labels: Sequence[str]) -> str:
    """The plain sentence that denies labels."""
    return f"{'The film shows' if 'Support Devices' in labels else 'There is'} no {listing(labels, 'or')}."


def noun_phrase(finding: Finding) -> str:
    """Side and label: "left pleural effusion"."""
    side = {"both": "bilateral ", "": ""}.get(finding.side, f"{finding.side} ")
    return ("" if finding.label == "Edema" else side) + name(finding.label)


def region_word(label: str) -> str:
    """The word of a label in a region caption: the last of its name."""
    return name(label).split()[-1]


def extent(finding: Finding) -> str:
    """How much there is of a finding, in the word of its plain sentence: "small" or "mild"."""
    return _SIZE[finding.severity] if "{size}" in _forms(finding)[0] else finding.severity


def _forms(finding: Finding) -> tuple[str, ...]:
    return _DEVICE[finding.kind] if finding.kind else _PRESENT[finding.label]


def _fill(form: str, finding: Finding) -> str:
    if finding.side == "both":
        form = form.replace("{side}", "both").replace("{Side}", "Both")
        for single, plural in _BILATERAL:
            form = form.replace(single, plural)
    words = {
        "side": finding.side,
        "zone": finding.zone,
        "severity": finding.severity,
        "size": _SIZE[finding.severity],
        "adverb": _ADVERB[finding.severity],
        "nodule": "mass" if finding.severity == "severe" else "nodule",
    }
    return form.format(**words, **{key.capitalize(): word.capitalize() for key, word in words.items()})
