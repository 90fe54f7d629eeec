"""From words to findings, by rules that are written once, over an array namespace: numpy runs them on the host,
`jax.numpy` in jit. Arrays are [T, B]: T steps at which words end, B texts.

Each rule stands at the head of its file: clauses and lists in `marked`, the reach of negations and doubts in `cues`,
what is mentioned in `mentions`, what asserts nothing in `assertion`, sides, sites and change in `attributes`.
"""

import numpy as np

from chestx_jax.findings.arrays import ArrayOps
from chestx_jax.findings.rules import nearest
from chestx_jax.findings.rules.assertion import DENIED, HEDGED, background, find_answer, hypothetical, muted
from chestx_jax.findings.rules.attributes import read_attributes
from chestx_jax.findings.rules.cues import read_cues
from chestx_jax.findings.rules.marked import DEFINES, INTRODUCES, SUPPOSES, mark
from chestx_jax.findings.rules.matches import Matches
from chestx_jax.findings.rules.mentions import read_mentions
from chestx_jax.findings.slots import Claims
from chestx_jax.findings.words import Words
from chestx_jax.lexicon.tables import Meanings


def read_claims(ops: ArrayOps, meanings: Meanings, words: Words, matches: Matches) -> Claims:
    """What B texts say, wherever a mention ends."""
    xp = ops.xp
    text = mark(ops, words, matches)
    cues = read_cues(text)
    mentions = read_mentions(text, cues, meanings)
    option_before, asks, heading, option_after = muted(text, cues)
    named_only = heading | background(text)
    supposed = (text.mode == SUPPOSES) | (text.mode == DEFINES) | ((text.mode == INTRODUCES) & ~text.behind_comma)
    # A denial asserts whatever follows it ("no opacity that would suggest"): only what precedes the negation counts.
    denial = nearest.up_to_here(
        ops, cue=xp.where(cues.denies_ahead, 1 + (supposed | option_before).astype(np.int32), 0)
    ).cue
    still_muted = (denial.value == 2) | asks | named_only
    supposes = hypothetical(text, cues) | asks | option_before | option_after | named_only
    non_assertive = xp.where(cues.negated & ~mentions.shared, still_muted, supposes)
    certainty = xp.where(non_assertive, 0, xp.where(mentions.hedged, 1, 2)).astype(np.int32)
    polarity = (mentions.present != mentions.negated).astype(np.int32)
    sentence = ops.sum_so_far(words.boundary.astype(np.int32)) - 1
    asserted = (mentions.number > 0) & (certainty > 0)
    hedged = asserted & (certainty == 1) & (polarity == 1)
    answer = find_answer(text, cues, sentence, asserted, asserted & (polarity == 1), hedged, asks)
    weighed = (non_assertive & ~named_only) | hedged
    answer = xp.where(weighed & (mentions.present | (answer != DENIED)), answer, 0)
    attributes = read_attributes(text)
    return Claims(
        number=mentions.number,
        polarity=xp.where(answer > 0, mentions.present ^ (answer == DENIED), polarity == 1).astype(np.int32),
        certainty=xp.where(answer > 0, xp.where(answer == HEDGED, 1, 2), certainty),
        **attributes._asdict(),
        sentence=sentence,
        start=matches.start,
    )
