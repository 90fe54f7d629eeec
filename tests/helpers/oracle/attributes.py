"""Attributes of a mention, each by a walk; `chestx_jax/findings/rules/attributes.py` computes the same.

A text (`marked.Text`) is given with the word at which the mention ends.
"""

from typing import Any

from chestx_jax.lexicon.lexicon import CHANGES, FILMS

_NAMES = ("side", "site", "severity", "change", "film")


def read_attributes(text: Any, i: int) -> dict[str, int]:
    """Side, site, severity, change and film of the mention that ends at word i."""
    values = {name: _behind(text, i, name) or _ahead(text, i, name) for name in _NAMES}
    values["change"] = values["change"] or _late_change(text, i)
    film = _behind(text, i, "film", in_clause=True) or _ahead(text, i, "film", beyond=False)
    film = film or _behind(text, i, "film") or _opening_film(text, i)
    film = FILMS.index("current") if _current_ahead(text, i) else film
    values["film"] = 0 if film == FILMS.index("earlier") and values["change"] else film
    return values


def _cue(text: Any, j: int, name: str) -> int:
    if name == "change" and text.has(j, "change_after"):
        return 0
    if name == "severity" and _of_change(text, j):
        return 0
    return getattr(text.records[j], name)


def _of_change(text: Any, j: int) -> bool:
    """Whether a word stands in or right before a phrase that tells of a change ("slightly increased")."""
    return any(
        text.starts[k] <= text.words[j].content + 1
        and (text.records[k].change > CHANGES.index("stable") or text.has(k, "change_after"))
        for k in range(j + 1, len(text.words))
    )


def _links(text: Any, j: int) -> bool:
    return text.has(j, "conjunction") or text.comma(j)


def _behind(text: Any, i: int, name: str, in_clause: bool = False) -> int:
    linked = False
    for j in range(i, -1, -1):
        if j < i and text.mention(j):
            return 0
        value = _cue(text, j, name)
        if value:
            return 0 if linked and _second_of_clause(text, i) else value
        linked = linked or _links(text, j)
        if text.words[j].boundary or (in_clause and text.breaks[j]):
            return 0
    return 0


def _second_of_clause(text: Any, i: int) -> bool:
    """Whether a mention precedes word i in its clause."""
    while not text.breaks[i] and i > 0:
        i -= 1
        if text.mention(i):
            return True
    return False


def _ahead(text: Any, i: int, name: str, beyond: bool = True) -> int:
    near = within = True
    for j in range(i + 1, len(text.words)):
        near = near and not _links(text, j) and not text.breaks[j]
        within = within and not text.words[j].boundary
        late = name == "change" and _trailing(text, j)
        value = text.records[j].change if late else _cue(text, j, name)
        value = 0 if text.has(j, "repeats") else value  # said of the finding there
        if value:
            return value if near or (beyond and _trailing(text, j) and (within or _refers(text, j))) else 0
        if text.mention(j):
            return 0
    return 0


def _current_ahead(text: Any, i: int) -> bool:
    """Whether the current film is named after word i, before a conjunction, comma, clause or another mention's end."""
    for j in range(i + 1, len(text.words)):
        if _links(text, j) or text.breaks[j]:
            return False
        if text.records[j].film == FILMS.index("current") and not text.has(j, "repeats"):
            return True
        if text.mention(j):
            return False
    return False


def _trailing(text: Any, j: int) -> bool:
    """Whether no mention follows word j in its clause."""
    for k in range(j + 1, len(text.words)):
        if text.breaks[k]:
            return True
        if text.mention(k):
            return False
    return True


def _refers(text: Any, j: int) -> bool:
    """Whether the sentence of word j refers back up to it."""
    return text.stands_before(j, lambda k: text.has(k, "refers"), lambda k: text.words[k].boundary)


def _late_change(text: Any, i: int) -> int:
    """A change of all mentions before it in the clause."""
    for j in range(i + 1, len(text.words)):
        if text.breaks[j]:
            return 0
        if text.records[j].change and (text.has(j, "change_after") or _trailing(text, j)):
            return text.records[j].change
        if text.has(j, "verb", "negation_before"):
            return 0
    return 0


def _opening_film(text: Any, i: int) -> int:
    """The last film that the sentence names before any mention, up to word i."""
    film = 0
    start = i
    while not text.words[start].boundary and start > 0:
        start -= 1
    for j in range(start, i + 1):
        if text.mention(j):
            break
        film = text.records[j].film or film
    return film
