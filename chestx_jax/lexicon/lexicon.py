"""The lexicon as data: concepts, entities with predicates, and cues, read from `lexicon.toml` and checked.

A phrase is a sequence of lexemes; a lexeme is a word in all its spellings ("opacity", "opacities"). A group in a
phrase, `(left|right|) base`, stands for each of its alternatives. Every phrase has one record.
"""

import hashlib
import itertools
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Any

from chestx_jax.errors import UserError
from chestx_jax.labels import LABELS

# Roles of a phrase; `ROLE` gives each its bit.
ROLES = (
    "negation_before",  # denies what follows it in its clause
    "negation_after",  # denies what precedes it
    "hedge_before",
    "hedge_after",
    "hypothetical",  # what follows in its clause asserts nothing
    "terminator",  # begins a new clause
    "verb",  # a finite verb: negation does not reach over it
    "conjunction",
    "addition",  # a conjunction that adds a subject ("and")
    "disjunction",  # one that goes on with a list ("or")
    "singular",  # the cue's verb has one subject; see [words.singular]
    "background",  # up to a comma or verb, tells of the patient, not of the films
    "change_after",  # states a change of what precedes it ("has worsened")
    "definition",  # hypothetical: what precedes it asserts nothing either
    "lasting",  # hypothetical: an assertion ends it only after a comma
    "lists",  # hypothetical: what is listed below, behind a colon, asserts nothing either
    "introduction",  # hypothetical: a denial after a comma ends it
    "assertion",  # words of observation: what follows is asserted again
    "continues",  # a terminator that does not end a hypothetical mode
    "unnamed",  # denies the hypothetical findings before it without naming them
    "conclusion",  # announces the option that the text decides on
    "refers",  # begins a sentence about the finding before it ("it is on the left")
    "repeats",  # stands for the finding before it ("none on the left")
    "reply",  # denies or affirms what precedes it, where it ends a phrase ("Effusion: no.")
    "affirms",  # asserts the hypothetical findings before it without naming them
    "prefers",  # compares explanations ("favors pneumonia over edema")
    "than",  # denies what follows behind such a comparison
    "relative",  # a terminator after which a predicate tells of an entity before it ("the heart, which is enlarged")
)
ROLE = {name: 1 << index for index, name in enumerate(ROLES)}
# American parts of words, and the British ones.
_BRITISH = (
    ("yz", "ys"), ("iza", "isa"), ("ize", "ise"), ("edem", "oedem"), ("hemo", "haemo"), ("hemat", "haemat"),
    ("esoph", "oesoph"), ("mor", "mour"), ("center", "centr"),
)  # fmt: skip
SIDES = ("", "left", "right", "both")
SIGN_CREDIT, KIND_CREDIT = 0.4, 0.5  # what a sign earns of its disease, and a broader or narrower concept of another
CHANGES = ("", "stable", "worsening", "improving")
SEVERITIES = ("", "mild", "moderate", "severe")
FILMS = ("", "earlier", "current")
EARLIER, CURRENT = 1, 2


@dataclass(frozen=True)
class Record:
    """What a phrase means. Numbers count from 1; 0 where a field does not apply."""

    concept: int = 0
    inverse: bool = False  # the phrase asserts that the concept is absent
    label: bool = False  # the phrase is a label's own name
    entity: int = 0
    predicate: int = 0
    side: int = 0
    site: int = 0
    change: int = 0
    severity: int = 0
    film: int = 0
    roles: int = 0


@dataclass(frozen=True)
class Concept:
    """One kind of finding."""

    name: str
    parents: tuple[str, ...] = ()  # concepts that it is a kind of
    denies: tuple[str, ...] = ()  # concepts that its presence rules out
    general: bool = False  # a catch-all: read, but never scored
    region: str = ""  # where it is looked for; "": everywhere
    weight: float = 0.7  # how much a radiologist minds if it is missed or made up; see [weights] in the TOML


@dataclass(frozen=True, eq=False)
class Lexicon:
    """The whole lexicon; equal where the TOML text is. Numbers count from 1; lexeme 0 is the unknown word."""

    concepts: tuple[Concept, ...]
    entities: tuple[str, ...]
    predicates: tuple[str, ...]
    sites: tuple[str, ...]
    lexemes: dict[str, int] = field(repr=False)  # spelling → lexeme number
    fillers: frozenset[int] = field(repr=False)  # lexemes that phrases may be interrupted by
    abbreviations: frozenset[str] = field(repr=False)  # spellings after which a full stop ends no sentence
    open_words: frozenset[str] = field(repr=False)  # spellings that end no sentence at a line's end
    phrases: dict[tuple[int, ...], Record] = field(repr=False)
    pairs: dict[tuple[int, int], tuple[int, bool]] = field(repr=False)  # (entity, predicate) → (concept, present)
    credits: dict[tuple[int, int], float] = field(repr=False, default_factory=dict)  # see `tables.Relations.credit`
    digest: str = ""  # SHA-256 of the TOML text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lexicon) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def concept(self, name: str) -> int:
        """Number of a concept, from 1."""
        return 1 + next(index for index, concept in enumerate(self.concepts) if concept.name == name)


