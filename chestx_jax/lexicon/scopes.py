"""From words to findings: which matches count, what they attach to, and how far each cue reaches.

The rules, for people; `rewards/scopes.py` computes the same with prefix maxima. Each is a walk from a mention to the
left or right until a cue or a stop is met:

* A match gives way to a later-ending one that overlaps it ("pleural" to "pleural effusion").
* Clauses end at sentence bounds, semicolons and terminators ("but").
* Negation before a mention reaches it unless the clause ends, a finite verb stands between, or a list breaks
  ("no effusion, stable cardiomegaly"). Negation after reaches back to the nearest verb, negation or clause bound.
* A predicate ("enlarged") speaks of the entity right behind it ("enlarged heart"), else of the last one before it in
  the clause ("heart is enlarged"); entities in a row share one ("heart and mediastinum are normal").
* Side, site and change come from the nearest cue before, else after, without a mention or conjunction in between.
* A hypothetical cue ("look for") silences what follows it in its clause, a definition ("would appear as") also what
  precedes it, until words of observation ("the image shows") give the text its voice back; after a lasting cue ("if")
  they do so only behind a comma. An introduction ("to assess the heart, …") ends at a comma before a denial.
* What a text considers and then denies without naming it again ("look for edema. None is seen.") is denied.
* Headings, questions, listed options and foreign words assert nothing; the option a text concludes on does.
"""

from dataclasses import dataclass, replace

from chestx_jax.lexicon import alphabet
from chestx_jax.lexicon.alphabet import CLOSES_FIRST, COLON, COMMA, QUESTION, SEMICOLON
from chestx_jax.lexicon.automaton import Automaton
from chestx_jax.lexicon.lexicon import ROLE, Lexicon, Record
from chestx_jax.lexicon.words import Word

_NOTHING = Record()
HYPOTHETICAL, HEDGED, ASSERTED = 0, 1, 2
# What a text is doing at a word: telling, observing, or one of three ways of supposing.
TELLS, OBSERVES, SUPPOSES, INTRODUCES, DEFINES = range(5)


@dataclass(frozen=True)
class Finding:
    """What one mention asserts. `first` and `last` are byte offsets (inclusive) of its words; see types.Findings."""

    concept: int  # index into the lexicon's concepts
    polarity: int
    certainty: int
    side: int
    site: int
    change: int
    step: int
    first: int
    last: int


@dataclass(frozen=True)
class _Text:
    words: list[Word]
    records: list[Record]  # of the matches that count; `Record()` elsewhere
    starts: list[int]  # content number of the match's first lexeme
    breaks: list[bool]  # a clause begins with the word
    voices: list[tuple[int, bool]]  # what the text is doing, and whether a comma stood since it began

    def has(self, i: int, *roles: str) -> bool:
        return any(self.records[i].roles & ROLE[role] for role in roles)

    def entity_or_finding(self, i: int) -> bool:
        record = self.records[i]
        return bool(record.concept or record.predicate or record.entity)

    def mention(self, i: int) -> bool:
        return bool(self.records[i].concept or self.records[i].predicate)


def findings(lexicon: Lexicon, automaton: Automaton, words: list[Word]) -> list[Finding]:
    """The findings of a text's words (as `words.words` gives them), in order, those that assert nothing included."""
    text = _select(automaton, words)
    result: list[Finding] = []
    considered: list[bool] = []  # what is supposed here may be denied later on
    ends: list[int] = []
    step = -1
    for i, word in enumerate(words):
        step += word.boundary
        record = text.records[i]
        at = i  # the word whose negation and hedges count
        if record.concept:
            concept, present, negated = record.concept, not record.inverse, _negation_before(text, i)
        elif record.predicate:
            entity = _entity_of(text, i)
            pair = lexicon.pairs.get((entity, record.predicate))
            if pair is None:
                continue
            concept, present, negated = *pair, _predicate_negated(text, i)
        elif record.entity:
            at = _shared_predicate(text, i)
            pair = lexicon.pairs.get((record.entity, text.records[at].predicate)) if at >= 0 else None
            if pair is None:
                continue
            concept, present, negated = *pair, _predicate_negated(text, at)
        else:
            continue
        negated = negated or _follows(text, at, "negation_after")
        hedged = _before(text, at, "hedge_before") or _follows(text, at, "hedge_after")
        silent = _silenced(text, i, _negation_of(text, i) if at == i else -1)
        considered.append(silent and not _mute(text, i))
        certainty = HYPOTHETICAL if silent else HEDGED if hedged else ASSERTED
        begin = next(k for k in range(i + 1) if words[k].content >= text.starts[i])
        result.append(
            Finding(
                concept - 1, int(present != negated), certainty,
                _attribute(text, i, "side"), _attribute(text, i, "site"), _change(text, i), step,
                words[begin].first, word.last,
            )
        )  # fmt: skip
        ends.append(i)
    spoken = {i: bool(finding.polarity) for i, finding in zip(ends, result, strict=True) if finding.certainty}
    return [
        replace(finding, polarity=0, certainty=ASSERTED) if maybe and _denied_later(text, i, spoken) else finding
        for i, finding, maybe in zip(ends, result, considered, strict=True)
    ]


