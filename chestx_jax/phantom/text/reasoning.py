"""Reference reasoning of each task family: what the film shows, what not, and a conclusion; three to nine sentences."""

from collections.abc import Sequence

import numpy as np

from chestx_jax.phantom.cases import FINDINGS, Case, is_ambiguous
from chestx_jax.phantom.finding import SEVERITIES, Finding
from chestx_jax.phantom.text import phrases

LETTERS = "ABCD"
_LUNG = ("Consolidation", "Edema", "Atelectasis", "Pneumonia", "Lung Opacity", "Lung Lesion")
_ORDER = ("Support Devices", *_LUNG, "Pleural Effusion", "Pneumothorax", "Cardiomegaly", "Enlarged Cardiomediastinum")


def binary_steps(findings: Sequence[Finding], label: str, rng: np.random.Generator) -> tuple[str, ...]:
    """The asked finding as present or absent; the rest of the film; the same words again with the answer.

    The conclusion repeats the first step's words, so that it can be copied from there: a small model that had to choose
    between "shows" and "does not show" by what it wrote forty tokens before often contradicted itself.
    """
    labels = [finding.label for finding in findings]
    state = f"{phrases.name(label)} {'present' if label in labels else 'absent'}"
    first = sorted(in_order(findings), key=lambda finding: finding.label != label)
    stated = [phrases.present(finding) for finding in first] or [_normal(labels)]
    negatives = phrases.absent(_absent(labels, 2, rng, but=label))
    answer = "yes" if label in labels else "no"
    return (f"Asked: {state}.", *stated, negatives, f"With {state}, the answer is {answer}.")


def choice_steps(findings: Sequence[Finding], options: Sequence[Sequence[str]], letter: str) -> tuple[str, ...]:
    """For single and multiple choice: a verdict on each option up to the right one, the film's findings, the answer.

    `options` holds the labels of each option ("No Finding" is a label too).
    """
    labels = [finding.label for finding in findings] or ["No Finding"]
    tried = options[: LETTERS.index(letter) + 1]
    verdicts = [option_verdict(each, option, labels) for each, option in zip(LETTERS, tried, strict=False)]
    stated = [phrases.present(finding) for finding in in_order(findings)] or [_normal(())]
    return (*verdicts, *stated, _conclusion(letter))


def option_verdict(letter: str, option: Sequence[str], labels: Sequence[str]) -> str:
    """ "Option (A) edema absent.": of the option's labels the first that is not among `labels`, else its first."""
    refuting = [label for label in option if label not in labels]
    if refuting:
        return f"Option ({letter}) {phrases.name(refuting[0])} absent."
    return f"Option ({letter}) {phrases.name(option[0])} present."


def anomaly_steps(findings: Sequence[Finding], rng: np.random.Generator) -> tuple[str, ...]:
    """The film's findings, a few absent ones, and the list of findings."""
    labels = [finding.label for finding in in_order(findings)]
    denied = phrases.absent(_absent(labels, 3 if len(labels) < 2 else 2, rng))
    if not labels:
        return (denied, _normal(labels), "The film shows no finding.")
    stated = [phrases.present(finding) for finding in in_order(findings)]
    return (*stated, denied, f"The film shows {phrases.listing(labels, 'and')}.")


def temporal_steps(case: Case, options: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
    """How the asked finding changed (`change_steps`), with the rest of the new film before the answer."""
    assert case.earlier is not None
    before, after = (
        next(finding for finding in film if finding.label == case.changed) for film in (case.earlier, case.findings)
    )
    others = [phrases.present(finding) for finding in case.findings if finding.label != case.changed]
    rest = others or [phrases.absent(_absent([case.changed], 2, rng))]
    *change, conclusion = change_steps(before, after, options)
    return (*change, *rest, conclusion)


def change_steps(before: Finding, after: Finding, options: Sequence[str]) -> tuple[str, ...]:
    """A finding's extent on the reference and on the new film, how it changed, in the word of the options, a verdict on
    each of them up to the right one, the answer."""
    difference = SEVERITIES.index(after.severity) - SEVERITIES.index(before.severity)
    change = "stable" if not difference else "worsening" if difference > 0 else "improving"
    extents = f"From {phrases.extent(before)} to {phrases.extent(after)}"
    trend = f"{extents}, the {phrases.name(after.label)} is {change}."
    verdicts = [
        f"Option ({letter}) {option}, seen {change}: {'right' if option == change else 'wrong'}."
        for letter, option in zip(LETTERS, options[: options.index(change) + 1], strict=False)
    ]
    conclusion = _conclusion(LETTERS[len(verdicts) - 1])
    return (_on("reference", before), _on("new", after), trend, *verdicts, conclusion)


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """The findings in the order of a report."""
    return sorted(findings, key=lambda finding: (*_ORDER, finding.label).index(finding.label))


def _conclusion(letter: str) -> str:
    return f"The answer is option ({letter})."


def _on(which: str, finding: Finding) -> str:
    """The plain sentence without its signs, about one of the two films."""
    plain = phrases.present(finding).partition(" with ")[0].rstrip(".")
    zone = f" in the {finding.side} {finding.zone} lung" if finding.zone and finding.zone not in plain else ""
    shows = f"The {which} image shows"
    return plain.replace("There is", shows, 1).replace("There are", shows) + zone + "."


def _normal(labels: Sequence[str]) -> str:
    return "The rest of the film is normal." if labels else "The heart size is normal and the lungs are clear."


def _absent(labels: Sequence[str], count: int, rng: np.random.Generator, but: str = "") -> list[str]:
    """At most `count` labels, other than `but`, that nothing on the film could be taken for."""
    excluded = (*labels, but) if but else labels
    candidates = [label for label in FINDINGS if not is_ambiguous(label, excluded)]
    return [candidates[i] for i in rng.choice(len(candidates), size=min(count, len(candidates)), replace=False)]
