"""The tag automaton: the zone of `<think> … </think><answer> … </answer>` that each byte is in, and cleanness.

A state is (zone, letters of a tag read so far, clean). Tags are matched without regard to case. A tag out of order
puts the rest of the text in the zone BROKEN. A text is unclean if it holds anything but white space outside the
blocks, or bytes in the answer block that no option letter or label needs.
"""

from functools import cache

BEFORE, THINK, BETWEEN, ANSWER, AFTER, BROKEN, ANSWER_ALONE, AFTER_ALONE = range(8)
TAGS = (b"<think>", b"</think>", b"<answer>", b"</answer>")
_WHITE = frozenset(b" \t\n\r")
_LEGIBLE = _WHITE | frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789,;.:()-")
_NEXT_ZONE = {
    (BEFORE, b"<think>"): THINK,
    (THINK, b"</think>"): BETWEEN,
    (BETWEEN, b"<answer>"): ANSWER,
    (ANSWER, b"</answer>"): AFTER,
    (BEFORE, b"<answer>"): ANSWER_ALONE,  # an answer without reasoning can still be right
    (ANSWER_ALONE, b"</answer>"): AFTER_ALONE,
}
_PREFIXES = sorted({tag[:end] for tag in TAGS for end in range(len(tag))}, key=lambda prefix: (len(prefix), prefix))
_EVERYTHING = frozenset(range(256))
_INSIDE = (THINK, ANSWER, ANSWER_ALONE)

State = tuple[int, bytes, bool]


@cache
def states() -> tuple[State, ...]:
    """All states, indexed by state number; number 0 is the start of a text."""
    return tuple((zone, prefix, clean) for clean in (True, False) for zone in range(8) for prefix in _PREFIXES)


def is_clean(state: int) -> bool:
    """Whether every byte so far was allowed in its zone, counting an unfinished tag at the end as text."""
    zone, prefix, clean = states()[state]
    return clean and (not prefix or zone in _INSIDE)


def after_tag(zone: int, tag: bytes) -> int:
    """The zone behind a whole tag, in lower case."""
    return _NEXT_ZONE.get((zone, tag), BROKEN)


def step(state: State, byte: int) -> State:
    """The state after one more byte."""
    zone, prefix, clean = state
    read = prefix + bytes([byte]).lower()  # legible bytes stay legible when folded
    if read in TAGS:
        return after_tag(zone, read), b"", clean
    kept = read if read in _PREFIXES else (b"<" if byte == ord("<") else b"")
    dropped = read[: len(read) - len(kept)]
    if not _allowed(zone) >= set(dropped):
        clean = False
    return zone, kept, clean


def _allowed(zone: int) -> frozenset[int]:
    if zone in (ANSWER, ANSWER_ALONE):
        return _LEGIBLE
    return _EVERYTHING if zone == THINK else _WHITE


def number(state: State) -> int:
    """Index of a state in `states()`."""
    zone, prefix, clean = state
    return number_of(zone, _PREFIXES.index(prefix), int(clean))


def parts_of(number):
    """Zone, number of the prefix, and cleanness of a state in `states()`; of arrays of them too."""
    zone, prefix = number // len(_PREFIXES), number % len(_PREFIXES)
    return zone % 8, prefix, 1 - zone // 8


def number_of(zone, prefix, clean):
    """Index of a state in `states()`, given the number of its prefix; of arrays of them too."""
    return ((1 - clean) * 8 + zone) * len(_PREFIXES) + prefix


def shortened(data: bytes) -> bytes:
    """A string of at most one byte with the same effect on a state as `data`, which must hold no part of a tag."""
    kinds = set(data)
    if kinds <= _WHITE:
        return data[:1]
    return b"x" if kinds <= _LEGIBLE else b"|"
