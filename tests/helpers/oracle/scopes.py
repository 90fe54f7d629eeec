"""From words to findings: which matches count, what they attach to, and how far each cue reaches.

Each rule is a walk from a mention to the left or right up to a cue or a stop; `chestx_jax/findings/rules.py` computes
the same with running maxima.

* A match is dropped if one that ends later overlaps it ("pleural" in "pleural effusion"), and is not dropped itself.
* Clauses end at sentence bounds, semicolons and terminators ("but").
* A negation before a mention reaches it unless the clause ends, a finite verb lies between, or a list breaks ("no
  effusion, stable cardiomegaly"). A negation after reaches back to the nearest verb, negation or clause bound;
  a mention behind a verb of its own ("the heart is enlarged and edema is absent") only with no mention in between.
* A predicate ("enlarged") applies to the entity right after it ("enlarged heart"), else to the last one before it in
  the clause ("heart is enlarged"); entities in a row share one ("heart and mediastinum are normal").
* What repeats a finding ("none on the left") is a mention of the last concept before it.
* What follows a hypothetical cue ("look for") in its clause asserts nothing; with a definition ("would appear as"),
  nor does what precedes it. Words of observation ("the image shows") end this; after a lasting cue ("if") only behind
  a comma. An introduction ("to assess the heart, …") ends at a comma before a denial.
* A hypothetical or hedged finding that is later denied without being named ("look for edema. None is seen.") is denied.
* Headings, questions, listed options assert nothing; the option that the text concludes
  on does.
"""

from collections.abc import Callable
from dataclasses import dataclass

from chestx_jax.findings.slots import ASSERTED, HEDGED, HYPOTHETICAL, Finding
from chestx_jax.lexicon.alphabet import BULLET, CLOSES_FIRST, COLON, COMMA, DOUBT, QUESTION, SEMICOLON
from chestx_jax.lexicon.automaton import Automaton
from chestx_jax.lexicon.lexicon import ROLE, Lexicon, Record
from tests.helpers.oracle.attributes import read_attributes
from tests.helpers.oracle.directed import finding_shared, has_subject, list_end, minus, near_finding, other_side
from tests.helpers.oracle.words import Word

_NOTHING = Record()
# Modes of a text at a word: neutral, observing, or hypothetical in one of three ways.
NEUTRAL, OBSERVES, SUPPOSES, INTRODUCES, DEFINES = range(5)


@dataclass(frozen=True)
class _Text:
    """A text's words and, for each word, its match and clause."""

    words: list[Word]
    records: list[Record]  # of the matches that count; `Record()` elsewhere
    starts: list[int]  # content number of the match's first lexeme
    breaks: list[bool]  # the word begins a clause
    modes: list[tuple[int, bool]]  # the mode, and whether a comma followed since it began

    def has(self, i: int, *roles: str) -> bool:
        return any(self.records[i].roles & ROLE[role] for role in roles)

    def entity_or_finding(self, i: int) -> bool:
        record = self.records[i]
        return bool(record.entity) or self.mention(i)

    def mention(self, i: int) -> bool:
        return bool(self.records[i].concept or self.records[i].predicate) or self.has(i, "repeats")

    def bare_side(self, i: int) -> int:
        """The side that word i names, if it is no mention and no entity."""
        return 0 if self.entity_or_finding(i) else self.records[i].side

    def comma(self, i: int) -> bool:
        return bool(self.words[i].gap & COMMA)

    def ends_before(self, i: int) -> bool:
        """Whether a phrase ends before word i."""
        closes = self.words[i].boundary or i + 1 == len(self.words)
        return closes or bool(self.words[i].gap & (COMMA | SEMICOLON))

    def ahead(self, i: int) -> bool:
        """Whether a cue at word i that may stand on either side belongs to a mention ahead of it."""
        if i + 1 == len(self.words) or self.ends_before(i + 1) or self.has(i + 1, "conjunction"):
            return False
        for j in range(i + 1, len(self.words)):
            if self.breaks[j]:
                return False
            if self.mention(j):
                return True
            if self.has(j, "verb", "negation_before"):
                return False
        return False

    def replies(self, i: int) -> bool:
        return self.has(i, "reply") and self.has(i, "negation_before") and self.ends_phrase(i)

    def ends_phrase(self, i: int) -> bool:
        return i + 1 < len(self.words) and self.ends_before(i + 1)

    def denies_ahead(self, i: int) -> bool:
        if self.replies(i) or not self.has(i, "negation_before"):
            return False
        return not self.has(i, "negation_after") or self.ahead(i)

    def denies_behind(self, i: int) -> bool:
        if self.replies(i):
            return True
        return self.has(i, "negation_after") and not (self.has(i, "negation_before") and self.ahead(i))

    def hedges_ahead(self, i: int) -> bool:
        hedges = self.has(i, "hedge_before") and (not self.has(i, "hedge_after") or self.ahead(i))
        return hedges or bool(self.words[i].gap & DOUBT)

    def hedges_behind(self, i: int) -> bool:
        ahead = self.has(i, "hedge_before") and self.ahead(i) and not self.has(i, "conjunction")
        return self.has(i, "hedge_after") and not ahead


