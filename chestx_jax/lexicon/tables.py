"""The lexicon's meanings as integer arrays: what phrases and pairs mean, and how concepts relate."""

from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from chestx_jax.lexicon import automaton
from chestx_jax.lexicon.lexicon import KIND_CREDIT, Lexicon, Record


class Relations(NamedTuple):
    """Relations between the C concepts of a lexicon."""

    is_a: Bool[np.ndarray, "C C"]  # is_a[a, b]: a is a kind of b (or b itself)
    denies: Bool[np.ndarray, "C C"]  # the presence of a rules out b
    counted: Bool[np.ndarray, " C"]  # False for catch-alls, which no reward scores
    region: Int[np.ndarray, " C"]  # number of the region it is looked for in, from 1; 0: everywhere
    weight: Float[np.ndarray, " C"]  # clinical weight
    credit: Float[np.ndarray, "C C"]  # what a claim of one earns of a finding of the other; 0: it does not support it


class Meanings(NamedTuple):
    """What the states of the phrase automaton mean, and an entity with a predicate."""

    record: Int[np.ndarray, "states 3"]  # packed records, see `pack_record`
    pairs: Int[np.ndarray, "entities predicates"]  # 2 · concept + present; 0: none


def pack_record(record: Record | None, depth: int) -> tuple[int, int, int]:
    """A record as three integers: concept, entity, predicate, inverse, label; depth and attributes; roles.

    `depth`: lexemes of the record's phrase.
    """
    if record is None:
        return 0, 0, 0
    meaning = record.concept | record.entity << 9 | record.predicate << 15 | record.inverse << 21 | record.label << 22
    attributes = depth | record.side << 5 | record.change << 7 | record.severity << 9 | record.film << 11
    attributes |= record.site << 13
    return meaning, attributes, record.roles


@cache
def meanings(lexicon: Lexicon) -> Meanings:
    """The meanings of a lexicon's phrases and pairs; made once a lexicon."""
    machine = automaton.build(lexicon)
    pairs = np.zeros((len(lexicon.entities) + 1, len(lexicon.predicates) + 1), np.int32)
    for (entity, predicate), (concept, present) in lexicon.pairs.items():
        pairs[entity, predicate] = 2 * concept + present
    return Meanings(np.asarray(list(map(pack_record, machine.records, machine.depth.tolist())), np.int32), pairs)


@cache
def relations(lexicon: Lexicon) -> Relations:
    """The concepts' relations, closed: `is_a` is transitive and reflexive, `denies` covers every kind of a concept."""
    count = len(lexicon.concepts)
    is_a = np.eye(count, dtype=bool)
    denies = np.zeros((count, count), bool)
    for index, concept in enumerate(lexicon.concepts):
        for parent in concept.parents:
            is_a[index, lexicon.concept(parent) - 1] = True
        for other in concept.denies:
            denies[index, lexicon.concept(other) - 1] = True
    for _ in range(count.bit_length()):
        is_a = is_a @ is_a
    denies = denies @ is_a.T | denies  # what rules out an opacity rules out edema
    credit = np.where(is_a | is_a.T, KIND_CREDIT, 0.0)
    for pair, value in lexicon.credits.items():
        credit[pair] = max(credit[pair], value)
    np.fill_diagonal(credit, 1.0)
    regions = ["", *dict.fromkeys(concept.region for concept in lexicon.concepts if concept.region)]
    return Relations(
        is_a=is_a,
        denies=denies,
        counted=np.asarray([not concept.general for concept in lexicon.concepts]),
        region=np.asarray([regions.index(concept.region) for concept in lexicon.concepts], np.int32),
        weight=np.asarray([concept.weight for concept in lexicon.concepts], np.float32),
        credit=credit.astype(np.float32),
    )
