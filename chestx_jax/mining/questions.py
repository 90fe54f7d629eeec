"""Which questions are asked of which studies, in the five task families, with no hint of the answer in their text."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from chestx_jax.data.questions import with_options
from chestx_jax.labels import LABELS
from chestx_jax.lexicon import Lexicon, relations
from chestx_jax.lexicon.lexicon import CHANGES
from chestx_jax.mining.groups import Candidate, limited, matched_groups
from chestx_jax.mining.reference import FINDINGS, NO_FINDING, Reference

LETTERS = "ABCD"
MOST = 5  # labels of an answer
NORMAL_SHARE = 0.2  # of anomaly questions, at most, so that guessing No Finding does not pay
# The findings whose change is asked for, as in MS-CXR-T (Bannur et al. 2023).
PROGRESSIVE = ("Consolidation", "Edema", "Pleural Effusion", "Pneumonia", "Pneumothorax")
BINARY = "Does this chest X-ray show {finding}?"
SINGLE = "Which finding is in this chest X-ray?"
MULTIPLE = "Which findings are in this chest X-ray?"
TEMPORAL = (
    "You are given two images: one reference image and one new image. Please identify the progression of {finding}."
)


class Pair(NamedTuple):
    """Two studies of a patient, and how one finding changed between them."""

    earlier: Reference
    current: Reference
    finding: str
    change: str  # of CHANGES


@dataclass(frozen=True)
class Question:
    """A question about one study, or about an earlier and a current one. `options` holds the labels of each option, or
    one of Yes, No or CHANGES; `answer` is a letter, or the labels of an open question."""

    id: str
    task: str
    text: str
    answer: str
    references: tuple[Reference, ...]
    gold: tuple[str, ...]  # labels; the asked one of binary and temporal questions
    options: tuple[tuple[str, ...], ...] = ()
    change: str = ""
    group: str = ""  # questions of one name share their options, and each of these is right once

    @property
    def reference(self) -> Reference:
        """Of the study that is asked about, the current one of two."""
        return self.references[-1]

    @property
    def named(self) -> tuple[str, ...]:
        """The labels that the reasoning must speak of."""
        labels = dict.fromkeys((*self.gold, *(label for option in self.options for label in option)))
        return tuple(label for label in labels if label in LABELS)


def binary(lexicon: Lexicon, references: Sequence[Reference], limit: int, rng: np.random.Generator) -> list[Question]:
    """Every label, as often of a study that shows it as of one that does not; of the latter half show something else,
    so that not every abnormal film is a yes."""
    del lexicon
    questions = []
    for label in FINDINGS:
        order = shuffled(references, rng)
        yes = [r for r in order if r.statuses[label].value == "present"]
        no = _alternating([r for r in order if r.statuses[label].value == "absent"])
        count = min(len(yes), len(no), limit or len(yes))
        for one, other in zip(yes[:count], no[:count], strict=True):
            group = f"{label}: {one.study.id} {other.study.id}"
            questions += [_binary(one, label, "A", group), _binary(other, label, "B", group)]
    return questions


def single(lexicon: Lexicon, references: Sequence[Reference], limit: int, rng: np.random.Generator) -> list[Question]:
    """Four labels (or No Finding), of which the film shows one."""
    candidates = [Candidate(r, (label,)) for r in shuffled(references, rng) for label in r.shown or _normal(r)]
    groups = matched_groups(relations(lexicon), limited(candidates, limit), rng)
    return [question for group in groups for question in _of_group("single", SINGLE, group, rng)]


def multiple(lexicon: Lexicon, references: Sequence[Reference], limit: int, rng: np.random.Generator) -> list[Question]:
    """The label sets of four films, of one size; one is this film's."""
    several = [Candidate(r, r.shown) for r in shuffled(references, rng) if 2 <= len(r.shown) <= MOST]
    groups = matched_groups(relations(lexicon), limited(several, limit), rng)
    return [question for group in groups for question in _of_group("multiple", MULTIPLE, group, rng)]


def anomaly(lexicon: Lexicon, references: Sequence[Reference], limit: int, rng: np.random.Generator) -> list[Question]:
    """All that the film shows, without options; asked where nothing is in doubt."""
    surely = [r for r in references if not any(r.doubts(label) for label in FINDINGS)]
    order = shuffled(surely, rng)
    abnormal = limited([Candidate(r, r.shown) for r in order if 1 <= len(r.shown) <= MOST], limit)
    normal = [Candidate(r, _normal(r)) for r in order if _normal(r)]
    count = int(len(abnormal) * NORMAL_SHARE / (1 - NORMAL_SHARE))
    chosen = [*abnormal, *normal[: min(count, limit or count)]]
    return [
        Question(
            _id(c.reference, "anomaly"), "anomaly", MULTIPLE, ", ".join(shuffled(c.gold, rng)), (c.reference,), c.gold
        )
        for c in chosen
    ]


def temporal(lexicon: Lexicon, references: Sequence[Reference], limit: int, rng: np.random.Generator) -> list[Question]:
    """How a finding changed since the patient's study before: each change as often as the others of a finding."""
    by_kind: dict[str, dict[str, list[Pair]]] = {finding: {change: [] for change in CHANGES[1:]} for finding in LABELS}
    for pair in shuffled(changed_pairs(lexicon, references), rng):
        by_kind[pair.finding][pair.change].append(pair)
    questions = []
    for pairs in by_kind.values():
        count = min(min(map(len, pairs.values())), limit or len(references))
        for three in zip(*(of_change[:count] for of_change in pairs.values()), strict=True):
            group = f"{three[0].finding}: {' '.join(pair.current.study.id for pair in three)}"
            questions += [_temporal(pair, group, rng) for pair in three]
    return questions


