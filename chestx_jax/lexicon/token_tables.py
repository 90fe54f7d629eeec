"""The lexicon and a tokenizer's vocabulary, composed into integer tables that a jitted scan over token ids can follow.

Three automata read the same bytes: words (a trie over folded bytes), phrases (over words) and tags. A token is a
string of bytes, so its effect on an automaton is known beforehand: the tables hold, for each token, the word letters
before its first separator (`head`), the separators' flags (`marks`), where the letters after its last separator lead
(`tail`), and its row of the tag automaton. Scanning tokens is then exactly scanning bytes, one step a token; how a
text was split into tokens makes no difference.

A token with whole words between two separators is cut into several parts, each scanned in turn; common byte-level
BPE vocabularies have next to none, and these few are read as two rows of the tables (see `_without_rare_parts`).
"""

import numpy as np
from flax import struct
from jaxtyping import Bool, Int

from chestx_jax.errors import UserError
from chestx_jax.lexicon import alphabet, automaton, tags, words
from chestx_jax.lexicon.lexicon import Lexicon, Record
from chestx_jax.types import LABELS

# Bits of a word class. A single letter's number (from 1) stands above them.
SHORT, NUMBER, GLUE, EXACT, TAG_NAME, LETTER_SHIFT = 1, 2, 4, 8, 16, 5
OUT, DEAD, FOREIGN, ROOT, _NUMBER = range(5)  # trie states: between words, unknown word, foreign word
NO_HEAD, FOREIGN_HEAD, DEAD_HEAD = range(3)  # columns of the trie; the others follow
TRIE_BITS = 15
HEAD_BITS = 16
_Part = tuple[bytes, int, bytes, int]
LOOP = 1 << 14  # in `phrase_next`: the word was passed over


@struct.dataclass
class Relations:
    """How the C concepts of a lexicon bear on each other."""

    is_a: Bool[np.ndarray, "C C"]  # is_a[a, b]: a is a kind of b (or b itself)
    denies: Bool[np.ndarray, "C C"]  # the presence of a rules out b
    counted: Bool[np.ndarray, " C"]  # False for catch-alls, which no reward counts
    region: Int[np.ndarray, " C"]  # where a concept is looked for, from 1; 0: everywhere


@struct.dataclass
class Tables(Relations):
    """Everything the jitted extraction and verification read; a pytree of arrays (a few MB), an argument of the jit.

    V tokens (one more row, the empty token, at the end; R more in `head`, `rest` and `tag_class`: the halves of tokens
    that hold a whole word), K parts of a token, W words, X lexemes. The last axis of `head`
    and `rest` is the reading: 0 between words, 1 inside one (they differ for tokens that begin in mid-character).
    """

    split: Int[np.ndarray, " V"]  # row of a token's first half, the second follows it; 0: it is not halved
    head: Int[np.ndarray, "V+R K 2"]  # column of the part's leading letters in `trie`, capital bits of head and tail
    rest: Int[np.ndarray, "V+R K 2"]  # trie state after the trailing letters (OUT: none), flags of the separators
    tag_class: Int[np.ndarray, " V+R"]
    tag_next: Int[np.ndarray, "classes states"]
    tag_zone: Int[np.ndarray, " states"]
    tag_clean: Bool[np.ndarray, " states"]
    trie_base: Int[np.ndarray, " trie"]
    trie: Int[np.ndarray, " cells"]  # state << 15 | next state, in the cell base[state] + column
    word_of: Int[np.ndarray, " trie"]  # trie state → word number; 0: unknown
    lexeme: Int[np.ndarray, " W"]
    word_class: Int[np.ndarray, " W"]
    phrase_row: Int[np.ndarray, " states"]
    phrase_next: Int[np.ndarray, "rows X"]
    record: Int[np.ndarray, "states 2"]  # packed meanings, see `pack_record`
    pairs: Int[np.ndarray, "entities predicates"]  # 2 · concept + present; 0: none


def pack_record(record: Record | None, depth: int) -> tuple[int, int]:
    """A record as two integers: concept, entity, predicate, inverse, label; and side, site, change, depth, roles."""
    if record is None:
        return 0, 0
    one = record.concept | record.entity << 9 | record.predicate << 15 | record.inverse << 21 | record.label << 22
    two = record.side | record.site << 2 | record.change << 7 | depth << 9 | record.roles << 14
    return one, two


