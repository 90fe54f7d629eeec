"""Checks of the lexicon beyond those of `lexicon.parse`: every phrase is reachable, every name is used, no cycles."""

from chestx_jax.labels import LABELS
from chestx_jax.lexicon import alphabet, automaton
from chestx_jax.lexicon.lexicon import Lexicon
from chestx_jax.lexicon.tables import relations


def find_problems(lexicon: Lexicon) -> list[str]:
    """One line a problem: unreachable phrases, concepts without a phrase or a region, cycles, unused names."""
    without_region = [
        f"the concept {concept.name!r} is in no region"
        for concept in lexicon.concepts
        if not (concept.region or concept.general or concept.name in ("No Finding", "Acute Process"))
    ]
    return [
        *_unreachable(lexicon),
        *_without_phrase(lexicon),
        *_concept_graph(lexicon),
        *_unused(lexicon),
        *without_region,
    ]


def _unreachable(lexicon: Lexicon) -> list[str]:
    """Phrases that, written alone, do not end in their own record, and spellings that are not one word."""
    machine = automaton.build(lexicon)
    spelling: dict[int, str] = {}
    for word, lexeme in lexicon.lexemes.items():
        spelling.setdefault(lexeme, word)
    problems = []
    for phrase, record in lexicon.phrases.items():
        text, state, hit = " ".join(spelling[lexeme] for lexeme in phrase), 0, 0
        for lexeme in phrase:
            hit, state = int(machine.hit[state, lexeme]), int(machine.next[state, lexeme])
        in_words = [run for run, _, _ in alphabet.split(text.encode()) if run] == text.encode().split()
        if machine.records[hit] != record or not in_words:
            problems.append(
                f"the phrase {text!r} is never matched: a filler in it is passed over, or a longer phrase hides it"
            )
    return problems


def _without_phrase(lexicon: Lexicon) -> list[str]:
    named = {record.concept for record in lexicon.phrases.values()} | {concept for concept, _ in lexicon.pairs.values()}
    return [
        f"the concept {c.name!r} has no phrase" for number, c in enumerate(lexicon.concepts, 1) if number not in named
    ]


def _concept_graph(lexicon: Lexicon) -> list[str]:
    concepts = relations(lexicon)
    names = [concept.name for concept in lexicon.concepts]
    problems = []
    for a, name in enumerate(names):
        problems += [
            f"{name!r} and {names[b]!r} are each a kind of the other"
            for b in range(a)
            if concepts.is_a[a, b] and concepts.is_a[b, a]
        ]
        problems += [f"{name!r} denies itself"] if concepts.denies[a, a] else []
    if len(set(names)) < len(names):
        problems.append("two concepts share a name")
    if not set(LABELS) <= set(names):
        problems.append("a label is missing")
    return problems


def _unused(lexicon: Lexicon) -> list[str]:
    entities = {record.entity for record in lexicon.phrases.values()}
    predicates = {predicate for _, predicate in lexicon.pairs}
    return [
        *(f"the entity {name!r} has no phrase" for i, name in enumerate(lexicon.entities, 1) if i not in entities),
        *(
            f"the predicate {name!r} is in no pair"
            for i, name in enumerate(lexicon.predicates, 1)
            if i not in predicates
        ),
    ]
