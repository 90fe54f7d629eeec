"""Checks of the lexicon beyond what reading it enforces: each phrase must be reachable and mean what it says alone."""

from chestx_jax.lexicon import automaton, words
from chestx_jax.lexicon.lexicon import Lexicon
from chestx_jax.lexicon.token_tables import relations
from chestx_jax.types import LABELS


def problems(lexicon: Lexicon) -> list[str]:
    """One line for each clash: unreachable phrases, concepts without phrase or region, cycles, self-denials, unused names."""  # noqa: E501
    found = [*_unreachable(lexicon), *_silent_concepts(lexicon), *_graph(lexicon), *_unused(lexicon)]
    return found + [
        f"the concept {c.name!r} is in no region"
        for c in lexicon.concepts
        if not (c.region or c.general or c.name == "No Finding")
    ]


def _unreachable(lexicon: Lexicon) -> list[str]:
    """Phrases that, written alone, do not end in their own record."""
    machine = automaton.build(lexicon)
    spelling: dict[int, str] = {}
    for word, number in lexicon.lexemes.items():
        spelling.setdefault(number, word)
    found = []
    for phrase, record in lexicon.phrases.items():
        text = " ".join(spelling[number] for number in phrase)
        read = words.words(lexicon, machine, text.encode())
        if machine.records[read[-2].state] != record:
            found.append(
                f"the phrase {text!r} is never matched: a filler in it is passed over, or a longer phrase hides it"
            )
    return found


def _silent_concepts(lexicon: Lexicon) -> list[str]:
    named = {record.concept for record in lexicon.phrases.values()} | {concept for concept, _ in lexicon.pairs.values()}
    return [
        f"the concept {c.name!r} has no phrase" for number, c in enumerate(lexicon.concepts, 1) if number not in named
    ]


def _graph(lexicon: Lexicon) -> list[str]:
    table = relations(lexicon)
    is_a, denies = table["is_a"], table["denies"]
    names = [concept.name for concept in lexicon.concepts]
    found = []
    for a, one in enumerate(names):
        found += [
            f"{one!r} and {names[b]!r} are each a kind of the other" for b in range(a) if is_a[a, b] and is_a[b, a]
        ]
        found += [f"{one!r} denies itself"] if denies[a, a] else []
    if len(set(names)) < len(names):
        found.append("two concepts share a name")
    if not set(LABELS) <= set(names):
        found.append("a label is missing")
    return found


def _unused(lexicon: Lexicon) -> list[str]:
    entities = {record.entity for record in lexicon.phrases.values()}
    paired = {predicate for _, predicate in lexicon.pairs}
    found = [
        f"the entity {name!r} has no phrase"
        for number, name in enumerate(lexicon.entities, 1)
        if number not in entities
    ]
    found += [
        f"the predicate {name!r} is in no pair"
        for number, name in enumerate(lexicon.predicates, 1)
        if number not in paired
    ]
    return found