def tables(lexicon: Lexicon, token_bytes: list[bytes]) -> Tables:
    """Compile the tables for a vocabulary, given as the bytes of every id (b"" for special tokens).

    Tags are read as text, so they need no ids of their own. Raises UserError for an empty vocabulary.
    """
    if not any(token_bytes):
        raise UserError("The vocabulary holds no token with bytes: pass token_bytes(tokenizer).")
    words = _Words(lexicon)
    head, rest, base, cells, split = _vocabulary(words, [*token_bytes, b""])
    halves = [data for token in np.flatnonzero(split) for data in (token_bytes[token], b"")]
    tag_class, tag_next = _tag_classes([*token_bytes, b"", *halves])
    machine = automaton.build(lexicon)
    row, phrase_next = _compact(machine)
    states = tags.states()
    return Tables(
        split=split, head=head, rest=rest, tag_class=tag_class, tag_next=tag_next,
        tag_zone=np.asarray([zone for zone, _, _ in states], np.int32),
        tag_clean=np.asarray([tags.is_clean(state) for state in range(len(states))]),
        trie_base=base, trie=cells, word_of=words.word_of, lexeme=words.lexeme, word_class=words.word_class,
        phrase_row=row, phrase_next=phrase_next,
        record=np.asarray([pack_record(r, int(d)) for r, d in zip(machine.records, machine.depth, strict=True)], np.int32),  # noqa: E501
        pairs=_pairs(lexicon), **relations(lexicon),
    )  # fmt: skip


class _Words:
    """The byte trie of all spellings, with a loop for numbers."""

    def __init__(self, lexicon: Lexicon) -> None:
        spellings = {word.encode(): lexeme for word, lexeme in lexicon.lexemes.items()}
        glue = {b"and", b"or", b"option", b"options"}
        extra = {bytes([97 + letter]) for letter in range(26)} | {b"think", b"answer"} | glue
        for word in extra | {word.encode() for word in lexicon.abbreviations}:
            spellings.setdefault(word, 0)
        self.children: list[dict[int, int]] = [{}, {}, {}, {alphabet.DIGIT: _NUMBER}, {alphabet.DIGIT: _NUMBER}]
        exact = {word.encode() for label in LABELS for word in label.lower().split()}
        lexeme, classes, accept = [0, 0], [0, NUMBER], {_NUMBER: 1}
        for word, number in sorted(spellings.items()):
            state = ROOT
            for byte in word:
                if byte not in self.children[state]:
                    self.children[state][byte] = len(self.children)
                    self.children.append({})
                state = self.children[state][byte]
            accept[state] = len(lexeme)
            lexeme.append(number)
            single = len(word) == 1
            classes.append(
                SHORT * (single or word.decode() in lexicon.abbreviations)
                | GLUE * (word in glue)
                | EXACT * (word in exact)
                | TAG_NAME * (word in (b"think", b"answer"))
                | (word[0] - 96 if single else 0) << LETTER_SHIFT
            )
        self.word_of = np.zeros(len(self.children), np.int32)
        for state, number in accept.items():
            self.word_of[state] = number
        self.lexeme, self.word_class = np.asarray(lexeme, np.int32), np.asarray(classes, np.int32)

    def walk(self, letters: bytes) -> int:
        """The state after folded letters from the root."""
        state = ROOT
        for byte in letters:
            state = self.children[state].get(byte, DEAD)
        return FOREIGN if alphabet.FOREIGN in letters else state


def _parts(data: bytes, inside: bool) -> list[_Part]:
    """A token as (head letters, separator flags, tail letters, capitals), cut where a whole word stands inside."""
    runs = [
        (bytes([alphabet.DIGIT]) if words.is_number(letters) and letters else letters, flags, offset)
        for letters, flags, offset in alphabet.split(data, inside)
    ]

    def capital(offset: int) -> int:
        return int(65 <= data[offset] <= 90)

    parts: list[_Part] = []
    head, capitals, k = b"", 0, 0
    if runs and runs[0][0]:
        head, capitals, k = runs[0][0], capital(0), 1
    while k < len(runs):
        tail, offset = (runs[k + 1][0], runs[k + 1][2]) if k + 1 < len(runs) else (b"", 0)
        parts.append((head, runs[k][1], tail, capitals | (2 * capital(offset) if tail else 0)))
        head, capitals = b"", 0
        k += 2
    return parts if parts else [(head, 0, b"", capitals)]


