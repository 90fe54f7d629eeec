"""The lexicon composed with a tokenizer's vocabulary: integer tables that a jitted scan over token ids follows.

Three automata read the same bytes: words (a trie over folded bytes), phrases (over words) and tags. A token is a
string of bytes, so its effect on each automaton is known ahead: the tables hold, for each token, the letters before
its first separator (`head`), the separators' flags and the trie state after the letters behind its last separator
(`rest`), and its class for the tag automaton. Scanning tokens is then scanning bytes, one step a token; how a text was
split into tokens makes no difference.

A token with whole words between two separators has several parts, scanned in turn; common byte-level BPE vocabularies
have very few, and those are read as two rows of the tables (see `_without_rare_parts`).
"""

from functools import cache, reduce
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt

from chestx_jax.errors import UserError
from chestx_jax.labels import LABELS
from chestx_jax.lexicon import alphabet, automaton, tags
from chestx_jax.lexicon.lexicon import Lexicon
from chestx_jax.lexicon.tables import Meanings, Relations, meanings, relations

# Bits of a word class, below the number (from 1) of a single letter.
SHORT, NUMBER, GLUE, EXACT, TAG_NAME, HEDGE, OPEN, LETTER_SHIFT = 1, 2, 4, 8, 16, 32, 64, 7
OUT, DEAD, ROOT, _NUMBER = range(4)  # trie states: between words, unknown word, a word's beginning, a number
NO_HEAD, ACCENT_HEAD, DEAD_HEAD = range(3)  # columns of the trie; the others follow
TRIE_BITS = 15
HEAD_BITS = 16
LOOP = 1 << 15  # in `phrase_next`: the word is passed over
_ACCENT = bytes([alphabet.ACCENTED])  # the letters of a token that ends in the middle of an accented one
_Part = tuple[bytes, int, bytes, int]  # letters of the head, separator flags, letters of the tail, capital bits


class Tables(NamedTuple):
    """All tables of the jitted extraction and verification: a pytree of int32, int16 and bool arrays, a few MB.

    V tokens, the last row being an empty one; R more rows in `head`, `rest` and `tag_class`, the halves of tokens that
    hold a whole word; K parts of a token, W words, X lexemes. The last axis of `head` and `rest` is where the token
    begins: 0 between words, 1 inside one (they differ for tokens that begin in the middle of a character).
    """

    relations: Relations
    meanings: Meanings
    split: Int[np.ndarray, " V"]  # row of a token's first half, followed by the second; 0: not halved
    head: Int[np.ndarray, "V+R K 2"]  # column of the part's leading letters in `trie`, capital bits of head and tail
    rest: Int[np.ndarray, "V+R K 2"]  # trie state after the trailing letters (OUT: none), flags of the separators
    tag_class: Int[np.ndarray, " V+R"]
    tag_prefix: Int[np.ndarray, "classes prefixes"]  # letters of a tag read so far, after a token: their number
    tag_map: UInt[np.ndarray, "classes prefixes"]  # for each zone four bits: the zone after a token, and whether clean
    tag_start: Int[np.ndarray, ""]  # state before the text
    tag_zone: Int[np.ndarray, " states"]
    tag_clean: Bool[np.ndarray, " states"]
    trie_base: Int[np.ndarray, " trie"]
    trie: Int[np.ndarray, " cells"]  # state << 15 | next state, in the cell base[state] + column
    word_of: Int[np.ndarray, " trie"]  # trie state → word number; 0: unknown
    lexeme: Int[np.ndarray, " W"]
    word_class: Int[np.ndarray, " W"]
    phrase_row: Int[np.ndarray, " states"]
    phrase_next: UInt[np.ndarray, "rows X"]


def compile_tables(lexicon: Lexicon, token_bytes: list[bytes], opening: str = "") -> Tables:
    """The tables of a vocabulary, given as the bytes of every token id (b"" for special tokens).

    Texts are read as what follows `opening`, such as a think tag that stands in the prompt already. Tags are read as
    text, so they need no ids of their own. Raises UserError for an empty vocabulary and for a lexicon that exceeds the
    tables' bit fields.
    """
    if not any(token_bytes):
        raise UserError("The vocabulary holds no token with bytes: pass token_bytes(tokenizer).")
    trie = _WordTrie(lexicon)
    head, rest, base, cells, split = _token_parts(trie, [*token_bytes, b""])
    halves = [data for token in np.flatnonzero(split) for data in (token_bytes[token], b"")]
    tag_class, tag_prefix, tag_map = _tag_classes([*token_bytes, b"", *halves])
    machine = automaton.build(lexicon)
    row, phrase_next = _compact(machine)
    if len(machine.records) >= LOOP:
        raise UserError(f"The lexicon's phrases have {len(machine.records)} states, of {LOOP}: drop some alternatives.")
    states = tags.states()
    return Tables(
        relations=relations(lexicon), meanings=meanings(lexicon),
        split=split, head=head, rest=rest, tag_class=tag_class, tag_prefix=tag_prefix, tag_map=tag_map,
        tag_start=np.asarray(tags.number(reduce(tags.step, opening.encode(), tags.states()[0])), np.int32),
        tag_zone=np.asarray([zone for zone, _, _ in states], np.int32),
        tag_clean=np.asarray([tags.is_clean(state) for state in range(len(states))]),
        trie_base=base, trie=cells, word_of=trie.word_of, lexeme=trie.lexeme, word_class=trie.word_class,
        phrase_row=row, phrase_next=phrase_next,
    )  # fmt: skip