def read_findings(lexicon: Lexicon, automaton: Automaton, words: list[Word]) -> list[Finding]:
    """The findings of a text's words (from `words.read_words`), in order, hypothetical ones included."""
    text = _select_matches(automaton, words)
    findings: dict[int, Finding] = {}  # by the last word of the mention
    open_ones: set[int] = set()  # hypothetical and hedged ones that may be answered later in the text
    step = -1
    for i, word in enumerate(words):
        step += word.boundary
        claim = _claim(lexicon, text, i)
        if claim is None:
            continue
        concept, present, cue_word, negated = claim
        negated = negated or _follows(text, cue_word, text.denies_behind) or (cue_word >= 0 and minus(text, cue_word))
        hedged = _before(text, cue_word, text.hedges_ahead) or _follows(text, cue_word, text.hedges_behind)
        non_assertive = _non_assertive(text, i, _negation_of(text, i) if cue_word == i else -1)
        if (non_assertive and not _is_heading(text, i) and not _is_background(text, i)) or (
            hedged and not non_assertive and present != negated
        ):
            open_ones.add(i)
        begin = next(k for k in range(i + 1) if words[k].content >= text.starts[i])
        findings[i] = Finding(
            concept - 1, int(present != negated), HYPOTHETICAL if non_assertive else HEDGED if hedged else ASSERTED,
            step=step, first=words[begin].first, last=word.last, **read_attributes(text, i),
        )  # fmt: skip
    asserted = {i: bool(finding.polarity) for i, finding in findings.items() if finding.certainty}
    return [
        _answered(finding, _answer(text, i, asserted), _claim(lexicon, text, i)[1]) if i in open_ones else finding
        for i, finding in findings.items()
    ]


def _answered(finding: Finding, answer: str, present: bool) -> Finding:
    if not answer or (answer == "denied" and not present):
        return finding
    certainty = HEDGED if answer == "hedged" else ASSERTED
    return finding._replace(polarity=int(present != (answer == "denied")), certainty=certainty)


def _claim(lexicon: Lexicon, text: _Text, i: int) -> tuple[int, bool, int, bool] | None:
    """What a mention that ends at word i claims: concept, presence, the word whose cues count, and its negation before.

    None where word i ends no mention, an entity and predicate that say nothing together, or repeats nothing.
    """
    claim = _named(lexicon, text, i)
    shares_behind = other_side(text, i) >= 0 and not near_finding(text, i)
    if claim is None and (text.has(i, "repeats") or shares_behind):
        named = next((claim for j in range(i - 1, -1, -1) if (claim := _named(lexicon, text, j))), None)
        return named and (*named[:2], i, _before(text, i, text.denies_ahead))
    return claim


def _named(lexicon: Lexicon, text: _Text, i: int) -> tuple[int, bool, int, bool] | None:
    """`_claim` of a mention with a name of its own."""
    record = text.records[i]
    shared = finding_shared(text, i)
    if shared >= 0:
        return text.records[shared].concept, True, i, _before(text, i, text.denies_ahead)
    if record.concept:
        return record.concept, not record.inverse, i, _before(text, i, text.denies_ahead)
    if record.predicate:
        predicate_word, entity = i, _entity_of(text, i)
    elif record.entity:
        predicate_word, entity = _shared_predicate(text, i), record.entity
    else:
        return None
    predicate = text.records[predicate_word].predicate if predicate_word >= 0 else 0
    pair = lexicon.pairs.get((entity, predicate))
    return None if pair is None else (*pair, predicate_word, _predicate_negated(text, predicate_word))