def _vocabulary(trie: _Words, token_bytes: list[bytes]) -> tuple[np.ndarray, ...]:
    """`head`, `rest` of every token, the trie composed along the heads (`trie_base`, `trie`), and `split`."""
    readings = []
    for data in token_bytes:
        between = _parts(data, False)
        readings.append((between, _parts(data, True) if data and 0x80 <= data[0] <= 0xBF else between))
    readings, split = _without_rare_parts(trie, readings)
    width = max(len(part) for pair in readings for part in pair)
    heads = {part[0] for pair in readings for parts in pair for part in parts} - {b""}
    steps = _compose(trie, {letters for letters in heads if alphabet.FOREIGN not in letters})
    useful = {letters: None for row in steps for letters in row}
    column = {letters: DEAD_HEAD + 1 + index for index, letters in enumerate(useful)}
    if len(column) + DEAD_HEAD >= 1 << HEAD_BITS or len(trie.children) >= 1 << TRIE_BITS:
        raise UserError("The lexicon is too large for its tables: 65,000 word parts and 32,000 letters are the limits.")
    head, rest = (np.zeros((len(readings), width, 2), np.int32) for _ in range(2))
    for token, pair in enumerate(readings):
        for reading, parts in enumerate(pair):
            for k, (letters, flags, tail, capitals) in enumerate(parts):
                if letters:
                    found = FOREIGN_HEAD if alphabet.FOREIGN in letters else column.get(letters, DEAD_HEAD)
                else:
                    found = NO_HEAD
                head[token, k, reading] = found | capitals << HEAD_BITS
                rest[token, k, reading] = (trie.walk(tail) if tail else OUT) | flags << TRIE_BITS
    return head, rest, *_pack(steps, column), split


def _without_rare_parts(trie: _Words, readings: list[tuple[list[_Part], list[_Part]]]) -> tuple[list, np.ndarray]:
    """Readings of one part where few tokens have more ("</s>", an emoji with blank lines), and rows of their halves.

    Every part beyond the first doubles the scan, so where fewer than one token in a thousand has more, their words in
    the middle are read as separators; the halves of those with two parts follow the last token, for the scan to read
    in two steps instead while a text has not too many of them.
    """
    split = np.zeros(len(readings), np.int32)
    many = [parts for pair in readings for parts in pair if len(parts) > 1]
    inner = {part[2] for parts in many if len(parts) > 2 for part in parts[:-1]}
    if len(many) * 1000 > len(readings) or any(trie.lexeme[trie.word_of[trie.walk(word)]] for word in inner if word):
        return readings, split
    halves: list[tuple[list[_Part], list[_Part]]] = []
    for token, (between, inside) in enumerate(readings):
        if len(between) == 2 and between == inside:
            split[token] = len(readings) + len(halves)
            halves += [([part], [part]) for part in between]

    def join(parts: list[_Part]) -> list[_Part]:
        flags = 0
        for part in parts:
            flags = alphabet.join_gap(flags, part[1])
        return [(parts[0][0], flags, parts[-1][2], (parts[0][3] & 1) | (parts[-1][3] & 2))]

    joined = [tuple(join(parts) if len(parts) > 1 else parts for parts in pair) for pair in readings]
    return [*joined, *halves], split


def _compose(trie: _Words, heads: set[bytes]) -> list[dict[bytes, int]]:
    """For each trie state, the letter strings of the vocabulary that lead on from it, and where to."""
    rows: list[dict[bytes, int]] = [{} for _ in trie.children]
    for start in range(ROOT, len(trie.children)):
        frontier = [(start, b"")]
        while frontier:
            state, read = frontier.pop()
            for byte, child in trie.children[state].items():
                text = read + bytes([byte])
                if text in heads:
                    rows[start][text] = child
                if child != state and len(text) < 40:
                    frontier.append((child, text))
    return rows


