"""How far a cue reaches, and which entity a predicate applies to.

* A negation before a mention reaches it unless the clause ends, a finite verb lies between, or a list breaks ("no
  effusion, stable cardiomegaly"). A negation after reaches back to the nearest verb, negation or clause bound;
  a mention behind a verb of its own ("the heart is enlarged and edema is absent") only with no mention in between.
* A predicate ("enlarged") applies to the entity right after it ("enlarged heart"), else to the last one before it in
  the clause ("heart is enlarged"); entities in a row share one ("heart and mediastinum are normal").
"""

from collections.abc import Callable

from tests.helpers.oracle.directed import has_subject, list_end
from tests.helpers.oracle.marked import Text


def before(text: Text, i: int, is_cue: Callable[[int], bool], stops: Callable[[int], bool] | None = None) -> bool:
    """Whether a cue at or before word i reaches it: no clause, verb, end of a list or other stop follows the cue."""
    end = -1
    for j in range(i, -1, -1):
        if is_cue(j):
            return True
        end = max(end, list_end(text, j))
        if text.breaks[j] or text.has(j, "verb") or j <= end or (stops and stops(j)):
            return False
    return False


def predicate_negated(text: Text, i: int) -> bool:
    """Whether a negation reaches the predicate with no mention in between and, where a comma is, no entity
    ("is not enlarged", "not call the heart enlarged")."""
    if not before(text, i, text.denies_ahead):
        return False
    entity, comma = False, _parts(text, i)
    for j in range(i - 1, -1, -1):
        if text.denies_ahead(j):
            return not (comma and entity)
        if text.mention(j):
            return False
        entity, comma = entity or bool(text.records[j].entity), comma or _parts(text, j)
    return False


def _parts(text: Text, j: int) -> bool:
    return text.comma(j) and not text.has(j, "hypothetical")


def follows(text: Text, i: int, is_cue: Callable[[int], bool]) -> bool:
    """Whether a cue after word i reaches back to it; past other mentions only if word i has no verb of its own."""
    own_verb, j = False, i
    while not text.breaks[j] and not own_verb:
        own_verb, j = text.has(j, "verb"), j - 1
    for j in range(i + 1, len(text.words)):
        if text.breaks[j]:
            return False
        if is_cue(j):
            return has_subject(text, i, j)
        if own_verb and text.mention(j):
            return False
        if text.has(j, "verb", "negation_before"):
            return False
    return False


def entity_of(text: Text, i: int) -> int:
    """The entity that a predicate applies to; 0 if none."""
    ahead = _next_entity(text, i)
    if ahead >= 0 and text.starts[ahead] == text.words[i].content + 1:
        return text.records[ahead].entity
    refers = False
    for j in range(i, -1, -1):
        if j < i and text.records[j].entity:
            return text.records[j].entity
        refers = refers or text.has(j, "refers")
        if text.breaks[j] and (text.words[j].boundary or not text.has(j, "relative")):
            return _entity_before(text, i) if refers else 0
    return 0


def _entity_before(text: Text, i: int) -> int:
    """The last entity before word i, if no concept has been named since; 0 if none."""
    for j in range(i, -1, -1):
        if j < i and text.records[j].entity and not text.records[j].concept:
            return text.records[j].entity
        if text.records[j].concept:
            return 0
    return 0


def _next_entity(text: Text, i: int) -> int:
    for j in range(i + 1, len(text.words)):
        if text.breaks[j]:
            return -1
        if text.records[j].entity:
            return j
    return -1


def _attributive(text: Text, i: int) -> bool:
    """Whether an entity follows the predicate immediately."""
    ahead = _next_entity(text, i)
    return ahead >= 0 and text.starts[ahead] == text.words[i].content + 1


def shared_predicate(text: Text, i: int) -> int:
    """The word of the predicate that an entity shares with its neighbours in a row; -1 if it has its own or none."""
    following = _next_entity(text, i)
    for j in range(i + 1, len(text.words)):
        if text.breaks[j]:
            break
        if text.records[j].predicate and not _attributive(text, j):
            alone = following < 0 or following > j
            verb_between = any(text.has(k, "verb") for k in range(i + 1, max(following, i + 1)))
            return -1 if alone or verb_between else j
    return _carried_predicate(text, i)


def _carried_predicate(text: Text, i: int) -> int:
    """The predicate before a row's first entity ("normal heart size and mediastinal contours"); -1 if none."""
    seen_entity = False
    for j in range(i - 1, -1, -1):
        if text.breaks[j + 1] or text.has(j + 1, "verb"):
            return -1
        seen_entity = seen_entity or bool(text.records[j].entity)
        if text.records[j].predicate:
            return j if seen_entity and _attributive(text, j) else -1
    return -1
