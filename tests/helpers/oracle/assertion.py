"""Whether a text asserts a mention.

* What follows a hypothetical cue ("look for") in its clause asserts nothing; with a definition ("would appear as"),
  nor does what precedes it. Words of observation ("the image shows") end this; after a lasting cue ("if") only behind
  a comma. An introduction ("to assess the heart, …") ends at a comma before a denial.
* A hypothetical or hedged finding that is later denied without being named ("look for edema. None is seen.") is denied.
* Headings, questions, listed options assert nothing; the option that the text concludes on does.
"""

from chestx_jax.lexicon.alphabet import CLOSES_FIRST, COLON, DOUBT, QUESTION
from tests.helpers.oracle.marked import DEFINES, INTRODUCES, NEUTRAL, OBSERVES, SUPPOSES, Text


def non_assertive(text: Text, i: int, negation: int) -> bool:
    """Whether the mention at word i asserts nothing; `negation` is the word of the negation that reaches it, or -1.

    A denial asserts whatever follows it ("no opacity that would suggest"); only the mode before the negation counts
    ("there should be no opacity").
    """
    if _muted(text, i, negation) or _asks(text, i):
        return True
    mode, comma = text.modes[i if negation < 0 else negation]
    if negation >= 0:
        return mode in (SUPPOSES, DEFINES) or (mode == INTRODUCES and not comma)
    if mode in (SUPPOSES, INTRODUCES):
        return not _observed_ahead(text, i, comma)
    if mode == NEUTRAL:
        return _defined_ahead(text, i)
    return mode != OBSERVES


def _observed_ahead(text: Text, i: int, comma: bool) -> bool:
    """Whether a conclusion, a denial, or (if `comma`) an observation follows in the clause before another cue."""
    for j in range(i + 1, len(text.words)):
        if text.breaks[j] or text.has(j, "hypothetical"):
            return False
        if text.has(j, "conclusion") or text.denies_behind(j) or (comma and text.has(j, "assertion")):
            return True
    return False


def _defined_ahead(text: Text, i: int) -> bool:
    """Whether a definition follows in the clause before any words of observation."""
    for j in range(i + 1, len(text.words)):
        if text.breaks[j] or text.has(j, "assertion"):
            return False
        if text.has(j, "definition"):
            return True
    return False


def answer(text: Text, i: int, asserted: dict[int, bool]) -> str:
    """What the hypothetical or hedged finding at word i is answered later without being named.

    `asserted`: polarity of the asserted findings by their last word. "Not seen" denies what the sentence before or the
    same one supposes, asks or hedges, if no finding is asserted in between; so do "yes" and, of a question, "possibly"
    affirm and hedge it, with no finding of its own in the clause. The "yes" of another sentence affirms no hedged
    finding. "This rules out the option" also denies what is supposed two sentences before, if no present finding is.
    """
    sentences, near, unnamed = 0, True, False
    for j in range(i + 1, len(text.words)):
        sentences += text.words[j].boundary
        near = near and j not in asserted and sentences < 2
        if asserted.get(j) or sentences > 2:
            break
        unnamed = unnamed or (text.has(j, "unnamed") and _assertive(text, j) and i not in asserted)
        if near and _assertive(text, j) and (answer := _answer_at(text, j)):
            if (answer != "hedged" or _asks(text, i)) and (answer != "affirmed" or i not in asserted or not sentences):
                return answer
            near = False
    return "denied" if unnamed else ""


def _assertive(text: Text, j: int) -> bool:
    mode, comma = text.modes[j]
    return mode in (NEUTRAL, OBSERVES) or (comma and mode != DEFINES)


def _answer_at(text: Text, j: int) -> str:
    if text.denies_behind(j):
        return "denied"
    if text.has(j, "affirms") and (not text.has(j, "reply") or text.ends_phrase(j)):
        return "affirmed"
    alone = not text.stands_before(j, text.mention, text.breaks.__getitem__)
    return "hedged" if text.hedges_behind(j) and alone else ""


def _muted(text: Text, i: int, negation: int = -1) -> bool:
    """Whether word i is in a heading, or a clause with a muting word (before the negation, where given)."""
    start = i
    while not text.breaks[start] and start > 0:
        start -= 1
    end = i + 1
    while end < len(text.words) and not text.breaks[end]:
        end += 1
    mutes = any(_mutes(text, j) for j in range(start, end if negation < 0 else negation + 1))
    return mutes or is_heading(text, i) or is_background(text, i)


def _asks(text: Text, i: int) -> bool:
    """Whether word i is in a question."""
    end = next((j for j in range(i + 1, len(text.words)) if text.words[j].boundary), None)
    return end is not None and bool(text.words[end].gap & QUESTION) and not text.words[end].gap & DOUBT


def is_heading(text: Text, i: int) -> bool:
    """Whether a mention only names the subject of what follows a colon ("Effusion: the angles are sharp.")."""
    for j in range(i, -1, -1):
        if text.has(j, "verb", "negation_before", "assertion"):
            return False
        if text.words[j].boundary:
            break
    for j in range(i + 1, len(text.words)):
        word = text.words[j]
        if word.gap & COLON:
            if text.denies_behind(j) or text.has(j, "affirms"):
                return False
            if word.boundary:
                return True
            stop = next((k for k in range(j + 1, len(text.words)) if text.words[k].boundary), len(text.words))
            return any(text.mention(k) for k in range(j, stop))
        if word.boundary or text.has(j, "verb", "negation_before", "assertion"):
            return False
    return False


def is_background(text: Text, i: int) -> bool:
    """Whether word i tells of the patient, not of the films."""

    def stops(j: int) -> bool:
        return text.breaks[j] or text.has(j, "verb") or (text.comma(j) and not text.has(j, "hypothetical"))

    return text.stands_before(i, lambda j: text.has(j, "background"), stops)


def _mutes(text: Text, j: int) -> bool:
    """Whether word j begins a listed option ("A) …" at the start of a sentence) that was not chosen."""
    word = text.words[j]
    if j + 1 == len(text.words):
        return False
    letter = text.words[j - 1] if j else word
    single = len(letter.text) == 1 and letter.text.isalpha()
    listed = bool(j) and single and letter.boundary and bool(word.gap & CLOSES_FIRST)
    return listed and not _chosen(text, j - 1)


def _chosen(text: Text, i: int) -> bool:
    """Whether the sentence before word i announces a conclusion ("The correct answer is:")."""
    if not text.words[i].gap & COLON:
        return False
    for j in range(i - 1, -1, -1):
        if text.has(j, "conclusion"):
            return True
        if text.words[j].boundary:
            return False
    return False
