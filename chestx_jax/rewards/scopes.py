"""Words to findings in jit: the rules of `lexicon/scopes.py`, each walk to a cue computed by a running maximum.

For a mask over scan steps, `_last` gives the nearest step at or before each step where it holds (-1: none), and
`_upcoming` the nearest at or after it (T: none); `_earlier` and `_later` exclude the step itself. A cue reaches a
mention if it is nearer than every stop. Arrays are [T, B]: T scan steps (see `scan`), B texts.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int

from chestx_jax.lexicon import alphabet as a
from chestx_jax.lexicon import tags
from chestx_jax.lexicon.lexicon import ROLE
from chestx_jax.lexicon.scopes import DEFINES, INTRODUCES, NEUTRAL, OBSERVES, SUPPOSES
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


def select_matches(tables: Tables, words: Words) -> Matches:
    """The matches of B texts, less those that a later-ending one overlaps."""
    record = jnp.where(words.word[..., None], tables.record[words.state], 0)
    one, two = record[..., 0], record[..., 1]
    depth = (two >> 9) & 31
    start = words.content - depth + 1
    none = jnp.int32(1 << 30)
    match_start = jnp.where(words.word & (depth > 0) & ~words.passed, start, none)
    start_ahead = -_later(_running_max(-match_start[:, None], reverse=True), -none)[:, 0]
    selected = words.passed | (start_ahead > words.content)
    one, two = jnp.where(selected, one, 0), jnp.where(selected, two, 0)
    return Matches(record=one, roles=two >> 14, more=two, start=start)


def read_findings(tables: Tables, words: Words, matches: Matches, slots: int, think_only: bool) -> Findings:
    """The findings of B texts in M = `slots` slots, in order of their last word; see `extract.extract`."""
    steps = words.word.shape[0]
    has = partial(_has, matches)
    concept, entity, predicate = matches.concept, matches.entity, matches.predicate
    comma = words.word & ((words.gap & a.COMMA) != 0)
    clause = words.boundary | (words.word & ((words.gap & a.SEMICOLON) != 0)) | has("terminator")
    stop = clause | has("verb") | (has("list_break") & comma)
    link = comma | has("conjunction")
    mention = (concept > 0) | (predicate > 0)
    barrier = has("verb", "negation_before")
    bare = ~has("change_after")
    side, site, change = matches.more & 3, (matches.more >> 2) & 31, (matches.more >> 7) & 3
    bare_change, late_change = jnp.where(bare, change, 0), jnp.where(bare, 0, change)
    question = words.boundary & ((words.gap & a.QUESTION) != 0)
    asserted_cue = barrier | has("assertion")
    mode, behind_comma, mutes = _modes(words, matches, clause, comma)

    (last_clause, last_stop, last_negation, last_hedge, last_mutes, last_link, last_turn, last_mention, last_any,
     last_boundary, last_asserted_cue, last_side, last_site, last_change, last_entity) = _last(
        clause, stop, has("negation_before"), has("hedge_before"), mutes, link, clause | has("verb"), mention,
        mention | (entity > 0), words.boundary, asserted_cue, side, site, bare_change, entity,
    )  # fmt: skip
    (next_clause, next_link, next_boundary, next_question, next_mention, next_barrier, next_verb, next_negation,
     next_hedge, next_mutes, next_side, next_site, next_change, next_late_change, next_entity, next_asserted_cue,
     next_hypothetical, next_conclusion, next_assertion, next_definition) = _upcoming(
        clause, link, words.boundary, question, mention, barrier, has("verb"), has("negation_after"),
        has("hedge_after"), mutes, side, site, bare_change, late_change, entity, asserted_cue,
        has("hypothetical"), has("conclusion", "negation_after"), has("assertion"), has("definition"),
    )  # fmt: skip
    entity_start = jnp.where(entity > 0, matches.start, 1 << 30)
    start_ahead = _later(-_running_max(-entity_start[:, None], reverse=True), 1 << 30)[:, 0]

    def ahead(cue: Array) -> Array:
        return _step(_later(cue, steps << _PAYLOAD))

    clause_ahead, barrier_ahead = ahead(next_clause), ahead(next_barrier)

    def follows(cue: Array) -> Array:
        where = ahead(cue)
        return (where < steps) & (clause_ahead > where) & (barrier_ahead >= where)

    any_behind, mention_behind = _step(_earlier(last_any)), _step(_earlier(last_mention))
    negated = (_step(last_negation) >= 0) & (_step(last_negation) >= _step(last_stop))
    negation_behind = _step(_earlier(last_negation))
    predicate_negated = negated & (negation_behind >= 0) & (negation_behind >= any_behind)
    negated_after = follows(next_negation)
    hedged = ((_step(last_hedge) >= 0) & (_step(last_hedge) >= _step(last_stop))) | follows(next_hedge)

    # A predicate and its entity.
    entity_ahead = _later(next_entity, steps << _PAYLOAD)
    has_ahead = _step(entity_ahead) < clause_ahead
    attributive = has_ahead & (start_ahead == words.content + 1)
    entity_behind = _earlier(last_entity)
    has_behind = (_step(entity_behind) >= 0) & (_step(last_clause) <= _step(entity_behind))
    subject = jnp.where(attributive, _value(entity_ahead), jnp.where(has_behind, _value(entity_behind), 0))
    predicate_pair = tables.pairs[subject, predicate]

    # An entity that shares its neighbour's predicate.
    packed_predicate = (
        (predicate << 2) | ((predicate_negated | negated_after).astype(jnp.int32) << 1) | hedged.astype(jnp.int32)
    )
    muted_before = (_step(last_mutes) >= 0) & (_step(last_mutes) >= _step(last_clause))
    supposed = (mode == SUPPOSES) | (mode == DEFINES) | ((mode == INTRODUCES) & ~behind_comma) | muted_before
    last_predicate, last_attributive, last_denial = _last(
        jnp.where(predicate > 0, packed_predicate, 0),
        (predicate > 0) & attributive,
        jnp.where(has("negation_before"), 1 + supposed.astype(jnp.int32), 0),
    )
    colon = words.word & ((words.gap & a.COLON) != 0)
    ends_heading = words.boundary | (_step(next_mention) < ahead(next_boundary))
    next_predicate, next_colon = _upcoming(
        jnp.where((predicate > 0) & ~attributive, packed_predicate, 0),
        jnp.where(colon, 1 + ends_heading.astype(jnp.int32), 0),
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
        & (_step(_earlier(last_attributive)) == _step(predicate_behind))
    )
    shared = jnp.where(
        reaches, jnp.where(shares, _value(predicate_ahead), 0), jnp.where(carried, _value(predicate_behind), 0)
    )
    shared_pair = tables.pairs[entity, shared >> 2]

    is_concept = concept > 0
    is_predicate = ~is_concept & (predicate > 0)
    is_shared = ~is_concept & ~is_predicate & (entity > 0)
    pair = jnp.where(is_predicate, predicate_pair, jnp.where(is_shared, shared_pair, 0))
    number = jnp.where(is_concept, concept, pair >> 1)
    present = jnp.where(is_concept, ((matches.record >> 21) & 1) == 0, (pair & 1) == 1)
    absent = jnp.where(is_concept, negated | negated_after, predicate_negated | negated_after)
    absent = jnp.where(is_shared, ((shared >> 1) & 1) == 1, absent)
    uncertain = jnp.where(is_shared, (shared & 1) == 1, hedged)

    # Mentions that assert nothing.
    boundary_ahead, colon_ahead = ahead(next_boundary), _later(next_colon, steps << _PAYLOAD)
    asks = (boundary_ahead < steps) & (ahead(next_question) == boundary_ahead)
    heading = (
        (_value(colon_ahead) == 2)
        & (boundary_ahead >= _step(colon_ahead))
        & (ahead(next_asserted_cue) >= _step(colon_ahead))
        & (_step(last_asserted_cue) < _step(last_boundary))
    )
    muted = muted_before | (ahead(next_mutes) < clause_ahead) | asks | heading
    scope_end = jnp.minimum(clause_ahead, ahead(next_hypothetical))
    resolved = (ahead(next_conclusion) < scope_end) | (behind_comma & (ahead(next_assertion) < scope_end))
    defined = ahead(next_definition) < jnp.minimum(clause_ahead, ahead(next_assertion))
    hypothetical = ((mode == SUPPOSES) | (mode == INTRODUCES)) & ~resolved
    hypothetical = hypothetical | (mode == DEFINES) | ((mode == NEUTRAL) & defined)
    non_assertive = jnp.where(negated & ~is_shared, (_value(last_denial) == 2) | asks | heading, hypothetical | muted)
    certainty = jnp.where(non_assertive, 0, jnp.where(uncertain, 1, 2))
    polarity = (present != absent).astype(jnp.int32)

    thinking = words.zone == tags.THINK
    think_closed = (
        words.word & ((words.zone == tags.BETWEEN) | (words.zone == tags.ANSWER) | (words.zone == tags.AFTER))
    ).any(0)
    outside_answer = (words.zone != tags.ANSWER) & (words.zone != tags.ANSWER_ALONE)
    counts = number > 0
    counts = counts & (thinking if think_only else jnp.where(think_closed[None], thinking, outside_answer))
    sums = running_sum(jnp.stack([words.boundary, counts], 1).astype(jnp.int32))

    # Hypothetical findings that are denied later without being named.
    assertive = (mode == NEUTRAL) | (mode == OBSERVES) | (behind_comma & (mode != DEFINES))
    asserted = (number > 0) & (certainty > 0)
    denial_cues = _upcoming(
        has("unnamed") & assertive, has("negation_after") & assertive, asserted & (polarity == 1), asserted
    )
    unnamed, negation_ahead, present_ahead, asserted_ahead = (ahead(cue) for cue in denial_cues)

    def within(where: Array, sentences: int) -> Array:
        sentence = jnp.take_along_axis(sums[:, 0], jnp.minimum(where, steps - 1), 0)
        return (where < steps) & (sentence - sums[:, 0] <= sentences)

    later_denied = ((unnamed < present_ahead) & within(unnamed, 2)) | (
        (negation_ahead < asserted_ahead) & within(negation_ahead, 1)
    )
    later_denied = later_denied & non_assertive & ~muted
    certainty, polarity = jnp.where(later_denied, 2, certainty), jnp.where(later_denied, 0, polarity)

    # Side, site and change.
    link_ahead, mention_ahead = jnp.minimum(ahead(next_link), clause_ahead), ahead(next_mention)

    def attribute(cue_behind: Array, cue_ahead: Array) -> Array:
        where, coming = _step(cue_behind), _later(cue_ahead, steps << _PAYLOAD)
        linked = (_step(last_link) > where) & (mention_behind >= 0) & (mention_behind >= _step(last_clause))
        from_left = (where >= 0) & (mention_behind < where) & (_step(last_clause) <= where) & ~linked
        from_right = (_step(coming) < link_ahead) & (_step(coming) <= mention_ahead)
        return jnp.where(from_left, _value(cue_behind), jnp.where(from_right, _value(coming), 0))

    bare_value = attribute(last_change, next_change)
    late = _later(next_late_change, steps << _PAYLOAD)
    late_value = jnp.where((_step(late) < clause_ahead) & (barrier_ahead >= _step(late)), _value(late), 0)
    change = jnp.where(bare_value > 0, bare_value, late_value)

    packed = polarity | certainty << 1 | attribute(last_side, next_side) << 3
    packed = packed | attribute(last_site, next_site) << 5 | change << 10 | (number - 1) << 12
    return _in_slots(words, matches, packed, sums, slots)


def _in_slots(words: Words, matches: Matches, packed: Array, sums: Array, slots: int) -> Findings:
    """The findings at the scan steps where their running count (`sums[:, 1]`) rises, in M = `slots` slots.

    `packed` [T, B]: polarity, certainty, side, site, change and concept, from the lowest bit up; `sums[:, 0]` counts
    sentences.
    """
    texts = packed.shape[1]
    count_TxB = sums[:, 1]
    step_MxB = _first_at_least(count_TxB, jnp.broadcast_to(jnp.arange(1, slots + 1)[:, None], (slots, texts)))
    count_B = sums[-1, 1]
    valid_MxB = jnp.arange(slots, dtype=jnp.int32)[:, None] < count_B[None]

    def pick(values_TxB: Array) -> Array:
        return jnp.where(valid_MxB, jnp.take_along_axis(values_TxB, step_MxB, 0), 0)

    begin = _first_at_least(words.content, jnp.take_along_axis(matches.start, step_MxB, 0))
    fields = pick(packed)
    return Findings(
        concept=(fields >> 12).T, polarity=(fields & 1).T, certainty=((fields >> 1) & 3).T, side=((fields >> 3) & 3).T,
        site=((fields >> 5) & 31).T, change=((fields >> 10) & 3).T, step=pick(sums[:, 0] - 1).T,
        first=jnp.where(valid_MxB, jnp.take_along_axis(words.first, begin, 0), 0).T, last=pick(words.last).T,
        valid=valid_MxB.T, overflow=jnp.maximum(count_B - slots, 0),
    )  # fmt: skip


def _modes(words: Words, matches: Matches, clause: Array, comma: Array) -> tuple[Array, Array, Array]:
    """The mode at each step, whether a comma followed since it began, and which words mute their clause.

    Foreign words mute, and so do the first words of listed options, unless a conclusion announces the option.
    """
    has = partial(_has, matches)
    lasting = has("definition", "lasting")
    hypothesis = jnp.where(lasting, DEFINES, jnp.where(has("introduction"), INTRODUCES, SUPPOSES))
    hypothesis = jnp.where(has("hypothetical"), hypothesis, 0)
    resets = clause & (words.boundary | ~has("continues"))
    colon = words.word & ((words.gap & a.COLON) != 0)
    flags = (resets, comma, has("assertion"), words.word, words.boundary, has("conclusion"), colon)
    packed = hypothesis | sum(flag.astype(jnp.int32) << 3 + bit for bit, flag in enumerate(flags))

    def step(carry: tuple[Array, Array, Array, Array], packed: Array):
        mode, behind_comma, concluded, chosen = carry
        resets, comma, asserts, word, boundary, concludes, colon = (((packed >> 3 + bit) & 1) == 1 for bit in range(7))
        hypothesis, was_chosen = packed & 7, chosen
        chosen = jnp.where(word, colon & concluded, chosen)
        concluded = (concluded & ~boundary) | concludes
        mode = jnp.where(resets, NEUTRAL, mode)
        behind_comma = (behind_comma & ~resets) | comma
        observes = asserts & ((mode != DEFINES) | behind_comma)
        mode = jnp.where(hypothesis > 0, hypothesis, jnp.where(observes, OBSERVES, mode))
        behind_comma = behind_comma & (hypothesis == 0)
        out = mode | behind_comma.astype(jnp.int32) << 3 | was_chosen.astype(jnp.int32) << 4
        return (mode, behind_comma, concluded, chosen), out

    row = jnp.zeros_like(packed[0])
    _, out = jax.lax.scan(step, (row, row > 0, row > 0, row > 0), packed)
    mutes = words.foreign | (words.option & ((out >> 4) == 0))
    return out & 7, ((out >> 3) & 1) == 1, mutes


def _has(matches: Matches, *roles: str) -> Array:
    return (matches.roles & sum(ROLE[role] for role in roles)) != 0


def _step(key: Array) -> Array:
    return key >> _PAYLOAD


def _value(key: Array) -> Array:
    return key & ((1 << _PAYLOAD) - 1)


def _keys(values: tuple[Array, ...], none: int) -> Array:
    """Keys [T, K, B] of K arrays [T, B]: step and value where the value is not 0, `none` elsewhere."""
    stacked = jnp.stack([value.astype(jnp.int32) for value in values], 1)
    step = jnp.arange(stacked.shape[0], dtype=jnp.int32)[:, None, None] << _PAYLOAD
    return jnp.where(stacked > 0, step | stacked, none)


def _last(*values: Array) -> tuple[Array, ...]:
    keys = _running_max(_keys(values, -1), reverse=False)
    return tuple(keys[:, k] for k in range(len(values)))


def _upcoming(*values: Array) -> tuple[Array, ...]:
    keys = _keys(values, values[0].shape[0] << _PAYLOAD)
    keys = -_running_max(-keys, reverse=True)
    return tuple(keys[:, k] for k in range(len(values)))


def _running_max(keys: Array, reverse: bool) -> Array:
    """Running maximum over the first axis, as a scan: on CPU ten times faster than `lax.cummax`."""
    start = jnp.full(keys.shape[1:], jnp.iinfo(jnp.int32).min, jnp.int32)
    _, out = jax.lax.scan(lambda best, key: (jnp.maximum(best, key),) * 2, start, keys, reverse=reverse)
    return out


def running_sum(counts: Array) -> Array:
    """Running sum over the first axis."""
    _, out = jax.lax.scan(lambda total, count: (total + count,) * 2, jnp.zeros(counts.shape[1:], jnp.int32), counts)
    return out


def _first_at_least(rising: Array, threshold: Array) -> Array:
    """The first step at which rising values [T, B] reach each threshold [M, B]; the last step if none does."""
    steps = rising.shape[0]
    first = jnp.zeros(threshold.shape, jnp.int32)
    for bit in reversed(range(steps.bit_length())):
        ahead = first + (1 << bit)
        below = jnp.take_along_axis(rising, jnp.minimum(ahead, steps) - 1, 0) < threshold
        first = jnp.where((ahead <= steps) & below, ahead, first)
    return jnp.minimum(first, steps - 1)


def _earlier(keys: Array) -> Array:
    return jnp.concatenate([jnp.full_like(keys[:1], -1), keys[:-1]])


def _later(keys: Array, none: int) -> Array:
    return jnp.concatenate([keys[1:], jnp.full_like(keys[:1], none)])
