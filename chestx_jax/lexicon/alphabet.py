"""Classes of bytes: letters fold to lower case, digits to one sign, all others separate words and set gap flags.

The same rules serve text and sampled tokens, because a token is a string of bytes; a character that the tokenizer
splits is read byte by byte. Letters with an accent fold to those without ("é", "Ö"); a word with another letter beyond
ASCII matches no lexicon word.
"""

import unicodedata
from typing import Any

# Flags of the separators between two words; a gap holds their bitwise or.
SPACE, NEWLINE, BLANK_LINE, STOP, QUESTION, COMMA, SEMICOLON = 1, 2, 4, 8, 16, 32, 64
BRACKET, SLASH, LESS, HYPHEN, OTHER, CLOSES_FIRST, COLON = 128, 256, 512, 1024, 2048, 4096, 8192
BULLET = 16384  # a sign behind a line end
DOUBT = 32768  # the gap's question mark doubts the word behind it ("?pneumonia"), and ends no question
SIGNS = STOP | QUESTION | BRACKET | COLON | HYPHEN  # signs that a plain list of label names does not hold

_MARKS = {
    " ": SPACE, "\t": SPACE, "\v": SPACE, "\f": SPACE, "\r": SPACE, "\n": NEWLINE,
    ".": STOP, "!": STOP, "?": QUESTION, ",": COMMA, ";": SEMICOLON, ":": COLON,
    "_": SPACE, "(": BRACKET, ")": BRACKET, "[": BRACKET, "]": BRACKET, "/": SLASH, "<": LESS, "-": HYPHEN,
}  # fmt: skip
DIGIT = ord("0")
ACCENTED, FOREIGN = 0xFE, 0xFF  # folded: first byte of a letter with an accent; byte of another letter beyond ASCII
_ACCENTED_LEAD = 0xC3
_FULL_WIDTH = {0x81: COMMA, 0x8C: COMMA, 0x82: STOP, 0x9A: COLON, 0x9B: SEMICOLON}  # last bytes of "、，。：；"


def _mark(byte: int) -> int:
    if chr(byte) in _MARKS:
        return _MARKS[chr(byte)]
    letter = byte < 0x80 and chr(byte).isalnum()
    # These lead bytes begin spaces, dashes, quotes, bullets, signs, marks of full width and emoji; all others letters.
    symbol = 0x80 <= byte <= 0xBF or byte in (0xC2, 0xE2, 0xE3, 0xEF, 0xF0)
    return OTHER | _FULL_WIDTH.get(byte, 0) if symbol or (byte < 0x80 and not letter) else 0


MARK_OF_BYTE: tuple[int, ...] = tuple(_mark(byte) for byte in range(256))  # 0 for bytes of words


def in_word(byte: int, previous: bool) -> bool:
    """Whether a byte belongs to a word; a UTF-8 continuation byte belongs to what the byte before it does."""
    return previous if 0x80 <= byte <= 0xBF else MARK_OF_BYTE[byte] == 0


def fold(byte: int) -> int:
    """Folded form of a word's byte: lower-case letter, `DIGIT` for digits, `ACCENTED` or `FOREIGN` beyond ASCII."""
    if byte == _ACCENTED_LEAD:
        return ACCENTED
    if byte >= 0x80:
        base = unicodedata.normalize("NFD", chr(byte + 0x40))[0].lower() if byte <= 0xBF else ""
        return ord(base) if base.isascii() and base.isalpha() else FOREIGN
    return DIGIT if chr(byte).isdigit() else ord(chr(byte).lower())


_FOLD = bytes(map(fold, range(256)))


def fold_word(data: bytes) -> bytes:
    """The folded form of a word; what is left of a letter cut in two is `ACCENTED` alone."""
    return data.translate(_FOLD, bytes([_ACCENTED_LEAD])) or bytes([ACCENTED])


def is_number(word: bytes) -> bool:
    """Whether a folded word is digits only."""
    return bool(word) and not word.strip(bytes([DIGIT]))


def join_gap(gap: int, marks: int) -> int:
    """Flags of a gap followed by further separators: a second line end makes a blank line, a sign a bullet, a question
    mark that does not stand right behind the word before a doubt."""
    if gap:
        marks &= ~CLOSES_FIRST
    if gap & QUESTION:
        marks &= ~DOUBT
    elif gap and marks & QUESTION:
        marks |= DOUBT
    if gap & NEWLINE:
        marks |= (BLANK_LINE if marks & NEWLINE else 0) | (BULLET if marks & (HYPHEN | OTHER | QUESTION) else 0)
    return gap | marks


def asks(gap: Any) -> Any:
    """Whether the question mark of a gap, or of each of an array, ends a question."""
    return (gap & (QUESTION | DOUBT)) == QUESTION


def gap_flags(separators: bytes) -> int:
    """Gap flags of a run of separator bytes; `CLOSES_FIRST` if it begins with a closing bracket."""
    gap = 0
    for byte in separators:
        gap = join_gap(gap, MARK_OF_BYTE[byte] | (CLOSES_FIRST if byte in b")]" else 0))
    return gap


def split(data: bytes, inside: bool = False) -> list[tuple[bytes, int, int]]:
    """Runs of word bytes and of separators: (folded word or b"", gap flags or 0, offset of the run's first byte).

    `inside`: the bytes continue a word, which matters where they begin in the middle of a character.
    """
    word_bytes = []
    for byte in data:
        inside = in_word(byte, inside)
        word_bytes.append(inside)
    runs = []
    start = 0
    while start < len(data):
        end = start + 1
        while end < len(data) and word_bytes[end] == word_bytes[start]:
            end += 1
        run = data[start:end]
        runs.append((fold_word(run), 0, start) if word_bytes[start] else (b"", gap_flags(run), start))
        start = end
    return runs