FAMILIES: dict[str, Callable[[Lexicon, Sequence[Reference], int, np.random.Generator], list[Question]]] = {
    "binary": binary,
    "single": single,
    "multiple": multiple,
    "anomaly": anomaly,
    "temporal": temporal,
}


def changed_pairs(lexicon: Lexicon, references: Sequence[Reference]) -> list[Pair]:
    """Findings with their change between two studies of a patient: by the set's readers, else by the later report about
    the study just before it."""
    by_patient: dict[str, list[Reference]] = defaultdict(list)
    for reference in references:
        by_patient[reference.study.patient].append(reference)
    pairs = []
    for of_patient in by_patient.values():
        by_id = {reference.study.id: reference for reference in of_patient}
        in_time = sorted((r for r in of_patient if r.study.order is not None), key=lambda r: r.study.order or 0)
        before = {later.study.id: earlier for earlier, later in pairwise(in_time)}
        for current in of_patient:
            read: dict[str, tuple[str, str]] = {
                change.finding.title(): (change.value, change.previous_study) for change in current.study.changes
            }
            if current.study.id in before and not read:
                previous = before[current.study.id].study.id
                read = {f: (change, previous) for f, change in _reported_changes(lexicon, current).items()}
            for finding, (change, previous) in read.items():
                if previous in by_id and finding in PROGRESSIVE:
                    pairs.append(Pair(by_id[previous], current, finding, change))
    return [pair for pair in pairs if _is_consistent(pair)]


def _reported_changes(lexicon: Lexicon, reference: Reference) -> dict[str, str]:
    """The change that a report tells of each finding, where it tells of one alone."""
    is_a = relations(lexicon).is_a
    changes: dict[str, set[str]] = defaultdict(set)
    for finding in reference.findings:
        for label in PROGRESSIVE:
            if finding.polarity and finding.change and is_a[finding.concept, LABELS.index(label)]:
                changes[label].add(CHANGES[finding.change])
    return {label: next(iter(values)) for label, values in changes.items() if len(values) == 1}


def _is_consistent(pair: Pair) -> bool:
    """Whether both studies can be as the change says: something cannot be stable that was not there."""
    before, after = (r.statuses[pair.finding].value for r in (pair.earlier, pair.current))
    fits = {
        "stable": [("present", "present")],
        "worsening": [("present", "present"), ("absent", "present")],
        "improving": [("present", "present"), ("present", "absent")],
    }
    return (before, after) in fits[pair.change]


def _normal(reference: Reference) -> tuple[str, ...]:
    return (NO_FINDING,) if reference.statuses[NO_FINDING].value == "present" else ()


def shuffled(items: Sequence, rng: np.random.Generator) -> list:
    """The items in random order."""
    return [items[i] for i in rng.permutation(len(items))]


def _alternating(references: Sequence[Reference]) -> list[Reference]:
    """Studies that show something and studies that do not by turns, as long as there are both."""
    abnormal = [r for r in references if r.shown]
    normal = [r for r in references if not r.shown]
    count = min(len(abnormal), len(normal))
    mixed = [r for pair in zip(abnormal, normal, strict=False) for r in pair]
    return [*mixed, *abnormal[count:], *normal[count:]]


def _id(reference: Reference, task: str, label: str = "") -> str:
    return "-".join(filter(None, (reference.study.id, task, label.lower().replace(" ", "-"))))


def _binary(reference: Reference, label: str, letter: str, group: str) -> Question:
    text = with_options(BINARY.format(finding=label.lower()), ("Yes", "No"))
    return Question(
        _id(reference, "binary", label),
        "binary",
        text,
        letter,
        (reference,),
        (label,),
        (("Yes",), ("No",)),
        group=group,
    )


def _of_group(task: str, stem: str, group: Sequence[Candidate], rng: np.random.Generator) -> list[Question]:
    """A question for each study of a group; the right options of the four have four letters."""
    questions = []
    name = " ".join(candidate.reference.study.id for candidate in group)
    for candidate, place in zip(group, rng.permutation(len(group)), strict=True):
        others = shuffled([other for other in group if other is not candidate], rng)
        order = [*others[:place], candidate, *others[place:]]
        options = tuple(tuple(shuffled(each.gold, rng)) for each in order)
        text = with_options(stem, [", ".join(labels).lower() for labels in options])
        reference = candidate.reference
        id = _id(reference, task, candidate.gold[0] if len(candidate.gold) == 1 else "")
        questions.append(Question(id, task, text, LETTERS[place], (reference,), candidate.gold, options, group=name))
    return questions


def _temporal(pair: Pair, group: str, rng: np.random.Generator) -> Question:
    order = shuffled(CHANGES[1:], rng)
    text = with_options(TEMPORAL.format(finding=pair.finding.lower()), order)
    letter = LETTERS[order.index(pair.change)]
    options = tuple((change,) for change in order)
    id = _id(pair.current, "temporal", pair.finding)
    return Question(
        id, "temporal", text, letter, (pair.earlier, pair.current), (pair.finding,), options, pair.change, group
    )