def _select(automaton: Automaton, words: list[Word]) -> _Text:
    records, starts = [], []
    for i, word in enumerate(words):
        record = automaton.records[word.state]
        starts.append(word.content - int(automaton.depth[word.state]) + 1)
        if record is None or (not word.passed and _covered(automaton, words, i)):
            record = _NOTHING
        records.append(record)
    text = _Text(words, records, starts, [], [])
    for i, word in enumerate(words):
        text.breaks.append(word.boundary or bool(word.gap & SEMICOLON) or text.has(i, "terminator"))
        text.voices.append(_voice(text, i))
    return text


def _voice(text: _Text, i: int) -> tuple[int, bool]:
    """What the text is doing at word i, given what it did before."""
    voice, comma = text.voices[-1] if i else (TELLS, False)
    if text.breaks[i] and not (text.has(i, "continues") and not text.words[i].boundary):
        voice, comma = TELLS, False
    comma = comma or bool(text.words[i].gap & COMMA)
    if text.has(i, "hypothetical"):
        lasting = text.has(i, "definition", "lasting")
        return (DEFINES if lasting else INTRODUCES if text.has(i, "introduction") else SUPPOSES), False
    if text.has(i, "assertion") and (voice != DEFINES or comma):
        return OBSERVES, comma
    return voice, comma


def _covered(automaton: Automaton, words: list[Word], i: int) -> bool:
    """Whether a later match begins at or before this one's last lexeme."""
    for later in words[i + 1 :]:
        depth = int(automaton.depth[later.state])
        if depth and not later.passed and later.content - depth + 1 <= words[i].content:
            return True
        if later.content > words[i].content + 16:  # longer than any phrase
            return False
    return False


def _stops_before(text: _Text, j: int) -> bool:
    """Whether a cue to the left of word j does not reach past it."""
    list_ends = text.has(j, "list_break") and bool(text.words[j].gap & COMMA)
    return text.breaks[j] or text.has(j, "verb") or list_ends


def _before(text: _Text, i: int, role: str) -> bool:
    """A cue at or before word i, with no stop after the cue."""
    for j in range(i, -1, -1):
        if text.has(j, role):
            return True
        if _stops_before(text, j):
            return False
    return False


def _negation_before(text: _Text, i: int) -> bool:
    return _before(text, i, "negation_before")


def _predicate_negated(text: _Text, i: int) -> bool:
    """A negation counts for a predicate only if no other mention or entity stands in between ("is not enlarged")."""
    if not _before(text, i, "negation_before"):
        return False
    for j in range(i - 1, -1, -1):
        if text.has(j, "negation_before"):
            return True
        if text.entity_or_finding(j):
            return False
    return False


def _follows(text: _Text, i: int, role: str) -> bool:
    """A cue after word i that reaches back to it."""
    for j in range(i + 1, len(text.words)):
        if text.breaks[j]:
            return False
        if text.has(j, role):
            return True
        if text.has(j, "verb", "negation_before"):
            return False
    return False


def _entity_of(text: _Text, i: int) -> int:
    """The entity a predicate speaks of; 0 if none."""
    ahead = _next_entity(text, i)
    if ahead >= 0 and text.starts[ahead] == text.words[i].content + 1:
        return text.records[ahead].entity
    if text.breaks[i]:
        return 0
    for j in range(i - 1, -1, -1):
        if text.records[j].entity:
            return text.records[j].entity
        if text.breaks[j]:
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
    """Whether a predicate stands right before its entity."""
    ahead = _next_entity(text, i)
    return ahead >= 0 and text.starts[ahead] == text.words[i].content + 1


def _shared_predicate(text: _Text, i: int) -> int:
    """The predicate that an entity shares with its neighbours in a row; -1 if it has its own or none."""
    following = _next_entity(text, i)
    for j in range(i + 1, len(text.words)):
        if text.breaks[j]:
            break
        if text.records[j].predicate and not _attributive(text, j):
            own = following < 0 or following > j
            verb_between = any(text.has(k, "verb") for k in range(i + 1, max(following, i + 1)))
            return -1 if own or verb_between else j
    return _carried_predicate(text, i)


def _carried_predicate(text: _Text, i: int) -> int:
    """ "Normal heart size and mediastinal contours": the predicate before the row's first entity."""
    seen_entity = False
    for j in range(i - 1, -1, -1):
        if text.breaks[j + 1] or text.has(j + 1, "verb"):
            return -1
        seen_entity = seen_entity or bool(text.records[j].entity)
        if text.records[j].predicate:
            return j if seen_entity and _attributive(text, j) else -1
    return -1


def _negation_of(text: _Text, i: int) -> int:
    """Where the negation stands that reaches word i from the left; -1 if none does."""
    if not _negation_before(text, i):
        return -1
    return next(j for j in range(i, -1, -1) if text.has(j, "negation_before"))


