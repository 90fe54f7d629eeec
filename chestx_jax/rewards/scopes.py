"""Words to findings in jit: the rules of `lexicon/scopes.py`, each walk to a cue written as a running maximum.

`last` of a mask is the nearest step at or before each step where it holds (-1: none), `upcoming` the nearest at or
after it (T: none); `_earlier` and `_later` leave out the step itself. A cue reaches a mention if it is nearer than
every stop. Arrays are [T, B].
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int

from chestx_jax.lexicon import alphabet as a
from chestx_jax.lexicon import tags
from chestx_jax.lexicon.lexicon import ROLE
from chestx_jax.lexicon.scopes import DEFINES, INTRODUCES, OBSERVES, SUPPOSES, TELLS
from chestx_jax.lexicon.token_tables import Tables
from chestx_jax.rewards.scan import Words
from chestx_jax.types import Findings

_PAYLOAD = 8  # bits below the step number in a key


@struct.dataclass
class Matches:
    """The phrase matches that count, at the step of their last word; 0 elsewhere."""

    record: Int[Array, "T B"]
    roles: Int[Array, "T B"]
    more: Int[Array, "T B"]  # the second packed integer of the record
    start: Int[Array, "T B"]  # content number of the first lexeme

    @property
    def concept(self) -> Array:
        return self.record & 511

    @property
    def entity(self) -> Array:
        return (self.record >> 9) & 63

    @property
    def predicate(self) -> Array:
        return (self.record >> 15) & 63

    @property
    def depth(self) -> Array:
        return (self.more >> 9) & 31


def matches(tables: Tables, words: Words) -> Matches:
    """A match gives way to a later-ending one that overlaps it."""
    record = jnp.where(words.word[..., None], tables.record[words.state], 0)
    one, two = record[..., 0], record[..., 1]
    depth = (two >> 9) & 31
    start = words.content - depth + 1
    beyond = jnp.int32(1 << 30)
    covering = jnp.where(words.word & (depth > 0) & ~words.passed, start, beyond)
    covered = _later(_running(-covering[:, None], reverse=True), -beyond)[:, 0]
    kept = words.passed | (-covered > words.content)
    one, two = jnp.where(kept, one, 0), jnp.where(kept, two, 0)
    return Matches(record=one, roles=two >> 14, more=two, start=start)


def findings(tables: Tables, words: Words, found: Matches, slots: int, think_only: bool) -> Findings:
    """The findings of each row in `slots` slots, in order of their last word."""
    steps, rows = words.word.shape
    has = partial(_has, found)
    concept, entity, predicate = found.concept, found.entity, found.predicate
    comma = words.word & ((words.gap & a.COMMA) != 0)
    clause = words.boundary | (words.word & ((words.gap & a.SEMICOLON) != 0)) | has("terminator")
    stop = clause | has("verb") | (has("list_break") & comma)
    links = comma | has("conjunction")
    mention = (concept > 0) | (predicate > 0)
    barrier = has("verb", "negation_before")
    bare = ~has("change_after")
    side, site, change = found.more & 3, (found.more >> 2) & 31, (found.more >> 7) & 3
    bare_change, late_change = jnp.where(bare, change, 0), jnp.where(bare, 0, change)
    question = words.boundary & ((words.gap & a.QUESTION) != 0)
    told = barrier | has("assertion")
    voice, behind_comma, mute = _voices(words, found, clause, comma)

    last_clause, last_stop, last_negation, last_hedge, last_mute, last_link, last_turn, last_mention, last_any, last_boundary, last_told, *cues = _last(  # noqa: E501
        clause, stop, has("negation_before"), has("hedge_before"), mute, links, clause | has("verb"), mention,
        mention | (entity > 0), words.boundary, told, side, site, bare_change, entity,
    )  # fmt: skip
    last_side, last_site, last_change, last_entity = cues
    (next_clause, next_link, next_boundary, next_question, next_mention, next_barrier, next_verb, next_denial, next_doubt,  # noqa: E501
     next_mute, next_side, next_site, next_change, next_late, next_entity, next_told, next_supposed, next_settled,
     next_observed, next_definition) = _upcoming(
        clause, links, words.boundary, question, mention, barrier, has("verb"), has("negation_after"), has("hedge_after"),  # noqa: E501
        mute, side, site, bare_change, late_change, entity, told, has("hypothetical"),
        has("conclusion", "negation_after"), has("assertion"), has("definition"),
    )  # fmt: skip
    start_ahead = _later(-_running(-jnp.where(entity > 0, found.start, 1 << 30)[:, None], reverse=True), 1 << 30)[:, 0]

    def ahead(cue: Array) -> Array:
        return _step(_later(cue, steps << _PAYLOAD))

    clause_ahead, barrier_ahead = ahead(next_clause), ahead(next_barrier)

    def follows(cue: Array) -> Array:
        where = ahead(cue)
        return (where < steps) & (clause_ahead > where) & (barrier_ahead >= where)

    before_any, before_mention = _step(_earlier(last_any)), _step(_earlier(last_mention))
    negated = (_step(last_negation) >= 0) & (_step(last_negation) >= _step(last_stop))
    before_negation = _step(_earlier(last_negation))
    predicate_negated = negated & (before_negation >= 0) & (before_negation >= before_any)
    denied = follows(next_denial)
    hedged = ((_step(last_hedge) >= 0) & (_step(last_hedge) >= _step(last_stop))) | follows(next_doubt)

    # A predicate and its entity.
    entity_ahead = _later(next_entity, steps << _PAYLOAD)
    has_ahead = _step(entity_ahead) < clause_ahead
    attributive = has_ahead & (start_ahead == words.content + 1)
    entity_behind = _earlier(last_entity)
    behind = (_step(entity_behind) >= 0) & (_step(last_clause) <= _step(entity_behind))
    subject = jnp.where(attributive, _value(entity_ahead), jnp.where(behind, _value(entity_behind), 0))
    own_pair = tables.pairs[subject, predicate]

    # An entity that shares its neighbour's predicate.
    verdict = (predicate << 2) | ((predicate_negated | denied).astype(jnp.int32) << 1) | hedged.astype(jnp.int32)
    muted = (_step(last_mute) >= 0) & (_step(last_mute) >= _step(last_clause))
    supposed = (voice == SUPPOSES) | (voice == DEFINES) | ((voice == INTRODUCES) & ~behind_comma) | muted
    last_predicate, last_leading, last_denial = _last(
        jnp.where(predicate > 0, verdict, 0),
        (predicate > 0) & attributive,
        jnp.where(has("negation_before"), 1 + supposed.astype(jnp.int32), 0),
    )
    colon = words.word & ((words.gap & a.COLON) != 0)
    heads = words.boundary | (_step(next_mention) < ahead(next_boundary))
    next_predicate, next_colon = _upcoming(
        jnp.where((predicate > 0) & ~attributive, verdict, 0), jnp.where(colon, 1 + heads.astype(jnp.int32), 0)
    )
    predicate_ahead = _later(next_predicate, steps << _PAYLOAD)
    reaches = _step(predicate_ahead) < clause_ahead
    in_row = has_ahead & (_step(entity_ahead) <= _step(predicate_ahead))
    verb_ahead = ahead(next_verb)
    shares = in_row & (verb_ahead >= _step(entity_ahead))
    predicate_behind = _earlier(last_predicate)
    carried = (
        (_step(predicate_behind) >= 0)
        & (_step(last_turn) <= _step(predicate_behind))
        & (_step(entity_behind) >= _step(predicate_behind))
        & (_step(_earlier(last_leading)) == _step(predicate_behind))
    )
    shared = jnp.where(
        reaches, jnp.where(shares, _value(predicate_ahead), 0), jnp.where(carried, _value(predicate_behind), 0)
    )
    shared_pair = tables.pairs[entity, shared >> 2]

    is_concept = concept > 0
    is_predicate = ~is_concept & (predicate > 0)
    is_shared = ~is_concept & ~is_predicate & (entity > 0)
    pair = jnp.where(is_predicate, own_pair, jnp.where(is_shared, shared_pair, 0))
    number = jnp.where(is_concept, concept, pair >> 1)
    present = jnp.where(is_concept, ((found.record >> 21) & 1) == 0, (pair & 1) == 1)
    absent = jnp.where(is_concept, negated | denied, predicate_negated | denied)
    absent = jnp.where(is_shared, ((shared >> 1) & 1) == 1, absent)
    doubtful = jnp.where(is_shared, (shared & 1) == 1, hedged)

    boundary_ahead, colon_ahead = ahead(next_boundary), _later(next_colon, steps << _PAYLOAD)
    asked = (boundary_ahead < steps) & (ahead(next_question) == boundary_ahead)
    heading = (
        (_value(colon_ahead) == 2)
        & (boundary_ahead >= _step(colon_ahead))
        & (ahead(next_told) >= _step(colon_ahead))
        & (_step(last_told) < _step(last_boundary))
    )
    dumb = muted | (ahead(next_mute) < clause_ahead) | asked | heading
    unsupposed = jnp.minimum(clause_ahead, ahead(next_supposed))
    settled = (ahead(next_settled) < unsupposed) | (behind_comma & (ahead(next_observed) < unsupposed))
    defined = ahead(next_definition) < jnp.minimum(clause_ahead, ahead(next_observed))
    supposes = ((voice == SUPPOSES) | (voice == INTRODUCES)) & ~settled
    supposes = supposes | (voice == DEFINES) | ((voice == TELLS) & defined)
    hushed = jnp.where(negated & ~is_shared, (_value(last_denial) == 2) | asked | heading, supposes | dumb)
    certainty = jnp.where(hushed, 0, jnp.where(doubtful, 1, 2))
    polarity = (present != absent).astype(jnp.int32)

    thinking = words.zone == tags.THINK
    thought = (
        words.word & ((words.zone == tags.BETWEEN) | (words.zone == tags.ANSWER) | (words.zone == tags.AFTER))
    ).any(0)
    outside = (words.zone != tags.ANSWER) & (words.zone != tags.ANSWER_ALONE)
    counts = (number > 0) & (thinking if think_only else jnp.where(thought[None], thinking, outside))
    sums = totals(jnp.stack([words.boundary, counts], 1).astype(jnp.int32))

    # What is considered and later denied without its name.
    tells = (voice == TELLS) | (voice == OBSERVES) | (behind_comma & (voice != DEFINES))
    spoken = (number > 0) & (certainty > 0)
    refusals = _upcoming(has("unnamed") & tells, has("negation_after") & tells, spoken & (polarity == 1), spoken)
    unnamed, unseen, present_ahead, spoken_ahead = (ahead(cue) for cue in refusals)

    def within(where: Array, sentences: int) -> Array:
        there = jnp.take_along_axis(sums[:, 0], jnp.minimum(where, steps - 1), 0)
        return (where < steps) & (there - sums[:, 0] <= sentences)

    refused = ((unnamed < present_ahead) & within(unnamed, 2)) | ((unseen < spoken_ahead) & within(unseen, 1))
    refused = refused & hushed & ~dumb
    certainty, polarity = jnp.where(refused, 2, certainty), jnp.where(refused, 0, polarity)

    link_ahead, mention_ahead = jnp.minimum(ahead(next_link), clause_ahead), ahead(next_mention)

    def attribute(cue_behind: Array, cue_ahead: Array) -> Array:
        where, coming = _step(cue_behind), _later(cue_ahead, steps << _PAYLOAD)
        joined = (_step(last_link) > where) & (before_mention >= 0) & (before_mention >= _step(last_clause))
        from_left = (where >= 0) & (before_mention < where) & (_step(last_clause) <= where) & ~joined
        from_right = (_step(coming) < link_ahead) & (_step(coming) <= mention_ahead)
        return jnp.where(from_left, _value(cue_behind), jnp.where(from_right, _value(coming), 0))

    bare_value = attribute(last_change, next_change)
    late = _later(next_late, steps << _PAYLOAD)
    late_value = jnp.where((_step(late) < clause_ahead) & (barrier_ahead >= _step(late)), _value(late), 0)
    change = jnp.where(bare_value > 0, bare_value, late_value)

    packed = polarity | certainty << 1 | attribute(last_side, next_side) << 3
    packed = packed | attribute(last_site, next_site) << 5 | change << 10 | (number - 1) << 12
    place = _first_at_least(sums[:, 1], jnp.broadcast_to(jnp.arange(1, slots + 1)[:, None], (slots, rows)))  # [M, B]
    count = sums[-1, 1]
    valid = jnp.arange(slots, dtype=jnp.int32)[:, None] < count[None]

    def pick(values: Array) -> Array:
        return jnp.where(valid, jnp.take_along_axis(values, place, 0), 0)

    begin = _first_at_least(words.content, jnp.take_along_axis(found.start, place, 0))
    fields = pick(packed)
    return Findings(
        concept=(fields >> 12).T, polarity=(fields & 1).T, certainty=((fields >> 1) & 3).T, side=((fields >> 3) & 3).T,
        site=((fields >> 5) & 31).T, change=((fields >> 10) & 3).T, step=pick(sums[:, 0] - 1).T,
        first=jnp.where(valid, jnp.take_along_axis(words.first, begin, 0), 0).T, last=pick(words.last).T,
        valid=valid.T, overflow=jnp.maximum(count - slots, 0),
    )  # fmt: skip


def _voices(words: Words, found: Matches, clause: Array, comma: Array) -> tuple[Array, Array, Array]:
    """What the text is doing at each step, whether behind a comma, and the words that silence their clause.

    The latter are foreign words and the first words of listed options, but for one a conclusion announces.
    """
    has = partial(_has, found)
    lasting = has("definition", "lasting")
    kind = jnp.where(lasting, DEFINES, jnp.where(has("introduction"), INTRODUCES, SUPPOSES))
    kind = jnp.where(has("hypothetical"), kind, 0)
    fresh = clause & (words.boundary | ~has("continues"))
    colon = words.word & ((words.gap & a.COLON) != 0)
    flags = (fresh, comma, has("assertion"), words.word, words.boundary, has("conclusion"), colon)
    packed = kind | sum(flag.astype(jnp.int32) << 3 + place for place, flag in enumerate(flags))

    def step(carry: tuple[Array, Array, Array, Array], now: Array) -> tuple[tuple[Array, Array, Array, Array], Array]:
        voice, after, concluded, chosen = carry
        fresh, comma, asserts, word, boundary, concludes, colon = (((now >> 3 + place) & 1) == 1 for place in range(7))
        kind, was_chosen = now & 7, chosen
        chosen = jnp.where(word, colon & concluded, chosen)
        concluded = (concluded & ~boundary) | concludes
        voice = jnp.where(fresh, TELLS, voice)
        after = (after & ~fresh) | comma
        observes = asserts & ((voice != DEFINES) | after)
        voice = jnp.where(kind > 0, kind, jnp.where(observes, OBSERVES, voice))
        after = after & (kind == 0)
        return (voice, after, concluded, chosen), voice | after.astype(jnp.int32) << 3 | was_chosen.astype(
            jnp.int32
        ) << 4

    row = jnp.zeros_like(packed[0])
    _, out = jax.lax.scan(step, (row, row > 0, row > 0, row > 0), packed)
    mute = words.foreign | (words.option & ((out >> 4) == 0))
    return out & 7, ((out >> 3) & 1) == 1, mute


def _has(found: Matches, *roles: str) -> Array:
    return (found.roles & sum(ROLE[role] for role in roles)) != 0


def _step(key: Array) -> Array:
    return key >> _PAYLOAD


def _value(key: Array) -> Array:
    return key & ((1 << _PAYLOAD) - 1)


def _keys(values: tuple[Array, ...], none: int) -> Array:
    """Stack [T, K, B]: step and value where a value is not 0, `none` elsewhere."""
    stacked = jnp.stack([value.astype(jnp.int32) for value in values], 1)
    at = jnp.arange(stacked.shape[0], dtype=jnp.int32)[:, None, None] << _PAYLOAD
    return jnp.where(stacked > 0, at | stacked, none)


def _last(*values: Array) -> tuple[Array, ...]:
    keys = _running(_keys(values, -1), reverse=False)
    return tuple(keys[:, k] for k in range(len(values)))


def _upcoming(*values: Array) -> tuple[Array, ...]:
    keys = _keys(values, values[0].shape[0] << _PAYLOAD)
    keys = -_running(-keys, reverse=True)
    return tuple(keys[:, k] for k in range(len(values)))


def _running(keys: Array, reverse: bool) -> Array:
    """Running maximum over the first axis. A plain scan: on CPU it is ten times faster than `lax.cummax`."""
    start = jnp.full(keys.shape[1:], jnp.iinfo(jnp.int32).min, jnp.int32)
    _, out = jax.lax.scan(lambda best, key: (jnp.maximum(best, key),) * 2, start, keys, reverse=reverse)
    return out


def totals(counts: Array) -> Array:
    """Running sums over the first axis."""
    _, out = jax.lax.scan(lambda total, count: (total + count,) * 2, jnp.zeros(counts.shape[1:], jnp.int32), counts)
    return out


def _first_at_least(rising: Array, wanted: Array) -> Array:
    """For each wanted [M, B] the first step at which the rising values [T, B] reach it (the last step if none does)."""
    steps = rising.shape[0]
    at = jnp.zeros(wanted.shape, jnp.int32)
    for bit in reversed(range(steps.bit_length())):
        ahead = at + (1 << bit)
        below = jnp.take_along_axis(rising, jnp.minimum(ahead, steps) - 1, 0) < wanted
        at = jnp.where((ahead <= steps) & below, ahead, at)
    return jnp.minimum(at, steps - 1)


def _earlier(keys: Array) -> Array:
    return jnp.concatenate([jnp.full_like(keys[:1], -1), keys[:-1]])


def _later(keys: Array, none: int) -> Array:
    return jnp.concatenate([keys[1:], jnp.full_like(keys[:1], none)])
