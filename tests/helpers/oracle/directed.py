"""Where a list ends, how far a cue reaches back, and which sides share a finding, as `marked.py` and `rules.py` of
`chestx_jax/findings/` compute them.

A text (`marked.Text`) is given with a word.
"""

from typing import Any

from chestx_jax.lexicon.alphabet import BRACKET, CLOSES_FIRST, HYPHEN
from chestx_jax.lexicon.lexicon import SEVERITIES


def minus(text: Any, i: int) -> bool:
    """Whether "(-)" follows."""
    gap = text.words[i + 1].gap if i + 1 < len(text.words) else 0
    return bool(gap & BRACKET and gap & HYPHEN and not gap & CLOSES_FIRST)


def list_end(text: Any, i: int) -> int:
    """The word before which a list ends, known by what stands at word i; -1 if it does not.

    An attribute or a doubt begins an item of its own behind a comma or "with", if no "or" is to come in the clause;
    ", with" does so alone, and so does a mention behind "and" with a verb of its own.
    """
    if (joint := _own_subject(text, i)) >= 0:
        return joint
    if text.comma(i) and _adds(text, i):
        return i
    record = text.records[i]
    change = record.change and not text.has(i, "change_after")
    attribute = record.side or record.site or change or 0 < record.severity < SEVERITIES.index("severe")
    if not attribute and not text.has(i, "hedge_before"):
        return -1
    for joint in range(i, -1, -1):
        if joint < i and text.mention(joint):
            return -1
        if text.comma(joint) or _adds(text, joint):
            break
    else:
        return -1
    for j in range(i + 1, len(text.words)):
        if text.breaks[j]:
            return joint
        if text.has(j, "disjunction"):
            return -1
    return joint


def _own_subject(text: Any, i: int) -> int:
    """The "and" that the mention at word i stands behind, if it has a verb of its own and nothing is observed behind
    it; else -1."""
    joint = link_before(text, i)
    if not text.mention(i) or joint < 0 or not text.has(joint, "conjunction") or _chooses(text, joint):
        return -1
    verb = False
    for j in range(i + 1, len(text.words)):
        if text.breaks[j]:
            break
        if text.has(j, "assertion") or (text.mention(j) and not verb):
            return -1
        verb = verb or text.has(j, "verb", "change_after")
    return joint if verb else -1


def link_before(text: Any, i: int) -> int:
    """The last comma or conjunction up to word i behind the mention before it; -1 if there is none."""
    for j in range(i, -1, -1):
        if j < i and text.mention(j):
            return -1
        if text.comma(j) or text.has(j, "conjunction"):
            return j
    return -1


def alternative(text: Any, i: int) -> bool:
    """Whether "or" joins the mention at word i with the one behind it or before it."""
    joint = link_before(text, i)
    if joint >= 0 and _chooses(text, joint):
        for j in range(i, -1, -1):
            if j < i and text.mention(j):
                return True
            if text.breaks[j] or text.has(j, "verb"):
                break
    joint = -1
    for j in range(i + 1, len(text.words)):
        if text.breaks[j]:
            return False
        if joint < 0 and (text.comma(j) or text.has(j, "conjunction")):
            joint = j
            if not _chooses(text, j) or text.mention(j):
                return False
        if text.mention(j):
            return joint >= 0
        if text.has(j, "verb", "negation_before"):
            return False
    return False


def _chooses(text: Any, j: int) -> bool:
    return text.has(j, "disjunction") and not text.has(j, "addition")


def _adds(text: Any, j: int) -> bool:
    return text.has(j, "conjunction") and not text.has(j, "addition", "disjunction")


def other_side(text: Any, i: int) -> int:
    """The word of the side before word i that "and" joins with the side at word i; -1 if there is none."""
    side = text.bare_side(i)
    if side not in (1, 2) or text.breaks[i]:
        return -1
    joint = 0
    for j in range(i - 1, -1, -1):
        link = text.comma(j + 1) or text.has(j + 1, "conjunction")
        joint = joint or (link and (2 if text.has(j + 1, "addition") else 1))
        if text.bare_side(j):
            return j if joint == 2 and side + text.bare_side(j) == 3 and not text.mention(j) else -1
        if text.mention(j) or text.breaks[j]:
            return -1
    return -1


def near_finding(text: Any, i: int) -> bool:
    """Whether a mention follows word i before any conjunction, comma or clause."""
    for j in range(i + 1, len(text.words)):
        if text.breaks[j] or text.comma(j) or text.has(j, "conjunction"):
            return False
        if text.mention(j):
            return True
    return False


def finding_shared(text: Any, i: int) -> int:
    """The word of the finding ahead that the side at word i stands for; -1 if none."""
    if not text.bare_side(i):
        return -1
    second = next((j for j in range(i + 1, len(text.words)) if text.bare_side(j)), -1)
    if second < 0 or other_side(text, second) != i or not near_finding(text, second):
        return -1
    for j in range(i, -1, -1):
        if j < i and text.mention(j):
            return -1
        if text.breaks[j] or text.comma(j) or text.has(j, "conjunction"):
            break
    found = next(j for j in range(second + 1, len(text.words)) if text.mention(j))
    return found if text.records[found].concept and not text.records[found].inverse else -1


def has_subject(text: Any, i: int, j: int) -> bool:
    """Whether the verb of the cue at word j may mean the mention at word i, going by its number."""
    between = range(i + 1, j)
    listed = any(text.has(k, "disjunction") for k in between)
    return not text.has(j, "singular") or listed or not any(text.comma(k) or text.has(k, "addition") for k in between)
