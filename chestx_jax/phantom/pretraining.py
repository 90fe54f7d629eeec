"""Samples of the base stage, which gives a random model what pretraining would: seeing films and reasoning on text."""

import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations, product

import numpy as np

from chestx_jax.data.schema import Sample
from chestx_jax.phantom.cases import FINDINGS, PROGRESSIVE, draw_findings, ground_truth, is_ambiguous
from chestx_jax.phantom.drawing.regions import region_labels, region_text
from chestx_jax.phantom.drawing.render import Job
from chestx_jax.phantom.finding import CHANGES, SEVERITIES
from chestx_jax.phantom.text import phrases, reasoning
from chestx_jax.phantom.text.questions import Study, option_lines, shuffled, with_ids

_CHECK_QUESTION = "Which of these findings are in this chest X-ray?"
_REGION_QUESTION = "Describe this chest X-ray region by region."
_EXTENT_QUESTION = "You are given two images: one reference image and one new image. How extensive is the {finding}?"


def region_captions(studies: Sequence[Study], jobs: Mapping[str, Job], name: str) -> list[Sample]:
    """One sample for each film of the studies: what shows in each of its regions, a word each.

    `jobs` are the films' drawing jobs by path.
    """
    samples = []
    for study in studies:
        for image, report in zip(study.images, study.reports, strict=True):
            job = jobs[image]
            text = region_text(region_labels(job.patient, job.film, job.findings), phrases.region_word)
            truth = ground_truth(job.findings)
            samples.append(Sample("", "anomaly", _REGION_QUESTION, text, (image,), (), (report,), "", truth))
    return with_ids(samples, name, "regions")


def region_extents(regions: Sequence[Sample], jobs: Mapping[str, Job], name: str) -> list[Sample]:
    """The region captions with, in place of each finding whose progression can be asked for, how extensive it is.

    A visual token is taught the finding by one caption and its extent by the other: it comes to hold both.
    """
    samples = []
    for sample in regions:
        findings = [f for f in jobs[sample.images[0]].findings if f.label in PROGRESSIVE]
        extent = {phrases.region_word(finding.label): phrases.extent(finding) for finding in findings}
        if findings:
            words = [extent.get(word, word) for word in sample.answer.split()]
            samples.append(replace(sample, answer=" ".join(words)))
    return with_ids(samples, name, "extents")


def pair_extents(studies: Sequence[Study], name: str) -> list[Sample]:
    """How extensive the finding whose progression is asked for is on each film of a pair."""
    samples = []
    for study in studies:
        if study.case.earlier is not None:
            changed, films = study.case.changed, (study.case.earlier, study.case.findings)
            before, after = (phrases.extent(f) for film in films for f in film if f.label == changed)
            question = _EXTENT_QUESTION.format(finding=phrases.name(changed))
            answer = f"reference {before}, new {after}"
            truth = ground_truth(study.case.findings)
            samples.append(Sample("", "anomaly", question, answer, study.images, (), study.reports, "", truth))
    return with_ids(samples, name, "extents")


def text_only(samples: Sequence[Sample], captions: Mapping[tuple[str, ...], str]) -> list[Sample]:
    """The questions with the captions of their films in words instead of the images, where there is one.

    Reading a question and reasoning towards its answer are then learnt from text alone, at a fraction of a film's cost;
    what remains is to give the visual tokens the meaning of these words.
    """
    return [
        replace(sample, images=(), question=f"{captions[sample.images]}\n{sample.question}", source="told")
        for sample in samples
        if sample.images in captions
    ]


def told_changes(name: str, rng: np.random.Generator) -> list[Sample]:
    """Every change from one extent to another, told in words: whether it is worse, better or the same, which option."""
    samples = []
    for label, before, after, order in product(PROGRESSIVE, SEVERITIES, SEVERITIES, permutations(CHANGES)):
        (finding,) = draw_findings([label], rng)
        one, other = (replace(finding, severity=severity) for severity in (before, after))
        steps = reasoning.change_steps(one, other, order)
        letter = steps[-1].partition("(")[2][0]
        question = f"{' '.join(steps[:2])} {option_lines(order)}"
        samples.append(Sample("", "temporal", question, letter, (), steps, (), "", ()))
    return with_ids(shuffled(samples, rng), name, "told")


def option_checks(regions: Sequence[Sample], name: str, rng: np.random.Generator) -> list[Sample]:
    """A film and a list of options, each answered as present or absent: how the reasoning about a choice begins."""
    samples = []
    for film in regions:
        shown = [truth.partition("|")[0] for truth in film.drawn or ()]
        others = [label for label in FINDINGS if not is_ambiguous(label, shown)]
        labels = shuffled([*shown, *shuffled(others, rng)[: len(shown) + 2]], rng)
        options = list(zip(string.ascii_uppercase, labels, strict=False))
        option_lines = "\n".join(f"{letter}) {phrases.name(label)}" for letter, label in options)
        answer = " ".join(reasoning.option_verdict(letter, [label], shown) for letter, label in options)
        samples.append(replace(film, question=f"{_CHECK_QUESTION}\n{option_lines}", answer=answer))
    return with_ids(samples, name, "checks")
