"""Radiology reports of phantom films: findings and impression, in varied words, true to the drawing."""

from collections.abc import Sequence

import numpy as np

from chestx_jax.phantom.cases import Case, is_ambiguous
from chestx_jax.phantom.finding import Finding
from chestx_jax.phantom.text import phrases
from chestx_jax.phantom.text.reasoning import in_order

_HEDGED = 0.15  # share of mild findings
_LUNG = ("Consolidation", "Edema", "Atelectasis", "Pneumonia", "Lung Opacity", "Lung Lesion")
_CHANGE = {
    "stable": ("is unchanged", "is stable", "has not changed"),
    "worsening": ("has increased", "has worsened", "is larger"),
    "improving": ("has decreased", "has improved", "is smaller"),
}


def write_reports(case: Case, rng: np.random.Generator) -> tuple[str, ...]:
    """The report of a case's film, or those of the earlier and the newer film: "Findings: … Impression: …"."""
    if case.earlier is None:
        return (_report(case.findings, rng),)
    changed = next(finding for finding in case.findings if finding.label == case.changed)
    verb = _pick(rng, *_CHANGE[case.change])
    prior = _pick(rng, "Compared with the prior study", "In comparison with the prior film")
    comparison = f"{prior}, the {phrases.noun_phrase(changed)} {verb}."
    headline = f"{case.change.capitalize()} {phrases.noun_phrase(changed)}."
    return _report(case.earlier, rng), _report(case.findings, rng, comparison, headline, case.changed)


def _report(
    findings: Sequence[Finding], rng: np.random.Generator, comparison: str = "", headline: str = "", changed: str = ""
) -> str:
    ordered = in_order(findings)
    body = [*filter(None, [comparison]), *(_statement(finding, rng) for finding in ordered)]
    body += _negatives([finding.label for finding in findings], rng)
    body = body or ["The lungs are clear."]  # a normal film of which no part happened to be mentioned
    conclusions = [headline if finding.label == changed else phrases.impression(finding) for finding in ordered]
    if not conclusions:
        conclusions = [_pick(rng, "No acute cardiopulmonary abnormality.", "Normal chest X-ray.")]
    if len(conclusions) > 1:
        conclusions = [f"{number}. {text}" for number, text in enumerate(conclusions, start=1)]
    return f"Findings: {' '.join(body)} Impression: {' '.join(conclusions)}"


def _statement(finding: Finding, rng: np.random.Generator) -> str:
    """One finding in words; a mild one is sometimes hedged (its impression line is not)."""
    hedged = phrases.possible(finding)
    if finding.severity == "mild" and hedged is not None and rng.random() < _HEDGED:
        return hedged
    return phrases.present_varied(finding, rng)


def _negatives(labels: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Sentences about the normal parts; some parts are not mentioned."""
    parts = (_normal_lungs, _normal_pleura, _normal_heart, _normal_bones)
    return [text for part in parts if rng.random() < 0.9 and (text := part(labels, rng))]


def _normal_lungs(labels: Sequence[str], rng: np.random.Generator) -> str:
    absent = [
        label for label in ("Consolidation", "Edema", "Pneumonia", "Atelectasis") if not is_ambiguous(label, labels)
    ]
    if not set(labels) & {*_LUNG, "Pleural Effusion", "Pneumothorax"} and rng.random() < 0.6:
        return _pick(rng, "The lungs are clear.", "Both lungs are clear.")
    if len(absent) < 2:
        return ""
    first, second = rng.choice(len(absent), size=2, replace=False)
    return _pick(rng, "No", "There is no") + f" {phrases.listing([absent[first], absent[second]], 'or')}."


def _normal_pleura(labels: Sequence[str], rng: np.random.Generator) -> str:
    absent = [label for label in ("Pleural Effusion", "Pneumothorax") if label not in labels]
    return _pick(rng, "No", "There is no") + f" {phrases.listing(absent, 'or')}." if absent else ""


def _normal_heart(labels: Sequence[str], rng: np.random.Generator) -> str:
    if not set(labels) & {"Cardiomegaly", "Enlarged Cardiomediastinum"}:
        return _pick(
            rng,
            "The cardiomediastinal silhouette is normal.",
            "The heart size is normal.",
            "The heart size and mediastinal contours are within normal limits.",
        )
    return "The heart size is normal." if "Cardiomegaly" not in labels else ""


def _normal_bones(labels: Sequence[str], rng: np.random.Generator) -> str:
    return (
        "" if "Fracture" in labels else _pick(rng, "The bones are intact.", "No rib fracture.", "No fracture is seen.")
    )


def _pick(rng: np.random.Generator, *choices: str) -> str:
    return choices[rng.integers(len(choices))]
