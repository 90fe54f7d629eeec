"""Practice in seeing, of training films and without reasoning: label by label, and two labels of a film to go through.

A chain of reasoning is mostly words that do not depend on the film. A model whose eyes are not trained yet learns more
from verdicts alone. Those at the film's own tokens (`labels`) are many for little work, all labels of a film at once,
as rare as they are; in the checks each label is as often present as absent, and the verdict is on the label that the
text names, in the form of the phantom's (`phantom.pretraining`). It is what the `base` stage of configs/sft.py:nih
trains on.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from chestx_jax.data.schema import Sample
from chestx_jax.mining.films import shown_films
from chestx_jax.mining.questions import shuffled
from chestx_jax.mining.reference import FINDINGS, Reference
from chestx_jax.sources.study import Film

ROUNDS = 8  # films without a label are many: each round has others beside those that show it
MOST = 100  # films that show a label, in a round, so that frequent labels do not crowd out rare ones
_QUESTION = "Which of these findings are in this chest X-ray?"


def labels(references: Iterable[Reference]) -> Iterator[Sample]:
    """Each film with a word for each of FINDINGS, `present`, `absent` or `uncertain`, for a source whose targets are of
    the `film`."""
    for reference in references:
        if films := shown_films(reference.study)[:1]:
            answer = " ".join(reference.statuses[label].value for label in FINDINGS)
            yield _sample(reference, films, "labels", "Is each label present?", answer)


def checks(references: Iterable[Reference], rng: np.random.Generator) -> Iterator[Sample]:
    """The samples of `ROUNDS` rounds, their images being paths from the prepared folder.

    In a round each label is checked on as many films that show it as on films that do not, but for a few that are left
    over. Always two labels are asked for: how many there are would else tell of films that show much.
    """
    filmed = [reference for reference in references if shown_films(reference.study)]
    for number in range(ROUNDS):
        for index, labels in _pairs(filmed, rng):
            yield _check(filmed[index], labels, number)


def _pairs(references: Sequence[Reference], rng: np.random.Generator) -> Iterator[tuple[int, list[str]]]:
    """Studies by their number, with two labels each, of one round."""
    asked: list[list[str]] = [[] for _ in references]
    absent: list[str] = []
    for label in FINDINGS:
        showing = [i for i, r in enumerate(references) if r.statuses[label].value == "present"]
        lacking = sum(r.statuses[label].value == "absent" for r in references)
        chosen = shuffled(showing, rng)[: min(MOST, lacking)]
        absent += [label] * len(chosen)
        for index in chosen:
            asked[index].append(label)
    odd = {index for index, labels in enumerate(asked) if len(labels) % 2}
    open_ones: set[int] = set()
    for label in shuffled(absent, rng):
        lacks = lambda i, label=label: references[i].statuses[label].value == "absent" and label not in asked[i]  # noqa: E731
        waiting = [i for i in shuffled(sorted(odd or open_ones), rng)[:50] if lacks(i)]
        pool = waiting or [i for i in rng.integers(len(references), size=50).tolist() if lacks(i)]
        if pool:
            asked[pool[0]].append(label)
            for group in (odd, open_ones):
                group.discard(pool[0])
            if len(asked[pool[0]]) % 2:
                open_ones.add(pool[0])
    for index, labels in enumerate(asked):
        labels = shuffled(labels, rng)
        yield from ((index, labels[i : i + 2]) for i in range(0, len(labels) - 1, 2))


def _check(reference: Reference, labels: Sequence[str], number: int) -> Sample:
    """A film and labels, each with its verdict."""
    named = [
        (letter, label.lower(), reference.statuses[label].value) for letter, label in zip("AB", labels, strict=True)
    ]
    question = "\n".join([_QUESTION, *(f"{letter}) {name}" for letter, name, _ in named)])
    answer = " ".join(f"Option ({letter}) {name} {value}." for letter, name, value in named)
    return _sample(reference, shown_films(reference.study), f"checks-{number}", question, answer)


def _sample(reference: Reference, films: Sequence[Film], name: str, question: str, answer: str) -> Sample:
    return Sample(
        id=f"{reference.study.id}-{name}",
        task="anomaly",
        question=question,
        answer=answer,
        images=tuple(film.path for film in films),
        steps=(),
        reports=(),
        source=reference.study.source,
        patient=reference.study.patient,
        views=tuple(film.view for film in films),
    )
