"""Reasoning by rules: plan, evidence and chain from what a study's report and labels say, in a radiologist's order."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from chestx_jax.findings import ASSERTED, Finding
from chestx_jax.labels import LABELS
from chestx_jax.lexicon import Lexicon, relations
from chestx_jax.mining import plans, wording
from chestx_jax.mining.questions import LETTERS, Question
from chestx_jax.mining.reference import FINDINGS, NO_FINDING, Reference, overlap

_ORDER = ("devices_and_surgery", "heart_and_mediastinum", "lungs", "pleura", "diaphragm", "chest_wall", "")
_OTHERS = {"binary": 2, "single": 1, "multiple": 1, "anomaly": 3, "temporal": 1}  # findings that are not asked for
_OTHER_WEIGHT = 0.2  # of the least finding worth a word
_TREND = {
    "stable": ("The {label} has not changed.", "The {label} is unchanged."),
    "worsening": ("The {label} has increased.", "The {label} has worsened."),
    "improving": ("The {label} has decreased.", "The {label} has improved."),
}


class Reasoning(NamedTuple):
    """What is mined for a question: where to look for each label, what the report says of each, and the steps."""

    plan: dict[str, str]
    evidence: list[dict[str, str]]
    steps: tuple[str, ...]


class _Statement(NamedTuple):
    region: str
    text: str


def reason(lexicon: Lexicon, question: Question, rng: np.random.Generator, verdicts: bool = False) -> Reasoning:
    """The reasoning of a question by rules, with `verdicts` (`MineConfig.verdicts`) after the plan. It is to be read
    back (`readback.problems`), as any other."""
    way = lambda: int(rng.integers(1 << 16))  # noqa: E731
    opening = plans.opening(question.named, question.task, way())
    two = question.task == "temporal"
    middle = _two_films(lexicon, question, way()) if two else _one_film(lexicon, question, rng)
    verdict_steps = tuple(_verdicts(question)) if verdicts else ()
    steps = (opening, *verdict_steps, *middle, _conclusion(lexicon, question, way()))
    return Reasoning(plans.plan(question.named), evidence(question), steps)


def evidence(question: Question) -> list[dict[str, str]]:
    """For each label that the question names, and each of its films, what the report says; what it does not mention is
    marked as taken for normal."""
    films = ("",) if len(question.references) == 1 else ("reference", "new")
    return [
        evidence_entry(label, reference, film)
        for film, reference in zip(films, question.references, strict=True)
        for label in question.named
    ]


def evidence_entry(label: str, reference: Reference, film: str = "") -> dict[str, str]:
    """What a study says of a label, on one of two films where there are two."""
    status = reference.statuses[label]
    basis = "not mentioned, taken as normal" if status.basis == "not mentioned" else status.basis
    entry = {"finding": label, "status": status.value, "basis": basis, "statement": status.statement}
    return entry if not film else {"film": film, **entry}


def seen(lexicon: Lexicon, reference: Reference) -> list[dict[str, str]]:
    """The findings of a film in words, with side, place and severity."""
    entries = []
    for finding in positive_findings(lexicon, reference):
        if text := wording.present(lexicon, finding, 0):
            name = lexicon.concepts[finding.concept].name
            entries.append({"finding": name, "status": "present", "seen as": text})
    return entries


def _verdicts(question: Question) -> Iterator[str]:
    """The asked finding as present or absent; of several options each up to the right one, by the first of its labels
    that is absent, else by its first."""
    statuses = question.reference.statuses
    if question.task == "binary":
        (label,) = question.gold
        yield f"Asked: {label.lower()} {statuses[label].value}."
    elif question.task in ("single", "multiple"):
        for letter, labels in zip(LETTERS[: LETTERS.index(question.answer) + 1], question.options, strict=False):
            decisive = next((label for label in labels if statuses[label].value == "absent"), labels[0])
            yield f"Option ({letter}) {decisive.lower()} {statuses[decisive].value}."


def _one_film(lexicon: Lexicon, question: Question, rng: np.random.Generator) -> list[str]:
    """What the film shows of what is asked and of the rest, by region."""
    tables, reference = relations(lexicon), question.reference
    asked = _asked_findings(lexicon, question)
    others = [f for f in positive_findings(lexicon, reference) if f not in asked]
    others.sort(key=lambda f: -float(tables.weight[f.concept]))
    absent = [label for label in question.named if reference.statuses[label].value == "absent" and label != NO_FINDING]
    absent += _further_denials(reference, absent, 3 - len(absent), rng)
    if question.gold == (NO_FINDING,) and not absent:  # "no active disease" and no more
        absent = ["Pneumonia", "Edema", "Pneumothorax"]
    statements = []
    for finding in [*asked, *others[: _OTHERS[question.task]]]:
        text = wording.present(lexicon, finding, int(rng.integers(1 << 16)))
        if text:
            statements.append(_Statement(lexicon.concepts[finding.concept].region, text))
    statements += _denials(lexicon, absent, rng)
    return list(_in_order(lexicon, statements, rng))


def _asked_findings(lexicon: Lexicon, question: Question) -> list[Finding]:
    """For each label in question that is present, the findings that show it, at most two; of a label that the set's
    labels alone give, the label itself."""
    is_a = relations(lexicon).is_a
    asked: dict[int, Finding] = {}
    for label in question.named:
        if label == NO_FINDING or question.reference.statuses[label].value != "present":
            continue
        index = LABELS.index(label)
        shown = [f for f in positive_findings(lexicon, question.reference, 0.0) if is_a[f.concept, index]]
        shown.sort(key=lambda f: -_detail(f))
        for finding in shown[:2] or [Finding(index, 1, ASSERTED)]:
            asked[finding.concept] = finding
    return list(asked.values())


def positive_findings(lexicon: Lexicon, reference: Reference, least: float = _OTHER_WEIGHT) -> list[Finding]:
    """The report's asserted findings of some clinical weight: no catch-alls, nothing that it also denies, and none of
    which it states a kind on the same side and says as much of it ("effusion" beside "a meniscus")."""
    tables = relations(lexicon)
    denied = {f.concept for f in reference.findings if f.polarity == 0}
    shown = [
        f
        for f in reference.findings
        if f.polarity == 1 and f.certainty == ASSERTED and tables.weight[f.concept] >= least
        and tables.counted[f.concept] and f.concept not in denied
    ]  # fmt: skip

    def is_told_by(general: Finding, kind: Finding) -> bool:
        closer = kind is not general and tables.is_a[kind.concept, general.concept] and overlap(general, kind)
        return closer and _detail(kind) >= _detail(general)

    return [finding for finding in shown if not any(is_told_by(finding, other) for other in shown)]


def _detail(finding: Finding) -> int:
    """How much is said of a finding: side, place, severity."""
    return bool(finding.side) + bool(finding.site) + bool(finding.severity)


def _further_denials(reference: Reference, taken: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """Labels that the report itself denies, or a labeller, other than those already spoken of."""
    sure = (("absent", "stated"), ("absent", "labels"))
    stated = [label for label in FINDINGS if reference.statuses[label][:2] in sure and label not in taken]
    return [stated[i] for i in rng.permutation(len(stated))[: max(count, 0)]]


def _denials(lexicon: Lexicon, labels: Sequence[str], rng: np.random.Generator) -> Iterator[_Statement]:
    """One sentence for the absent labels of each region; heart and mediastinum have sentences of their own."""
    for region in _ORDER:
        of_region = [label for label in labels if lexicon.concepts[LABELS.index(label)].region == region]
        together = region != "heart_and_mediastinum"
        for group in [of_region] if together and of_region else [[label] for label in of_region]:
            concepts = tuple(LABELS.index(label) for label in group)
            way = int(rng.integers(1 << 16))
            text = wording.absent(lexicon, concepts, way)
            for sentence in [text] if text else filter(None, (wording.absent(lexicon, (c,), way) for c in concepts)):
                yield _Statement(region, sentence)


def _in_order(lexicon: Lexicon, statements: Sequence[_Statement], rng: np.random.Generator) -> Iterator[str]:
    """The statements by region, some of them with words that lead over to it."""
    earlier = ""
    for region, text in sorted(statements, key=lambda statement: _ORDER.index(statement.region)):
        leads = region != earlier and rng.random() < 0.6
        yield wording.led(lexicon, region, text, int(rng.integers(1 << 16))) if leads else text
        earlier = region


def _two_films(lexicon: Lexicon, question: Question, way: int) -> list[str]:
    """The finding on either film, and how it changed."""
    (label,) = question.gold
    steps = []
    for film, reference in zip(("reference", "new"), question.references, strict=True):
        present = reference.statuses[label].value == "present"
        is_a = relations(lexicon).is_a[:, LABELS.index(label)]
        shown = [finding for finding in positive_findings(lexicon, reference) if is_a[finding.concept]]
        finding = (shown or [Finding(LABELS.index(label), 1, ASSERTED)])[0]._replace(change=0, film=0)
        text = wording.on_film(lexicon, finding if present else finding._replace(polarity=0), film)
        steps.append(text)
    trend = _TREND[question.change]
    return [*steps, trend[way % len(trend)].format(label=wording.noun(lexicon, LABELS.index(label)))]


def _in_answer(question: Question) -> Sequence[str]:
    """The labels of the right answer in its own order."""
    if question.task == "anomaly":
        return question.answer.split(", ")
    return question.options[LETTERS.index(question.answer)] if question.task == "multiple" else question.gold


def _kinds(lexicon: Lexicon, question: Question) -> list[str]:
    """What shows the asked label without being it by name ("atelectasis" of an opacity)."""
    concepts = [finding.concept for finding in _asked_findings(lexicon, question)]
    if LABELS.index(question.gold[0]) in concepts:
        return []
    return [wording.phrase(lexicon, concept) for concept in concepts if wording.is_plain(lexicon, concept)]


def _conclusion(lexicon: Lexicon, question: Question, way: int) -> str:
    """The step that ends in the answer."""
    letter, first = question.answer, question.gold[0]
    nouns = [wording.phrase(lexicon, LABELS.index(label)) for label in _in_answer(question)]
    listed = wording.listing(nouns, "and")
    bare = wording.noun(lexicon, LABELS.index(first))
    verb = "are" if len(nouns) > 1 or wording.is_plural(lexicon, LABELS.index(first)) else "is"
    forms: tuple[str, ...]
    if question.task == "anomaly":
        forms = (f"The film thus shows {listed}.", f"In all, {listed} {verb} present.")
        normal = ("The film is normal: no finding.", "The film shows no finding.")
    elif question.task == "binary":
        kinds = [] if letter == "B" else _kinds(lexicon, question)
        shown, answer = letter == "A", "A) Yes" if letter == "A" else "B) No"
        forms = (
            f"So {listed if shown else bare} {verb} {'present' if shown else 'absent'}, and the answer is {answer}.",
            f"This film shows {listed if shown else f'no {bare}'}: the answer is {answer}.",
        )
        if kinds:
            forms = (f"{kinds[0][0].upper()}{kinds[0][1:]} counts as {listed}, so the answer is {answer}.",)
    elif question.task == "temporal":
        option = question.options[LETTERS.index(letter)][0]
        forms = (f"So the answer is {letter}) {option}.", f"The progression is therefore option {letter}) {option}.")
    else:
        forms = (
            f"Of the options only {listed} {verb} present, so the answer is {letter}.",
            f"The film shows {listed}, which is option {letter}.",
        )
        normal = (
            f"The film is normal, so the answer is {letter}.",
            f"The film shows no finding, so the answer is {letter}.",
        )
    forms = normal if first == NO_FINDING else forms
    return forms[way % len(forms)]