def _select_matches(automaton: Automaton, words: list[Word]) -> _Text:
    records, starts = [], []
    covered = [False] * len(words)
    for _ in range(2):
        covered = [_covered(automaton, words, i, covered) for i in range(len(words))]
    for i, word in enumerate(words):
        record = automaton.records[word.state]
        starts.append(word.content - int(automaton.depth[word.state]) + 1)
        if record is None or (not word.passed and _covered(automaton, words, i, covered)):
            record = _NOTHING
        records.append(record)
    text = _Text(words, records, starts, [], [])
    for i, word in enumerate(words):
        text.breaks.append(word.boundary or bool(word.gap & SEMICOLON) or text.has(i, "terminator"))
        text.modes.append(_mode(text, i))
    return text


def _mode(text: _Text, i: int) -> tuple[int, bool]:
    """The mode at word i, given that of the word before, and whether a comma followed since it began."""
    mode, comma = text.modes[-1] if i else (NEUTRAL, False)
    if text.breaks[i] and not (text.has(i, "continues") and not text.words[i].boundary):
        mode, comma = (SUPPOSES if _listed(text, i) else NEUTRAL), False
    comma = comma or bool(text.words[i].gap & COMMA)
    if text.has(i, "hypothetical"):
        lasting = text.has(i, "definition", "lasting")
        return (DEFINES if lasting else INTRODUCES if text.has(i, "introduction") else SUPPOSES), False
    if text.has(i, "assertion") and (mode != DEFINES or comma):
        return OBSERVES, comma
    return mode, comma


def _listed(text: _Text, i: int) -> bool:
    """Whether word i begins a marked line below one that tells what an option lists ("Option A mentions:")."""
    led = False
    for j in range(i, -1, -1):
        if j < i and text.has(j, "hypothetical"):
            return led and text.has(j, "lists")
        bullet = text.words[j].boundary and bool(text.words[j].gap & BULLET)
        led = led or (bullet and bool(text.words[j].gap & COLON))
        if text.breaks[j] and not bullet and not (text.has(j, "continues") and not text.words[j].boundary):
            return False
    return False


def _covered(automaton: Automaton, words: list[Word], i: int, left_out: list[bool]) -> bool:
    """Whether a later match, of those that are not left out, begins at or before this one's last lexeme."""
    for j in range(i + 1, len(words)):
        later, depth = words[j], int(automaton.depth[words[j].state])
        if depth and not later.passed and not left_out[j] and later.content - depth + 1 <= words[i].content:
            return True
        if later.content > words[i].content + 16:  # longer than any phrase
            return False
    return False


def _before(text: _Text, i: int, is_cue: Callable[[int], bool], stops: Callable[[int], bool] | None = None) -> bool:
    """Whether a cue at or before word i reaches it: no clause, verb, end of a list or other stop follows the cue."""
    end = -1
    for j in range(i, -1, -1):
        if is_cue(j):
            return True
        end = max(end, list_end(text, j))
        if text.breaks[j] or text.has(j, "verb") or j <= end or (stops and stops(j)):
            return False
    return False


def _predicate_negated(text: _Text, i: int) -> bool:
    """Whether a negation reaches the predicate with no mention or entity in between ("is not enlarged")."""
    if not _before(text, i, text.denies_ahead):
        return False
    for j in range(i - 1, -1, -1):
        if text.denies_ahead(j):
            return True
        if text.entity_or_finding(j):
            return False
    return False


def _follows(text: _Text, i: int, is_cue: Callable[[int], bool]) -> bool:
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


def _entity_of(text: _Text, i: int) -> int:
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


def _entity_before(text: _Text, i: int) -> int:
    """The last entity before word i, if no concept has been named since; 0 if none."""
    for j in range(i, -1, -1):
        if j < i and text.records[j].entity and not text.records[j].concept:
            return text.records[j].entity
        if text.records[j].concept:
            return 0
    return 0


def _next_entity(text: _Text, i: int) -> int:
    for j in range(i + 1, len(text.words)):
        if text.breaks[j]:
            return -1
        if text.records[j].entity:
            return j
    return -1


def _attributive(text: _Text, i: int) -> bool:
    """Whether an entity follows the predicate immediately."""
    ahead = _next_entity(text, i)
    return ahead >= 0 and text.starts[ahead] == text.words[i].content + 1


def _shared_predicate(text: _Text, i: int) -> int:
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


def _carried_predicate(text: _Text, i: int) -> int:
    """The predicate before a row's first entity ("normal heart size and mediastinal contours"); -1 if none."""
    seen_entity = False
    for j in range(i - 1, -1, -1):
        if text.breaks[j + 1] or text.has(j + 1, "verb"):
            return -1
        seen_entity = seen_entity or bool(text.records[j].entity)
        if text.records[j].predicate:
            return j if seen_entity and _attributive(text, j) else -1
    return -1


