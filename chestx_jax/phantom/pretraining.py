"""Samples of the base stage, which gives a random model what pretraining would: seeing films and reasoning on text."""

import string
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from chestx_jax.data.schema import Sample
from chestx_jax.phantom.cases import FINDINGS, ground_truth, is_ambiguous
from chestx_jax.phantom.drawing.regions import region_labels, region_text
from chestx_jax.phantom.drawing.render import Job
from chestx_jax.phantom.text import phrases
from chestx_jax.phantom.text.questions import Study, shuffled, with_ids
from chestx_jax.phantom.text.reasoning import option_verdict

_CHECK_QUESTION = "Which of these findings are in this chest X-ray?"
_REGION_QUESTION = "Describe this chest X-ray region by region."


def region_captions(studies: Sequence[Study], jobs: Mapping[str, Job], name: str) -> list[Sample]:
    """One sample for each film of the studies: what shows in each of its regions, a word each.

    `jobs` are the films' drawing jobs by path.
    """
    samples = []
    for study in studies:
        for image, report in zip(study.images, study.reports, strict=True):
            job = jobs[image]
            text = region_text(region_labels(job.patient, job.film, job.findings), phrases.name)
            truth = ground_truth(job.findings)
            samples.append(Sample("", "anomaly", _REGION_QUESTION, text, (image,), (), (report,), "", truth))
    return with_ids(samples, name, "regions")


def text_only(samples: Sequence[Sample], regions: Sequence[Sample]) -> list[Sample]:
    """The questions about one film with the film's region caption in words instead of the image.

    Reading a question and reasoning towards its answer are then learnt from text alone, at a fraction of a film's cost;
    what remains is to give the visual tokens the meaning of these words.
    """
    captions = {sample.images[0]: sample.answer for sample in regions}
    return [
        replace(sample, images=(), question=f"{captions[sample.images[0]]}\n{sample.question}", source="told")
        for sample in samples
        if len(sample.images) == 1
    ]


def option_checks(regions: Sequence[Sample], name: str, rng: np.random.Generator) -> list[Sample]:
    """A film and a list of options, each answered as present or absent: how the reasoning about a choice begins."""
    samples = []
    for film in regions:
        shown = [truth.partition("|")[0] for truth in film.drawn or ()]
        others = [label for label in FINDINGS if not is_ambiguous(label, shown)]
        labels = shuffled([*shown, *shuffled(others, rng)[: len(shown) + 2]], rng)
        options = list(zip(string.ascii_uppercase, labels, strict=False))
        option_lines = "\n".join(f"{letter}) {phrases.name(label)}" for letter, label in options)
        answer = " ".join(option_verdict(letter, [label], shown) for letter, label in options)
        samples.append(replace(film, question=f"{_CHECK_QUESTION}\n{option_lines}", answer=answer))
    return with_ids(samples, name, "checks")
