"""Practice for the base stage: what a pretrained model arrives with, seeing films and reasoning about what is said."""

import string
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from chestx_jax.data.schema import Sample
from chestx_jax.phantom.cases import FINDINGS, ambiguous, drawn
from chestx_jax.phantom.drawing.regions import region_labels, region_text
from chestx_jax.phantom.drawing.render import Job
from chestx_jax.phantom.text import phrases
from chestx_jax.phantom.text.questions import Study, number, shuffled
from chestx_jax.phantom.text.reasoning import verdict

_ALPHABET = string.ascii_uppercase
_ASK_CHECKS = "Which of these findings are in this chest X-ray?"
_ASK_REGIONS = "Describe this chest X-ray region by region."


def region_captions(studies: Sequence[Study], jobs: Mapping[str, Job], name: str) -> list[Sample]:
    """For each film of the studies, what shows in each of its regions: the densest practice in seeing there is.

    `jobs` are the films' drawing jobs by path.
    """
    samples = []
    for study in studies:
        for image, report in zip(study.images, study.reports, strict=True):
            job = jobs[image]
            text = region_text(region_labels(job.patient, job.film, job.findings), phrases.name)
            samples.append(Sample("", "anomaly", _ASK_REGIONS, text, (image,), (), (report,), "", drawn(job.findings)))
    return number(samples, name, "regions")


def told(samples: Sequence[Sample], regions: Sequence[Sample]) -> list[Sample]:
    """The questions about one film with the film told instead of shown: one word for each of its regions.

    Whatever there is to learn about reading a question and reasoning towards its answer is learnt from text alone,
    at a fraction of a film's cost; a film's visual tokens then have to mean what the words mean.
    """
    words = {sample.images[0]: sample.answer for sample in regions}
    alone = [sample for sample in samples if len(sample.images) == 1]
    return [
        replace(sample, images=(), question=f"{words[sample.images[0]]}\n{sample.question}", source="told")
        for sample in alone
    ]


def checks(regions: Sequence[Sample], name: str, rng: np.random.Generator) -> list[Sample]:
    """A film and many options to go through, each said to be present or absent: the way the reasoning about a choice
    begins, and nothing else."""
    samples = []
    for film in regions:
        shown = [truth.partition("|")[0] for truth in film.drawn or ()]
        others = [label for label in FINDINGS if not ambiguous(label, shown)]
        labels = shuffled([*shown, *shuffled(others, rng)[: len(shown) + 2]], rng)
        listed = "\n".join(f"{letter}) {phrases.name(label)}" for letter, label in zip(_ALPHABET, labels, strict=False))
        said = " ".join(verdict(letter, [label], shown) for letter, label in zip(_ALPHABET, labels, strict=False))
        samples.append(replace(film, question=f"{_ASK_CHECKS}\n{listed}", answer=said))
    return number(samples, name, "checks")
