"""Where a list ends, and how far a cue reaches back; `chestx_jax/findings/marked.py` and `rules.py` compute the same.

A text (`scopes.Text`) is given with a word.
"""

from typing import Any

from chestx_jax.lexicon.alphabet import BRACKET, CLOSES_FIRST, HYPHEN
from chestx_jax.lexicon.lexicon import SEVERITIES


def minus(text: Any, i: int) -> bool:
    """Whether "(-)" follows."""
    gap = text.words[i + 1].gap if i + 1 < len(text.words) else 0
    return bool(gap & BRACKET and gap & HYPHEN and not gap & CLOSES_FIRST)


def ends_list(text: Any, i: int) -> bool:
    """Whether an attribute begins an item of its own, behind a comma or "with", with no "or" to come in the clause."""
    record = text.records[i]
    change = record.change and not text.has(i, "change_after")
    if not (record.side or record.site or change or 0 < record.severity < SEVERITIES.index("severe")):
        return False
    for j in range(i, -1, -1):
        if j < i and text.mention(j):
            return False
        if text.comma(j) or (text.has(j, "conjunction") and not text.has(j, "addition", "disjunction")):
            break
    else:
        return False
    for j in range(i + 1, len(text.words)):
        if text.breaks[j]:
            return True
        if text.has(j, "disjunction"):
            return False
    return True


def has_subject(text: Any, i: int, j: int) -> bool:
    """Whether the verb of the cue at word j may mean the mention at word i, going by its number."""
    between = range(i + 1, j)
    listed = any(text.has(k, "disjunction") for k in between)
    return not text.has(j, "singular") or listed or not any(text.comma(k) or text.has(k, "addition") for k in between)