def expand(phrase: str) -> list[str]:
    """The plain phrases that a phrase with `(a|b|)` groups stands for."""
    parts = re.findall(r"\([^)]*\)|[^()]+", phrase)
    alternatives = [part[1:-1].split("|") if part.startswith("(") else [part] for part in parts]
    return [" ".join("".join(choice).split()) for choice in itertools.product(*alternatives)]


def british(word: str) -> list[str]:
    """A word and its British spellings ("visualized", "edema", "tumor")."""
    variants = [word]
    for american, other in _BRITISH:
        variants += [variant.replace(american, other) for variant in variants if american in variant]
    return variants


def slips(word: str) -> set[str]:
    """A word with one slip: a letter left out, doubled, swapped with its neighbour, another vowel or one too many."""
    cuts = [(word[:i], word[i], word[i + 1 :]) for i in range(1, len(word))]  # the first letter is seldom wrong
    return (
        {left + right for left, _, right in cuts if right}  # a word cut off at its end is none
        | {left + 2 * letter + right for left, letter, right in cuts}
        | {left + right[:1] + letter + right[1:] for left, letter, right in cuts}
        | {left + vowel + right for left, letter, right in cuts if letter in "aeiou" for vowel in "aeiou"}
        | {left + letter + vowel + right for left, letter, right in cuts if right for vowel in "aeiou"}
    )


def spellings(word: str) -> list[str]:
    """A noun and its plural."""
    if len(word) < 4 or word.endswith("s") or not word.isalpha():
        return [word]
    if word.endswith("y") and word[-2] not in "aeiou":
        return [word, word[:-1] + "ies"]
    return [word, word + ("es" if word.endswith(("x", "ch", "sh")) else "s")]


@cache
def load() -> Lexicon:
    """The lexicon of this package."""
    return parse(resources.files(__package__).joinpath("lexicon.toml").read_text(encoding="utf-8"))