class _WordTrie:
    """The byte trie of all spellings, with a self-loop for numbers."""

    def __init__(self, lexicon: Lexicon) -> None:
        lexeme_of = {word.encode(): lexeme for word, lexeme in lexicon.lexemes.items()}
        glue = {b"and", b"option", b"options"}
        extra = {bytes([97 + letter]) for letter in range(26)} | {b"think", b"answer", b"or"} | glue
        for word in extra | {word.encode() for word in lexicon.abbreviations | lexicon.open_words}:
            lexeme_of.setdefault(word, 0)
        self.children: list[dict[int, int]] = [{}, {}, {alphabet.DIGIT: _NUMBER}, {alphabet.DIGIT: _NUMBER}]
        exact = {word.encode() for label in LABELS for word in label.lower().split()}
        lexemes, classes, accepts = [0, lexeme_of.pop(b"0", 0)], [0, NUMBER], {_NUMBER: 1}
        for word, lexeme in sorted(lexeme_of.items()):
            state = ROOT
            for byte in word:
                if byte not in self.children[state]:
                    self.children[state][byte] = len(self.children)
                    self.children.append({})
                state = self.children[state][byte]
            accepts[state] = len(lexemes)
            lexemes.append(lexeme)
            single = len(word) == 1
            classes.append(
                SHORT * (single or word.decode() in lexicon.abbreviations)
                | GLUE * (word in glue)
                | EXACT * (word in exact)
                | TAG_NAME * (word in (b"think", b"answer"))
                | HEDGE * (word == b"or")
                | OPEN * (word.decode() in lexicon.open_words)
                | (word[0] - 96 if single else 0) << LETTER_SHIFT
            )
        self.word_of = np.zeros(len(self.children), np.int32)
        for state, number in accepts.items():
            self.word_of[state] = number
        self.lexeme, self.word_class = np.asarray(lexemes, np.int32), np.asarray(classes, np.int32)

    def walk(self, letters: bytes) -> int:
        """The state that folded letters lead to from the root."""
        state = ROOT
        for byte in letters if letters != _ACCENT else b"":
            state = self.children[state].get(byte, DEAD)
        return state


