"""Practice in seeing: a training film and some labels to go through, each present or absent, without reasoning.

A chain of reasoning is mostly words that do not depend on the film, and a question tells one thing of it. A model whose
eyes are not trained yet learns more from several labels at once, if each is as often present as absent: what is rare is
else learnt to be absent, unseen. It is what the `base` stage of configs/sft.py:nih trains on, in the form of the
phantom's (`phantom.pretraining.option_checks`).
"""

import string
from collections.abc import Iterable, Iterator

import numpy as np

from chestx_jax.data.schema import Sample
from chestx_jax.mining.films import shown_films
from chestx_jax.mining.questions import shuffled
from chestx_jax.mining.reference import FINDINGS, Reference

ROUNDS = 8  # films without a label are many: each round has others beside those that show it
MOST = 100  # films that show a label, in a round, so that frequent labels do not crowd out rare ones
_QUESTION = "Which of these findings are in this chest X-ray?"


def checks(references: Iterable[Reference], rng: np.random.Generator) -> Iterator[Sample]:
    """The samples of `ROUNDS` rounds, their images being paths from the prepared folder. In a round each label stands
    under as many films that show it as under films that do not."""
    filmed = [reference for reference in references if shown_films(reference.study)]
    for number in range(ROUNDS):
        asked: dict[int, list[str]] = {}
        for label in FINDINGS:
            of_value = {
                value: shuffled([i for i, r in enumerate(filmed) if r.statuses[label].value == value], rng)
                for value in ("present", "absent")
            }
            count = min(MOST, *map(len, of_value.values()))
            for index in (*of_value["present"][:count], *of_value["absent"][:count]):
                asked.setdefault(index, []).append(label)
        for index in sorted(asked):
            yield _check(filmed[index], shuffled(asked[index], rng), number)


def _check(reference: Reference, labels: list[str], number: int) -> Sample:
    """A film and labels, each with its verdict."""
    study, films = reference.study, shown_films(reference.study)
    named = [
        (letter, label.lower(), reference.statuses[label].value)
        for letter, label in zip(string.ascii_uppercase, labels, strict=False)
    ]
    return Sample(
        id=f"{study.id}-checks-{number}",
        task="anomaly",
        question="\n".join([_QUESTION, *(f"{letter}) {name}" for letter, name, _ in named)]),
        answer=" ".join(f"Option ({letter}) {name} {value}." for letter, name, value in named),
        images=tuple(film.path for film in films),
        steps=(),
        reports=(),
        source=study.source,
        patient=study.patient,
        views=tuple(film.view for film in films),
    )
