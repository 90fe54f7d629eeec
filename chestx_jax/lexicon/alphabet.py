"""How bytes are read: letters fold to lower case, digits to one sign, everything else separates words and leaves flags.

The same rules serve text and sampled tokens, because a token is only a string of bytes; a character cut in half by the
tokenizer is read byte by byte like any other. Letters beyond ASCII make their word foreign: no lexicon word matches
it, and a sentence that holds one asserts nothing (so look-alike letters cannot hide a negation).
"""

# Flags of the separators between two words, or-ed over the gap.
SPACE, NEWLINE, BLANK_LINE, STOP, QUESTION, COMMA, SEMICOLON = 1, 2, 4, 8, 16, 32, 64
BRACKET, SLASH, LESS, HYPHEN, OTHER, CLOSES_FIRST, COLON = 128, 256, 512, 1024, 2048, 4096, 8192
SIGNS = STOP | QUESTION | BRACKET | COLON | HYPHEN  # the signs that no plain list of names holds

_MARKS = {
    " ": SPACE, "\t": SPACE, "\v": SPACE, "\f": SPACE, "\r": SPACE, "\n": NEWLINE,
    ".": STOP, "!": STOP, "?": QUESTION, ",": COMMA, ";": SEMICOLON, ":": COLON,
    "(": BRACKET, ")": BRACKET, "[": BRACKET, "]": BRACKET, "/": SLASH, "<": LESS, "-": HYPHEN,
}  # fmt: skip
DIGIT = ord("0")
FOREIGN = 0xFF  # the folded form of every letter byte beyond ASCII


def _mark(byte: int) -> int:
    if chr(byte) in _MARKS:
        return _MARKS[chr(byte)]
    letter = byte < 0x80 and chr(byte).isalnum()
    # Lead bytes C2 and E2 begin spaces, dashes, quotes, bullets and signs; other lead bytes begin letters.
    symbol = 0x80 <= byte <= 0xBF or byte in (0xC2, 0xE2)
    return OTHER if symbol or (byte < 0x80 and not letter) else 0


MARK_OF_BYTE: tuple[int, ...] = tuple(_mark(byte) for byte in range(256))  # 0 for the bytes that begin words


def in_word(byte: int, previous: bool) -> bool:
    """Whether a byte belongs to a word; a continuation byte goes with the byte before it."""
    return previous if 0x80 <= byte <= 0xBF else MARK_OF_BYTE[byte] == 0


def fold(byte: int) -> int:
    """Folded form of a word byte: lower-case letter, `DIGIT` for digits, `FOREIGN` beyond ASCII."""
    if byte >= 0x80:
        return FOREIGN
    return DIGIT if chr(byte).isdigit() else ord(chr(byte).lower())


def join_gap(gap: int, marks: int) -> int:
    """Flags of a gap that goes on with further separators: a second line end makes a blank line."""
    if gap:
        marks &= ~CLOSES_FIRST
    return gap | marks | (BLANK_LINE if gap & marks & NEWLINE else 0)


def gap_flags(separators: bytes) -> int:
    """Flags of a run of separator bytes; `CLOSES_FIRST` if it begins with a closing bracket."""
    gap = 0
    for byte in separators:
        gap = join_gap(gap, MARK_OF_BYTE[byte] | (CLOSES_FIRST if byte == ord(")") else 0))
    return gap


def split(data: bytes, inside: bool = False) -> list[tuple[bytes, int, int]]:
    """Runs of the bytes in order: (folded word bytes or b"", gap flags or 0, offset of the run's first byte).

    `inside`: the bytes continue a word, which matters where they begin in the middle of a character.
    """
    kinds = []
    for byte in data:
        inside = in_word(byte, inside)
        kinds.append(inside)
    runs = []
    start = 0
    while start < len(data):
        end = start + 1
        while end < len(data) and kinds[end] == kinds[start]:
            end += 1
        run = data[start:end]
        runs.append((bytes(fold(byte) for byte in run), 0, start) if kinds[start] else (b"", gap_flags(run), start))
        start = end
    return runs
