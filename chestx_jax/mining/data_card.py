"""What is in a mined set, and what could be answered without looking: counts, balance, confounds, blind baselines."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from chestx_jax.data.schema import Sample
from chestx_jax.eval.predictions.records import from_sample
from chestx_jax.eval.statistics.audit import audit
from chestx_jax.mining.llm import Mined
from chestx_jax.mining.questions import Question
from chestx_jax.mining.reference import NO_FINDING, Reference


def card(
    references: Sequence[Reference],
    items: Sequence[tuple[str, Question, Mined]],
    samples: Sequence[Sample],
    problems: Mapping[str, Any],
) -> dict[str, Any]:
    """The data card: `items` are all questions with their split and what was mined, `samples` those that are used."""
    used = [(split, question, mined) for split, question, mined in items if mined.reasoning]
    studies = {question.reference.study.id for _, question, _ in used}
    steps = [len(mined.reasoning.steps) for _, _, mined in used if mined.reasoning]
    return {
        "studies": len(references),
        "studies asked about": len(studies),
        "patients": len({question.reference.study.patient for _, question, _ in used}),
        "sources": _counts(question.reference.study.source for _, question, _ in used),
        "samples": {
            split: _counts(question.task for each, question, _ in used if each == split)
            for split in sorted({split for split, _, _ in used})
        },
        "steps a sample": round(sum(steps) / len(steps), 2) if steps else None,
        "repaired": _counts(mined.repaired for _, _, mined in used if mined.repaired),
        "refused": _counts(mined.refused[0] for _, _, mined in items if mined.refused[0]),
        "unanswered": sum(bool(mined.unanswered) for _, _, mined in items),
        "answers": _answers(question for _, question, _ in used),
        "labels": _label_counts(references),
        "basis of negatives": _counts(
            question.reference.statuses[label].basis
            for _, question, _ in used
            for label in question.named
            if label != NO_FINDING and question.reference.statuses[label].value == "absent"
        ),
        "views by answer": _views([question for _, question, _ in used]),
        "blind": audit([from_sample(sample, "") for sample in samples], [q.group or q.id for _, q, _ in used])
        if samples
        else {},
        **problems,
    }


def as_markdown(card: Mapping[str, Any]) -> str:
    """The card for people."""
    lines = ["# Data card", ""]
    for name, value in card.items():
        lines += _lines(name, value, 0)
    return "\n".join(lines) + "\n"


def _lines(name: str, value: Any, depth: int) -> list[str]:
    indent = "  " * depth
    if isinstance(value, Mapping):
        return [f"{indent}- {name}:", *(line for key, item in value.items() for line in _lines(key, item, depth + 1))]
    shown = f"{value:.3f}" if isinstance(value, float) else value
    return [f"{indent}- {name}: {shown}"]


def _counts(values: Any) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _answers(questions: Any) -> dict[str, dict[str, int]]:
    """How often each family's answers are which: letters, or labels of open questions."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for question in questions:
        counts[question.task].update([question.answer] if question.options else question.gold)
    return {task: dict(sorted(counter.items())) for task, counter in counts.items()}


def _label_counts(references: Sequence[Reference]) -> dict[str, dict[str, int]]:
    labels = references[0].statuses if references else {}
    return {label: _counts(reference.statuses[label].value for reference in references) for label in labels}


def _views(questions: Sequence[Question]) -> dict[str, dict[str, int]]:
    """Of the binary questions of each label, the views of the films by answer: a view that goes with the answer can be
    learned in place of the finding."""
    views: dict[str, Counter[str]] = defaultdict(Counter)
    for question in questions:
        if question.task == "binary":
            answer = "yes" if question.answer == "A" else "no"
            for film in question.reference.study.films[:1]:
                views[question.gold[0]][f"{answer}, {film.view}"] += 1
    return {label: dict(sorted(counter.items())) for label, counter in sorted(views.items())}
