"""A text with its clauses, its modes and the nearest cues: what the rules look at.

* Clauses end at sentence bounds, semicolons and terminators ("but").
* Behind a comma or "with", an item with an attribute or a doubt of its own ends a list ("no pneumothorax, small left
  effusion") that no "or" goes on with ("no pneumothorax, large effusion, or mass"); so does one behind "and" with a
  verb of its own that observes nothing ("no pneumothorax and the effusion is smaller"). ", with" ends one at once.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from chestx_jax.findings.arrays import Array, ArrayOps
from chestx_jax.findings.rules import nearest
from chestx_jax.findings.rules.matches import Matches, start_ahead
from chestx_jax.findings.rules.nearest import Nearest, before
from chestx_jax.findings.words import Words
from chestx_jax.lexicon import alphabet as a
from chestx_jax.lexicon.lexicon import CHANGES, SEVERITIES

# Modes of a text at a word: neutral, observing, or hypothetical in one of three ways.
NEUTRAL, OBSERVES, SUPPOSES, INTRODUCES, DEFINES = range(5)
COMMA, WITH, AND, OR = 1, 2, 3, 4  # links of a list; WITH: all other conjunctions
LINKS, ENDS, MINUS = 2, 3, 4  # a word behind a conjunction or comma, or behind the end of a phrase; behind "(-)"
NAMELESS = 511  # value of a mention that names no present concept


class MarkedText(NamedTuple):
    """What several rules look at, of B texts in T steps."""

    ops: ArrayOps
    words: Words
    matches: Matches
    clause: Bool[Array, "T B"]  # the word begins a clause
    mode: Int[Array, "T B"]
    behind_comma: Bool[Array, "T B"]  # a comma followed since the mode's cue or the clause began
    last: Any  # `nearest.up_to_here` of the cues
    stop: Int[Array, "T B"]  # step of the last stop of what precedes a mention, up to here
    announced: Bool[Array, "T B"]  # the word before stands behind the announcement of a conclusion
    next: Any  # `nearest.after` of the cues
    entity_start: Int[Array, "T B"]  # least start of the entities' matches ahead
    change_start: Int[Array, "T B"]  # the same of what tells of a change

    def gap(self, flag: int) -> Bool[Array, "T B"]:
        """Words with such a separator before them."""
        return gap(self.words, flag)

    @property
    def steps(self) -> int:
        return self.words.word.shape[0]


def mark(ops: ArrayOps, words: Words, matches: Matches) -> MarkedText:
    """The text with its nearest cues, clauses and modes."""
    xp, has = ops.xp, matches.has
    mention = matches.mention
    barrier = has("verb", "negation_before")
    comma = gap(words, a.COMMA)
    clause = words.boundary | gap(words, a.SEMICOLON) | has("terminator")
    link = xp.where(has("conjunction"), xp.where(has("disjunction"), OR, WITH), xp.where(comma, COMMA, 0))
    link = xp.where(has("addition"), AND, link)
    side = bare_side(xp, matches)
    ends = words.closing | words.boundary | gap(words, a.COMMA | a.SEMICOLON)
    minus = gap(words, a.BRACKET) & gap(words, a.HYPHEN) & ~gap(words, a.CLOSES_FIRST)
    hypothesis = xp.where(
        has("definition", "lasting"), DEFINES, xp.where(has("introduction"), INTRODUCES, SUPPOSES)
    ).astype(np.int32)
    resets = clause & (words.boundary | ~has("continues"))
    begun = xp.where(has("hypothetical"), hypothesis + 1, resets.astype(np.int32))
    bullet = words.boundary & gap(words, a.BULLET)
    lists = xp.where(has("lists"), 2, (has("hypothetical") | (resets & ~bullet)).astype(np.int32))
    ahead = nearest.after(
        ops,
        clause=clause,
        boundary=xp.where(words.boundary, xp.where(a.asks(words.gap), 2, 1), 0),
        mention=xp.where(matches.inverse | (matches.concept == 0), xp.where(mention, NAMELESS, 0), matches.concept),
        entity=matches.entity,
        side=side,
        link=link,
        barrier=barrier,
        verb=has("verb"),
        predicate=has("verb", "change_after"),
        word=xp.where(
            words.word, xp.where(ends, ENDS, xp.where(link > 0, LINKS, 1)) | minus.astype(np.int32) * MINUS, 0
        ),
        hypothetical=has("hypothetical"),
        conclusion=has("conclusion"),
        assertion=has("assertion"),
        definition=has("definition"),
        parted=comma | has("addition"),
        disjunction=has("disjunction"),
    )
    last = nearest.up_to_here(
        ops,
        clause=clause,
        boundary=words.boundary,
        mention=mention,
        entity=matches.entity,
        side=side,
        link=link,
        joint=comma | adds_item(matches),
        background=has("background"),
        turn=clause | has("verb"),
        asserted_cue=barrier | has("assertion"),
        conclusion=has("conclusion"),
        begun=begun,
        lists=lists,
        listed=bullet & gap(words, a.COLON),
        comma=comma & ~has("hypothetical"),
        refers=has("refers"),
        prefers=has("prefers"),
        concept=matches.concept > 0,
        subject=clause & (words.boundary | ~has("relative")),
    )
    # A hypothetical cue or a new clause begins a mode; the first words of observation after it, and after a definition
    # the first behind a comma, turn it into OBSERVES.
    begun = xp.maximum(last.begun.value - 1, NEUTRAL)
    begun = xp.where((last.lists.value == 2) & (last.listed.step > last.lists.step), SUPPOSES, begun)
    behind_comma = (last.comma.step >= 0) & (last.comma.step >= last.begun.step)
    ended = list_ends(xp, words, matches, last, before(ops, last.mention), ahead)
    conclusion, boundary = before(ops, last.conclusion).step, before(ops, last.boundary).step
    announced = gap(words, a.COLON) & (conclusion >= 0) & (conclusion >= boundary)
    behind = nearest.up_to_here(
        ops,
        observes=has("assertion") & ~has("hypothetical") & ((begun != DEFINES) | behind_comma),
        stop=nearest.of_two(ops, clause | has("verb"), ended),
        word=xp.where(words.word, xp.where(announced, 2, 1), 0),
    )
    observing = (behind.observes.step >= 0) & (behind.observes.step >= last.begun.step)
    moves = (matches.change > CHANGES.index("stable")) | has("change_after")
    starts = start_ahead(ops, matches.start[:, None], xp.stack([matches.entity > 0, moves], 1))
    return MarkedText(
        ops=ops, words=words, matches=matches, clause=clause, mode=xp.where(observing, OBSERVES, begun),
        behind_comma=behind_comma, last=last, stop=behind.stop.step, announced=before(ops, behind.word).value == 2,
        next=ahead, entity_start=starts[:, 0], change_start=starts[:, 1],
    )  # fmt: skip


def adds_item(matches: Matches) -> Bool[Array, "T B"]:
    """Where "with" or the like begins an item that may end a list."""
    return matches.has("conjunction") & ~matches.has("addition", "disjunction")


def list_ends(xp: Any, words: Words, matches: Matches, last: Any, mention_before: Nearest, following: Any) -> Nearest:
    """The joint at which a list ends, where its last item is known; given the nearest cues on both sides."""
    attribute = (matches.side > 0) | (matches.site > 0) | ((matches.change > 0) & ~matches.has("change_after"))
    attribute = attribute | ((matches.severity > 0) & (matches.severity < SEVERITIES.index("severe")))
    item = (attribute | matches.has("hedge_before")) & (last.joint.step > mention_before.step)
    goes_on = following.disjunction.step < following.clause.step
    own_verb = following.predicate.step < xp.minimum(following.clause.step, following.mention.step)
    own_verb = own_verb & (following.assertion.step >= following.clause.step)
    adds = (last.link.value == AND) | (last.link.value == WITH)
    subject = matches.mention & own_verb & adds & (last.link.step > mention_before.step)
    ends = subject | (item & ~goes_on) | (gap(words, a.COMMA) & adds_item(matches))
    return Nearest(xp.where(subject, last.link.step, last.joint.step), ends)


def gap(words: Words, flag: int) -> Bool[Array, "T B"]:
    return words.word & ((words.gap & flag) != 0)


def bare_side(xp: Any, matches: Matches) -> Int[Array, "T B"]:
    """The side that a word names which is no finding and no part of the body."""
    return xp.where(matches.mention | (matches.entity > 0), 0, matches.side)