def _negation_of(text: _Text, i: int) -> int:
    """The word of the negation that reaches word i from the left; -1 if none does."""
    if not _before(text, i, text.denies_ahead):
        return -1
    return next(j for j in range(i, -1, -1) if text.denies_ahead(j))


def _non_assertive(text: _Text, i: int, negation: int) -> bool:
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


def _observed_ahead(text: _Text, i: int, comma: bool) -> bool:
    """Whether a conclusion, a denial, or (if `comma`) an observation follows in the clause before another cue."""
    for j in range(i + 1, len(text.words)):
        if text.breaks[j] or text.has(j, "hypothetical"):
            return False
        if text.has(j, "conclusion") or text.denies_behind(j) or (comma and text.has(j, "assertion")):
            return True
    return False


def _defined_ahead(text: _Text, i: int) -> bool:
    """Whether a definition follows in the clause before any words of observation."""
    for j in range(i + 1, len(text.words)):
        if text.breaks[j] or text.has(j, "assertion"):
            return False
        if text.has(j, "definition"):
            return True
    return False


def _answer(text: _Text, i: int, asserted: dict[int, bool]) -> str:
    """What the hypothetical or hedged finding at word i is answered later without being named.

    `asserted`: polarity of the asserted findings by their last word. "Not seen" denies what the sentence before or the
    same one supposes, asks or hedges, if no finding is asserted in between; so do "yes" and, of a question, "possibly"
    affirm and hedge it. "This rules out the option" also denies what is supposed two sentences before, if no present
    finding is.
    """
    sentences, near, unnamed = 0, True, False
    for j in range(i + 1, len(text.words)):
        sentences += text.words[j].boundary
        near = near and j not in asserted and sentences < 2
        if asserted.get(j) or sentences > 2:
            break
        unnamed = unnamed or (text.has(j, "unnamed") and _assertive(text, j) and i not in asserted)
        if near and _assertive(text, j) and (answer := _answer_at(text, j)):
            if answer != "hedged" or _asks(text, i):
                return answer
            near = False
    return "denied" if unnamed else ""


def _assertive(text: _Text, j: int) -> bool:
    mode, comma = text.modes[j]
    return mode in (NEUTRAL, OBSERVES) or (comma and mode != DEFINES)


def _answer_at(text: _Text, j: int) -> str:
    if text.denies_behind(j):
        return "denied"
    if text.has(j, "affirms") and (not text.has(j, "reply") or text.ends_phrase(j)):
        return "affirmed"
    return "hedged" if text.hedges_behind(j) else ""


def _muted(text: _Text, i: int, negation: int = -1) -> bool:
    """Whether word i is in a heading, or a clause with a muting word (before the negation, where given)."""
    start = i
    while not text.breaks[start] and start > 0:
        start -= 1
    end = i + 1
    while end < len(text.words) and not text.breaks[end]:
        end += 1
    mutes = any(_mutes(text, j) for j in range(start, end if negation < 0 else negation + 1))
    return mutes or _is_heading(text, i) or _is_background(text, i)


def _asks(text: _Text, i: int) -> bool:
    """Whether word i is in a question."""
    end = next((j for j in range(i + 1, len(text.words)) if text.words[j].boundary), None)
    return end is not None and bool(text.words[end].gap & QUESTION) and not text.words[end].gap & DOUBT


def _is_heading(text: _Text, i: int) -> bool:
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


def _is_background(text: _Text, i: int) -> bool:
    """Whether word i tells of the patient, not of the films."""
    return _before(
        text, i, lambda j: text.has(j, "background"), lambda j: text.comma(j) and not text.has(j, "hypothetical")
    )


def _mutes(text: _Text, j: int) -> bool:
    """Whether word j begins a listed option ("A) …" at the start of a sentence) that was not chosen."""
    word = text.words[j]
    if j + 1 == len(text.words):
        return False
    letter = text.words[j - 1] if j else word
    single = len(letter.text) == 1 and letter.text.isalpha()
    listed = bool(j) and single and letter.boundary and bool(word.gap & CLOSES_FIRST)
    return listed and not _chosen(text, j - 1)


def _chosen(text: _Text, i: int) -> bool:
    """Whether the sentence before word i announces a conclusion ("The correct answer is:")."""
    if not text.words[i].gap & COLON:
        return False
    for j in range(i - 1, -1, -1):
        if text.has(j, "conclusion"):
            return True
        if text.words[j].boundary:
            return False
    return False
