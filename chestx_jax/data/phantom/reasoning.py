"""Reference reasoning for each task family: what is seen, what is not, and what follows, in three to six sentences."""

from collections.abc import Sequence

import numpy as np

from chestx_jax.data.phantom import phrases
from chestx_jax.data.phantom.cases import FINDINGS, Case, ambiguous
from chestx_jax.data.phantom.finding import Finding

_TREND = {
    "stable": "has not changed, so it is stable",
    "worsening": "has increased, so it is worsening",
    "improving": "has decreased, so it is improving",
}


def binary_steps(findings: Sequence[Finding], label: str, rng: np.random.Generator) -> tuple[str, ...]:
    """The asked finding first, present or absent, then the rest of the film."""
    labels = [finding.label for finding in findings]
    others = [phrases.present(finding) for finding in findings if finding.label != label][:2]
    negatives = [phrases.absent(_absent(labels, 2 if others else 3, rng, but=label))]
    if label in labels:
        asked = next(finding for finding in findings if finding.label == label)
        conclusion = f"The film shows {phrases.name(label)}, so the answer is yes."
        return (phrases.present(asked), *others, *negatives, conclusion)
    conclusion = f"The film does not show {phrases.name(label)}, so the answer is no."
    return (phrases.absent([label]), *(others or [_normal(labels)]), *negatives, conclusion)


def choice_steps(
    findings: Sequence[Finding], gold: Sequence[str], listed: Sequence[str], letter: str
) -> tuple[str, ...]:
    """For single and multiple choice: the film's findings, the options' other labels denied, the option that matches.

    `gold` holds the labels of the right option ("No Finding" alone for a normal film), `listed` those of all options.
    """
    denied = [label for label in dict.fromkeys(listed) if label not in gold and label != "No Finding"][:4]
    if list(gold) == ["No Finding"]:
        return (phrases.absent(denied), _normal(()), f"The film shows no finding, option {letter}.")
    first = sorted(findings, key=lambda finding: finding.label not in gold)
    stated = [phrases.present(finding) for finding in first]
    return (*stated, *([phrases.absent(denied)] if denied else []), f"{conclude(gold)[:-1]}, option {letter}.")


def anomaly_steps(findings: Sequence[Finding], rng: np.random.Generator) -> tuple[str, ...]:
    """The film's findings, a few things it does not show, the list."""
    labels = [finding.label for finding in findings]
    denied = phrases.absent(_absent(labels, 3 if len(labels) < 2 else 2, rng))
    if not labels:
        return (denied, _normal(labels), "The film shows no finding.")
    return (*(phrases.present(finding) for finding in findings), denied, conclude(labels))


def temporal_steps(case: Case, letter: str, rng: np.random.Generator) -> tuple[str, ...]:
    """The asked finding on the reference film, on the new film, and the trend."""
    assert case.earlier is not None
    before, after = (
        next(finding for finding in film if finding.label == case.changed) for film in (case.earlier, case.findings)
    )
    others = [phrases.present(finding) for finding in case.findings if finding.label != case.changed]
    rest = others or [phrases.absent(_absent([case.changed], 2, rng))]
    trend = f"The {phrases.name(case.changed)} {_TREND[case.change]}, option {letter}."
    return (_on("reference", before), _on("new", after), *rest, trend)


def conclude(gold: Sequence[str]) -> str:
    """ "The film shows edema and fracture." or "The film shows no finding." """
    return f"The film shows {phrases.listing(gold, 'and')}."


def _on(which: str, finding: Finding) -> str:
    """The plain sentence without its signs, said of one of the two films."""
    plain = phrases.present(finding).partition(" with ")[0].rstrip(".")
    zone = f" in the {finding.side} {finding.zone} lung" if finding.zone and finding.zone not in plain else ""
    return (
        plain.replace("There is", f"The {which} image shows", 1).replace("There are", f"The {which} image shows")
        + zone
        + "."
    )


def _normal(labels: Sequence[str]) -> str:
    heart = "Cardiomegaly" not in labels
    return (
        "The heart size is normal and the lungs are clear."
        if heart and not labels
        else "The rest of the film is normal."
    )


def _absent(labels: Sequence[str], count: int, rng: np.random.Generator, but: str = "") -> list[str]:
    """`count` labels that the film does not show and that nothing on it could be taken for."""
    candidates = [label for label in FINDINGS if label != but and not ambiguous(label, (*labels, *filter(None, [but])))]
    return [candidates[i] for i in rng.choice(len(candidates), size=min(count, len(candidates)), replace=False)]
