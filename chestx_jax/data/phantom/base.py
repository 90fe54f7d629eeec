"""Practice for the base stage: what a pretrained model arrives with, seeing films and looking options up."""

import string
from collections.abc import Mapping, Sequence

import numpy as np

from chestx_jax.data.phantom import phrases, reasoning
from chestx_jax.data.phantom.cases import FINDINGS, IS_A, draw_case, drawn
from chestx_jax.data.phantom.finding import CHANGES, Finding
from chestx_jax.data.phantom.questions import LETTERS, Study, labels_without_clash, number, option_lines, shuffled
from chestx_jax.data.phantom.regions import region_labels, region_text
from chestx_jax.data.phantom.render import Job
from chestx_jax.data.schema import Sample

_ASK_CAPTION = "Describe this chest X-ray."
_ALPHABET = string.ascii_uppercase
_ASK_LETTERS = "Give the letter of each line."
_ASK_REGIONS = "Describe this chest X-ray region by region."


def captions(studies: Sequence[Study], name: str, rng: np.random.Generator) -> list[Sample]:
    """One dense caption for each film of the studies (both films of a follow-up), as an open question without options.

    The caption names all twelve labels, each followed by where it is (left, right, bilateral, with the zone), yes or
    no: "edema bilateral, fracture no, …". It runs round a fixed circle of labels from a random start, so that a label's
    place in the text says nothing while its name is easy to foretell.
    """
    samples = []
    for study in studies:
        films = [film for film in (study.case.earlier, study.case.findings) if film is not None]
        for image, report, findings in zip(study.images, study.reports, films, strict=True):
            text = _caption(findings, int(rng.integers(len(FINDINGS))))
            truth = drawn(findings)
            samples.append(Sample("", "anomaly", _ASK_CAPTION, text, (image,), (), (report,), "", truth))
    return number(shuffled(samples, rng), name, "captions")


def region_captions(
    studies: Sequence[Study], jobs: Mapping[str, Job], name: str, rng: np.random.Generator
) -> list[Sample]:
    """For each film of the studies, what shows in each of its regions: the densest practice in seeing there is.

    `jobs` are the films' drawing jobs by path.
    """
    samples = []
    for study in studies:
        for image, report in zip(study.images, study.reports, strict=True):
            job = jobs[image]
            text = region_text(region_labels(job.patient, job.film, job.findings), phrases.name)
            samples.append(Sample("", "anomaly", _ASK_REGIONS, text, (image,), (), (report,), "", drawn(job.findings)))
    return number(shuffled(samples, rng), name, "regions")


def lookups(count: int, name: str, rng: np.random.Generator) -> list[Sample]:
    """Text-only practice without a film: which option says what a sentence says.

    A third asks for a label by name, a third for a label set, a third states findings in words and then asks as the
    real questions do. The one step is the sentence with which the reasoning of a real question ends.
    """
    makers = (_by_name, _by_set, _by_words)
    return number([makers[i % len(makers)](rng) for i in rng.permutation(count)], name, "lookup")


def letters(count: int, name: str, rng: np.random.Generator) -> list[Sample]:
    """Text-only practice with many look-ups a sample: lettered lines, one label each, then each label with its letter.

    The labels are named in one fixed order, so that the letters alone have to be found.
    """
    samples = []
    for _ in range(count):
        size = int(rng.choice((4, 8, 12)))
        lines = [FINDINGS[i] for i in rng.permutation(len(FINDINGS))[:size]]
        listed = "\n".join(f"{letter}) {phrases.name(label)}" for letter, label in zip(_ALPHABET, lines, strict=False))
        named = [label for label in FINDINGS if label in lines]
        said = ", ".join(f"{phrases.name(label)} {_ALPHABET[lines.index(label)]}" for label in named)
        question = f"{_ASK_LETTERS}\n{listed}"
        samples.append(Sample("", "anomaly", question, said, (), (), (), "", None))
    return number(samples, name, "letters")


def _caption(findings: Sequence[Finding], start: int) -> str:
    where = {finding.label: _where(finding) for finding in findings}
    for label in set(where) & set(IS_A):  # a film with edema does show a lung opacity
        where.setdefault(IS_A[label], "yes")
    circle = [*FINDINGS[start:], *FINDINGS[:start]]
    return ", ".join(f"{phrases.name(label)} {where.get(label, 'no')}" for label in circle)


def _where(finding: Finding) -> str:
    side = "bilateral" if finding.side == "both" else finding.side
    return " ".join(filter(None, (side, finding.zone))) or "yes"


def _by_name(rng: np.random.Generator) -> Sample:
    labels = labels_without_clash(int(rng.choice((2, 3, 4))), rng)
    at = int(rng.integers(len(labels)))
    question = f"{option_lines([phrases.name(label) for label in labels])}\nWhich option is {phrases.name(labels[at])}?"
    return _lookup("single", question, at, reasoning.conclude([labels[at]]))


def _by_set(rng: np.random.Generator) -> Sample:
    if rng.random() < 0.3:
        order = shuffled(CHANGES, rng)
        at = int(rng.integers(3))
        step = f"The {phrases.name(str(rng.choice(FINDINGS)))} is {order[at]}."
        return _lookup("single", f"{option_lines(order)}\nWhich option is {order[at]}?", at, step)
    size = int(rng.choice((2, 3)))
    sets = [labels_without_clash(size, rng) for _ in range(4)]
    while len({frozenset(labels) for labels in sets}) < 4:
        sets = [labels_without_clash(size, rng) for _ in range(4)]
    at = int(rng.integers(4))
    asked = shuffled(sets[at], rng)
    options = option_lines([", ".join(map(phrases.name, labels)) for labels in sets])
    return _lookup(
        "multiple", f"{options}\nWhich option is {phrases.listing(asked, 'and')}?", at, reasoning.conclude(asked)
    )


def _by_words(rng: np.random.Generator) -> Sample:
    findings = draw_case(rng, "").findings
    while not findings:
        findings = draw_case(rng, "").findings
    asked = findings[0]
    labels = labels_without_clash(4, rng)
    while sum(finding.label in labels for finding in findings) != 1 or asked.label not in labels:
        labels = labels_without_clash(4, rng)
    words = " ".join(phrases.present(finding) for finding in findings)
    question = f"{words}\nWhich finding is this? {option_lines([phrases.name(label) for label in labels])}"
    return _lookup("single", question, labels.index(asked.label), reasoning.conclude([asked.label]))


def _lookup(task: str, question: str, at: int, step: str) -> Sample:
    return Sample("", task, question, LETTERS[at], (), (f"{step[:-1]}, option {LETTERS[at]}.",), (), "", None)