def _parts(data: bytes, inside: bool) -> list[_Part]:
    """The parts of a token: one, and one more for each whole word between two of its separators."""
    runs = [
        (bytes([alphabet.DIGIT]) if alphabet.is_number(letters) else letters, flags, offset)
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
    return parts or [(head, 0, b"", capitals)]


def _token_parts(trie: _WordTrie, token_bytes: list[bytes]) -> tuple[np.ndarray, ...]:
    """`head`, `rest`, `trie_base`, `trie` (the trie composed along all heads) and `split` of `Tables`."""
    readings = []
    for data in token_bytes:
        between = _parts(data, False)
        readings.append((between, _parts(data, True) if data and 0x80 <= data[0] <= 0xBF else between))
    readings, split = _without_rare_parts(trie, readings)
    width = max(len(part) for pair in readings for part in pair)
    heads = {part[0] for pair in readings for parts in pair for part in parts} - {b"", _ACCENT}
    steps = _compose(trie, heads)
    useful = {letters: None for row in steps for letters in row}
    column = {letters: DEAD_HEAD + 1 + index for index, letters in enumerate(useful)}
    if len(column) + DEAD_HEAD >= 1 << HEAD_BITS or len(trie.children) >= 1 << TRIE_BITS:
        raise UserError("The lexicon is too large for its tables: 65,000 word parts and 32,000 letters are the limits.")
    head, rest = (np.zeros((len(readings), width, 2), np.int32) for _ in range(2))
    for token, pair in enumerate(readings):
        for reading, parts in enumerate(pair):
            for k, (letters, flags, tail, capitals) in enumerate(parts):
                head_column = column.get(letters, DEAD_HEAD) if letters else NO_HEAD
                head_column = ACCENT_HEAD if letters == _ACCENT else head_column
                head[token, k, reading] = head_column | capitals << HEAD_BITS
                rest[token, k, reading] = (trie.walk(tail) if tail else OUT) | flags << TRIE_BITS
    return head, rest, *_pack(steps, column), split


def _without_rare_parts(trie: _WordTrie, readings: list[tuple[list[_Part], list[_Part]]]) -> tuple[list, np.ndarray]:
    """Readings of one part a token where few tokens have more ("</s>", an emoji with blank lines), and `split`.

    Each part beyond the first doubles the scan. Where at most one token in five hundred has several, the words in
    their middle are read as separators; the halves of those with two parts are appended to the readings, and the scan
    reads these in two steps as long as a text has few of them.
    """
    split = np.zeros(len(readings), np.int32)
    many = [parts for pair in readings for parts in pair if len(parts) > 1]
    inner = {part[2] for parts in many if len(parts) > 2 for part in parts[:-1]}
    if len(many) * 500 > len(readings) or any(trie.lexeme[trie.word_of[trie.walk(word)]] for word in inner if word):
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


def _compose(trie: _WordTrie, heads: set[bytes]) -> list[dict[bytes, int]]:
    """For each trie state, the heads of the vocabulary that lead from it to another state: letters → next state."""
    rows: list[dict[bytes, int]] = [{} for _ in trie.children]
    for start in range(ROOT, len(trie.children)):
        frontier = [(start, b"")]
        while frontier:
            state, prefix = frontier.pop()
            for byte, child in trie.children[state].items():
                letters = prefix + bytes([byte])
                if letters in heads:
                    rows[start][letters] = child
                if child != state and len(letters) < 40:
                    frontier.append((child, letters))
    return rows


def _pack(steps: list[dict[bytes, int]], column: dict[bytes, int]) -> tuple[np.ndarray, np.ndarray]:
    """The sparse table of steps by row displacement: cell `base[s] + c` holds `s << 15 | next` or another state's."""
    rows = [{column[letters]: child for letters, child in row.items()} for row in steps]
    size = 2 * (sum(map(len, rows)) + len(column)) + 8192
    used, cells = np.zeros(size, bool), np.zeros(size, np.int32)
    base = np.zeros(len(rows), np.int32)
    start = 0
    for state in sorted(range(len(rows)), key=lambda state: -len(rows[state])):
        if not rows[state]:
            continue
        columns = np.asarray(sorted(rows[state]), np.int64)
        if len(columns) == 1:  # the many rows of one column fill the free cells from the left
            start += int(np.argmin(used[start:]))
        offset = _first_fit(used, columns, max(start - int(columns[0]), 0) if len(columns) == 1 else 0)
        used[columns + offset] = True
        cells[columns + offset] = [state << TRIE_BITS | rows[state][int(c)] for c in columns]
        base[state] = offset
    return base, cells[: int(np.flatnonzero(used)[-1]) + DEAD_HEAD + len(column) + 2]


def _first_fit(used: np.ndarray, columns: np.ndarray, start: int) -> int:
    """The first offset from `start` at which the cells of all columns are free."""
    block = 4096
    while True:
        taken = np.zeros(block, bool)
        for column in columns:
            cells = used[start + column : start + column + block]
            taken[: len(cells)] |= cells
        free = np.flatnonzero(~taken)
        if len(free):
            return start + int(free[0])
        start += block


def _tag_classes(token_bytes: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`tag_class`, `tag_prefix` and `tag_map`: tokens with the same effect on the tag automaton share a class."""
    states = tags.states()
    inner = {tag[start:end] for tag in tags.TAGS for start in range(len(tag)) for end in range(start + 1, len(tag) + 1)}
    step = cache(tags.step)

    def row(data: bytes) -> bytes:
        """Next state of every state, as int16 bytes."""
        return np.asarray([tags.number(reduce(step, data, state)) for state in states], np.int16).tobytes()

    class_of_bytes: dict[bytes, int] = {}
    class_of_row: dict[bytes, int] = {}
    tag_class = np.zeros(len(token_bytes), np.int32)
    for token, data in enumerate(token_bytes):
        lowered = data.lower()
        has_tag_part = lowered in inner or any(byte in b"<>/" for byte in lowered)
        key = lowered if has_tag_part else tags.shortened(lowered)
        if key not in class_of_bytes:
            class_of_bytes[key] = class_of_row.setdefault(row(key), len(class_of_row))
        tag_class[token] = class_of_bytes[key]
    after = np.stack([np.frombuffer(row, np.int16) for row in class_of_row]).reshape(len(class_of_row), 2, 8, -1)
    zone_and_prefix = after[:, 0] % (len(states) // 2)  # of clean states, before each zone and prefix
    prefixes = after.shape[-1]
    four_bits = zone_and_prefix // prefixes | (after[:, 0] < len(states) // 2) << 3
    tag_map = (four_bits.astype(np.uint32) << np.arange(0, 32, 4, dtype=np.uint32)[:, None]).sum(1, dtype=np.uint32)
    return tag_class, zone_and_prefix[:, 0] % prefixes, tag_map


def _compact(machine: automaton.Automaton) -> tuple[np.ndarray, np.ndarray]:
    """The phrase table with equal rows shared: row of each state, and next states with the LOOP bit."""
    next_and_loop = machine.next.astype(np.uint16) | (machine.loops * LOOP).astype(np.uint16)
    rows, inverse = np.unique(next_and_loop, axis=0, return_inverse=True)
    return inverse.reshape(-1).astype(np.int32), rows