def _silenced(text: _Text, i: int, negation: int) -> bool:
    """Whether the mention at word i asserts nothing; `negation` is where the negation stands that reaches it, or -1.

    What is denied stays denied whatever follows ("no opacity that would suggest"); only what precedes the negation
    silences it ("there should be no opacity").
    """
    if _mute(text, i, negation):
        return True
    voice, comma = text.voices[i if negation < 0 else negation]
    if negation >= 0:
        return voice in (SUPPOSES, DEFINES) or (voice == INTRODUCES and not comma)
    if voice in (SUPPOSES, INTRODUCES):
        return not _observed_ahead(text, i, comma)
    if voice == TELLS:
        return _defined_ahead(text, i)
    return voice != OBSERVES


def _observed_ahead(text: _Text, i: int, comma: bool) -> bool:
    """Whether a conclusion, a denial, or behind a comma an observation follows in the clause, first."""
    for j in range(i + 1, len(text.words)):
        if text.breaks[j] or text.has(j, "hypothetical"):
            return False
        if text.has(j, "conclusion", "negation_after") or (comma and text.has(j, "assertion")):
            return True
    return False


def _defined_ahead(text: _Text, i: int) -> bool:
    """Whether a definition follows in the clause, before any words of observation."""
    for j in range(i + 1, len(text.words)):
        if text.breaks[j] or text.has(j, "assertion"):
            return False
        if text.has(j, "definition"):
            return True
    return False


def _denied_later(text: _Text, i: int, spoken: dict[int, bool]) -> bool:
    """Whether what is considered at word i is denied later without its name, before anything else is told.

    "Not seen" reaches back to the sentence before, past nothing told; "this rules out the option" to the two
    sentences before, past what is denied on the way.
    """
    sentences, near = 0, True
    for j in range(i + 1, len(text.words)):
        sentences += text.words[j].boundary
        near = near and j not in spoken and sentences < 2
        if spoken.get(j) or sentences > 2:
            return False
        voice, comma = text.voices[j]
        told = voice in (TELLS, OBSERVES) or (comma and voice != DEFINES)
        if told and (text.has(j, "unnamed") or (near and text.has(j, "negation_after"))):
            return True
    return False


def _mute(text: _Text, i: int, negation: int = -1) -> bool:
    """Headings, questions, and clauses with a foreign word or a listed option before the negation, else anywhere."""
    start = i
    while not text.breaks[start] and start > 0:
        start -= 1
    end = i + 1
    while end < len(text.words) and not text.breaks[end]:
        end += 1
    if any(_silent(text, j) for j in range(start, end if negation < 0 else negation + 1)):
        return True
    while end < len(text.words) and not text.words[end].boundary:
        end += 1
    return _heads(text, i) or (end < len(text.words) and bool(text.words[end].gap & QUESTION))


def _heads(text: _Text, i: int) -> bool:
    """Whether a mention only names what the text behind a colon is about ("Effusion: the angles are sharp.")."""
    for j in range(i, -1, -1):
        if text.has(j, "verb", "negation_before", "assertion"):
            return False
        if text.words[j].boundary:
            break
    for j in range(i + 1, len(text.words)):
        word = text.words[j]
        if word.gap & COLON:
            if word.boundary:
                return True
            rest = range(j, len(text.words))
            stop = next((k for k in rest if k > j and text.words[k].boundary), len(text.words))
            return any(text.mention(k) for k in range(j, stop))
        if word.boundary or text.has(j, "verb", "negation_before", "assertion"):
            return False
    return False


def _silent(text: _Text, j: int) -> bool:
    """A foreign word, or the first word of a listed option ("A) …" at the start of a sentence) that no one chose."""
    word = text.words[j]
    if j + 1 == len(text.words):
        return False
    if alphabet.FOREIGN in word.text:
        return True
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


def _links(text: _Text, j: int) -> bool:
    return text.has(j, "conjunction") or bool(text.words[j].gap & COMMA)


def _attribute(text: _Text, i: int, name: str) -> int:
    """Side, site or bare change of a mention: the nearest cue before it, else after it."""
    linked = False
    for j in range(i, -1, -1):
        if j < i and text.mention(j):
            break
        value = _cue(text, j, name)
        if value:
            earlier_mention = _mention_in_clause(text, j)
            if linked and earlier_mention:
                break
            return value
        linked = linked or _links(text, j)
        if text.breaks[j]:
            break
    for j in range(i + 1, len(text.words)):
        if text.breaks[j] or _links(text, j):
            return 0
        value = _cue(text, j, name)
        if value:
            return value
        if text.mention(j):
            return 0
    return 0


def _cue(text: _Text, j: int, name: str) -> int:
    if name == "change" and text.has(j, "change_after"):
        return 0
    return getattr(text.records[j], name)


def _mention_in_clause(text: _Text, j: int) -> bool:
    """Whether a mention stands before word j in its clause."""
    while not text.breaks[j] and j > 0:
        j -= 1
        if text.mention(j):
            return True
    return False


def _change(text: _Text, i: int) -> int:
    bare = _attribute(text, i, "change")
    if bare:
        return bare
    for j in range(i + 1, len(text.words)):
        if text.breaks[j]:
            return 0
        if text.has(j, "change_after"):
            return text.records[j].change
        if text.has(j, "verb", "negation_before"):
            return 0
    return 0