def _pack(steps: list[dict[bytes, int]], column: dict[bytes, int]) -> tuple[np.ndarray, np.ndarray]:
    """The sparse step table by row displacement: cell `base[s] + c` holds `s << 15 | next`, else another state's."""
    rows = [{column[letters]: child for letters, child in row.items()} for row in steps]
    size = 2 * (sum(map(len, rows)) + len(column)) + 8192
    used, cells = np.zeros(size, bool), np.zeros(size, np.int32)
    base = np.zeros(len(rows), np.int32)
    start = 0
    for state in sorted(range(len(rows)), key=lambda state: -len(rows[state])):
        if not rows[state]:
            continue
        wanted = np.asarray(sorted(rows[state]), np.int64)
        if len(wanted) == 1:  # the many rows of one fill the holes from the left
            start += int(np.argmin(used[start:]))
        offset = _place(used, wanted, max(start - int(wanted[0]), 0) if len(wanted) == 1 else 0)
        used[wanted + offset] = True
        cells[wanted + offset] = [state << TRIE_BITS | rows[state][int(c)] for c in wanted]
        base[state] = offset
    return base, cells[: int(np.flatnonzero(used)[-1]) + DEAD_HEAD + len(column) + 2]


def _place(used: np.ndarray, wanted: np.ndarray, start: int) -> int:
    """The first offset from `start` at which none of the wanted cells is used."""
    block = 4096
    while True:
        taken = np.zeros(block, bool)
        for column in wanted:
            cells = used[start + column : start + column + block]
            taken[: len(cells)] |= cells
        free = np.flatnonzero(~taken)
        if len(free):
            return start + int(free[0])
        start += block


def _tag_classes(token_bytes: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens by what they do to the tag automaton: class of each token, and next state by class and state."""
    states = tags.states()
    inner = {tag[start:end] for tag in tags.TAGS for start in range(len(tag)) for end in range(start + 1, len(tag) + 1)}
    step = {}

    def row(data: bytes) -> bytes:
        result = []
        for state in states:
            for byte in data:
                key = state, byte
                if key not in step:
                    step[key] = tags.step(state, byte)
                state = step[key]
            result.append(tags.number(state))
        return np.asarray(result, np.int16).tobytes()

    kinds: dict[bytes, int] = {}
    classes: dict[bytes, int] = {}
    tag_class = np.zeros(len(token_bytes), np.int32)
    for token, data in enumerate(token_bytes):
        lowered = data.lower()
        plain = lowered not in inner and not any(byte in b"<>/" for byte in lowered)
        kind = lowered if not plain else tags.summary(lowered)
        if kind not in kinds:
            kinds[kind] = classes.setdefault(row(kind), len(classes))
        tag_class[token] = kinds[kind]
    return tag_class, np.stack([np.frombuffer(key, np.int16) for key in classes]).astype(np.int16)


def _compact(machine: automaton.Automaton) -> tuple[np.ndarray, np.ndarray]:
    """The phrase table with equal rows shared: row of each state, and next states with the LOOP bit."""
    merged = machine.next.astype(np.int16) | (machine.loops * LOOP).astype(np.int16)
    rows, inverse = np.unique(merged, axis=0, return_inverse=True)
    return inverse.reshape(-1).astype(np.int32), rows.astype(np.int16)


def _pairs(lexicon: Lexicon) -> np.ndarray:
    result = np.zeros((len(lexicon.entities) + 1, len(lexicon.predicates) + 1), np.int32)
    for (entity, predicate), (concept, present) in lexicon.pairs.items():
        result[entity, predicate] = 2 * concept + present
    return result


def relations(lexicon: Lexicon) -> dict[str, np.ndarray]:
    """`is_a` (transitive, reflexive), `denies` (closed under is_a), `counted` and `region` of the concepts."""
    count = len(lexicon.concepts)
    is_a = np.eye(count, dtype=bool)
    denies = np.zeros((count, count), bool)
    for index, concept in enumerate(lexicon.concepts):
        for parent in concept.parents:
            is_a[index, lexicon.concept(parent) - 1] = True
        for other in concept.denies:
            denies[index, lexicon.concept(other) - 1] = True
    for _ in range(count.bit_length()):
        is_a = is_a @ is_a
    denies = denies @ is_a.T | denies  # what rules out an opacity rules out edema
    regions = ["", *dict.fromkeys(concept.region for concept in lexicon.concepts if concept.region)]
    return {
        "is_a": is_a,
        "denies": denies,
        "counted": np.asarray([not concept.general for concept in lexicon.concepts]),
        "region": np.asarray([regions.index(concept.region) for concept in lexicon.concepts], np.int32),
    }