def parse(text: str) -> Lexicon:
    """A lexicon from TOML text. Raises UserError, which names the wrong entry."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"The lexicon is not valid TOML ({error}): fix that line.") from error
    regions = {name: region for region, members in data.get("regions", {}).items() for name in members}
    weights = {name: level["weight"] for level in data.get("weights", {}).values() for name in level["concepts"]}
    concepts = tuple(
        Concept(
            entry["name"], tuple(entry.get("parents", ())), tuple(entry.get("denies", ())),
            entry.get("general", False), regions.get(entry["name"], ""), weights.get(entry["name"], Concept.weight),
        )
        for entry in data["concept"]
    )  # fmt: skip
    names = [concept.name for concept in concepts]
    if tuple(names[: len(LABELS)]) != LABELS:
        raise UserError(f"The lexicon's first concepts must be the labels {', '.join(LABELS)}, in this order.")
    for concept in concepts:
        for other in concept.parents + concept.denies:
            _number(names, other, f"concept {concept.name}")
    for name, region in regions.items():
        _number(names, name, f"region {region}")
    for name in weights:
        _number(names, name, "weights")
    entities = [entry["name"] for entry in data["entity"]]
    predicates = [entry["name"] for entry in data["predicate"]]
    sites = tuple(dict.fromkeys(entry["site"] for entry in data["cue"] if "site" in entry))
    lexemes = _lexemes(data)
    phrases: dict[tuple[int, ...], Record] = {}
    for phrase, record in _records(data, names, entities, predicates, sites):
        key = tuple(lexemes[word] for word in phrase.split())
        phrases[key] = _merge(phrase, phrases.get(key, Record()), record)
    for label in LABELS:
        key = tuple(lexemes.get(word, 0) for word in label.lower().split())
        if key not in phrases or phrases[key].concept != names.index(label) + 1:
            raise UserError(f"The lexicon does not read {label!r} as that label: add its name to its phrases.")
        phrases[key] = replace(phrases[key], label=True)
    phrases = {key: _with_place(phrases, key, concepts) for key in phrases}
    pairs = {}
    for entity, entry in enumerate(data["entity"], 1):
        for predicate, target in entry.get("pairs", {}).items():
            absent = target.startswith("-")
            where = f"entity {entry['name']}"
            pairs[entity, _number(predicates, predicate, where)] = (
                _number(names, target.lstrip("-"), where),
                not absent,
            )
    words = data["words"]
    return Lexicon(
        concepts, tuple(entities), tuple(predicates), sites, lexemes,
        frozenset(lexemes[word] for word in words["fillers"]), frozenset(words["abbreviations"]),
        frozenset(words["open"]), phrases, pairs, _credits(data, names), hashlib.sha256(text.encode()).hexdigest(),
    )  # fmt: skip


def _credits(data: dict[str, Any], names: list[str]) -> dict[tuple[int, int], float]:
    """What concepts that say nearly the same, and signs and their disease, earn of each other; by index."""
    credits: dict[tuple[int, int], float] = {}

    def relate(one: str, other: str, credit: float, where: str) -> None:
        first, second = (_number(names, name, where) - 1 for name in (one, other))
        credits[first, second] = credits[second, first] = max(credits.get((first, second), 0.0), credit)

    for entry in data.get("alike", ()):
        for one, other in itertools.combinations(entry["concepts"], 2):
            relate(one, other, entry["credit"], "group of like concepts")
    for entry in data.get("sign", ()):
        for sign in entry["signs"]:
            relate(sign, entry["of"], SIGN_CREDIT, f"signs of {entry['of']}")
    return credits


def _merge(phrase: str, one: Record, two: Record) -> Record:
    """One record of two: a phrase may have several meanings ("left lung": an entity and a side), but one a field."""
    merged = {}
    for name in ("concept", "entity", "predicate", "side", "site", "change", "severity", "film"):
        values = {getattr(one, name), getattr(two, name)} - {0}
        if len(values) > 1:
            raise UserError(f"The lexicon gives {phrase!r} two meanings as {name}: keep one of them.")
        merged[name] = max(values, default=0)
    if one.concept and two.concept and one.inverse != two.inverse:
        raise UserError(f"The lexicon gives {phrase!r} both as a sign of a concept and of its absence: keep one.")
    return Record(
        **merged, inverse=one.inverse or two.inverse, label=one.label or two.label, roles=one.roles | two.roles
    )


def _with_place(phrases: dict[tuple[int, ...], Record], key: tuple[int, ...], concepts: tuple[Concept, ...]) -> Record:
    """The record of a phrase; a finding whose name holds a phrase of place has that side and site ("apical scar").

    Not of the heart, whose left ventricle is no side.
    """
    record = phrases[key]
    if not record.concept or concepts[record.concept - 1].region == "heart_and_mediastinum":
        return record
    for size in range(len(key) - 1, 0, -1):
        for start in range(len(key) - size + 1):
            inner = phrases.get(key[start : start + size], Record())
            record = replace(record, side=record.side or inner.side, site=record.site or inner.site)
    return record


def _number(names: list[str], name: str, where: str) -> int:
    if name not in names:
        raise UserError(f"The lexicon's {where} names {name!r}, which is not defined.")
    return names.index(name) + 1


def _entries(data: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any], str]]:
    for table in ("concept", "entity", "predicate", "cue"):
        for entry in data[table]:
            for phrase in itertools.chain.from_iterable(expand(text) for text in entry["phrases"]):
                yield table, entry, phrase
                if table == "entity":  # "observe the ribs for …": what follows is looked for
                    yield table, {**entry, "roles": ["hypothetical"]}, f"{phrase} for"
            for phrase in itertools.chain.from_iterable(expand(text) for text in entry.get("inverse", ())):
                yield table, {**entry, "is_inverse": True}, phrase


def _lexemes(data: dict[str, Any]) -> dict[str, int]:
    """Spelling → lexeme. Plurals of nouns and the forms of an alias share its lexeme."""
    explicit: dict[str, int] = {}
    nouns: dict[str, None] = {}
    for table, _, phrase in _entries(data):
        for word in phrase.split():
            explicit.setdefault(word, len(explicit) + 1)
            if table in ("concept", "entity"):
                nouns[word] = None
    for word in data["words"]["fillers"]:
        explicit.setdefault(word, len(explicit) + 1)
    lexemes = dict(explicit)
    for word in nouns:
        for form in spellings(word):
            lexemes[form] = lexemes[word]
    for word, forms in data["words"]["alias"].items():
        if word not in lexemes:
            raise UserError(f"The lexicon's alias {word!r} is in no phrase.")
        for form in forms:
            lexemes[form] = lexemes[word]
    for word, lexeme in list(lexemes.items()):
        for form in british(word):
            lexemes.setdefault(form, lexeme)
    for word in data["words"]["slips"]:
        for form in sorted(slips(word)):
            lexemes.setdefault(form, lexemes[word])
    return lexemes


def _records(
    data: dict[str, Any], concepts: list[str], entities: list[str], predicates: list[str], sites: tuple[str, ...]
):
    for table, entry, phrase in _entries(data):
        where = f"{table} with {phrase!r}"
        for role in entry.get("roles", ()):
            if role not in ROLE:
                raise UserError(f"The lexicon's {where} has the role {role!r}, which is none of {', '.join(ROLES)}.")
        name = entry.get("name", "")
        yield (
            phrase,
            Record(
                concept=concepts.index(name) + 1 if table == "concept" else 0,
                inverse=entry.get("is_inverse", False),
                entity=entities.index(name) + 1 if table == "entity" else 0,
                predicate=_number(predicates, name if table == "predicate" else entry["predicate"], where)
                if table == "predicate" or "predicate" in entry
                else 0,
                site=sites.index(entry["site"]) + 1 if "site" in entry else 0,
                side=SIDES.index(entry.get("side", "")),
                change=CHANGES.index(entry.get("change", "")),
                severity=SEVERITIES.index(entry.get("severity", "")),
                film=FILMS.index(entry.get("film", "")),
                roles=sum(ROLE[role] for role in entry.get("roles", ()))
                | (ROLE["singular"] if table == "cue" and phrase.split()[0] in data["words"]["singular"] else 0),
            ),
        )
