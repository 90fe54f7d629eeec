"""Random radiology texts, random tokenisations, and the comparison of the jitted reading with the host's."""

import random
from functools import cache

import jax
import numpy as np

from chestx_jax import lexicon
from chestx_jax.findings.slots import in_lists
from chestx_jax.findings.text import read_bytes
from chestx_jax.findings.tokens import extract
from chestx_jax.types import Completion
from tests.helpers import oracle

BYTES = [bytes([byte]) for byte in range(256)]  # the vocabulary of single bytes

TAGS = (
    "<think>", "</think>", "<answer>", "</answer>", "<Think>", "< think >", "<answer", "think>", "</think", "<<answer>",
)  # fmt: skip
ODD = (
    "–", "’", "•", " ", "é", "无", "ο", "\u200b", "🙂", "1.", "2)", "A)", "(B)", "5.2", "e.g.", "Dr.", "T12", "**", "_",
    "\t", "。", "，", "；", "×", "3)", "[2]", "2:", "4 -", "___", "Ä", "(-)", "?", " ?", "?mass",
)  # fmt: skip
JOINTS = (
    " ", " ", " ", " ", " ", ", ", ". ", ". ", "; ", ": ", "\n", "\n\n", "-", "/", "? ", ") ", " (", "", ".", "\n- ",
    "! ",
)  # fmt: skip
FRAMES = (
    "There is {}.", "No {} or {}.", "The {} is {}.", "{} is not seen.", "Possible {}, {}.",
    "Without {}, {} has worsened.", "The lungs are clear, but {} remains.", "1. {}\n2. {}", "{} cannot be excluded.",
    "I should look for {}.", "Normal heart size and {}.", "Heart and {} are normal.", "{}, none on the {}.",
    "A) {}\nB) {}",
    "Does this show {}?", "{}: none.", "The {} on the left, {} on the right.", "{} would appear as {}.",
    "Stable {} with new {}.", "Look for {} and {}. None is seen.", "{}: {}.", "{}:\n- {}",
    "The correct answer is:\nA) {}\nB) {}", "If {}, the image shows {}.",
    "Option A suggests {}. It shows no {}, ruling out this option.", "To assess {}, no {} is seen.",
    "Check {}, which is not seen.", "The image shows {}, typically {}.", "{} (Option B) should be {}.",
    "Options: {}, which suggests {}, is the best answer.",
    "{} {} on the prior film. It {}.", "The first image shows {}; now {} and {}.",
    "Small {} and large {}, slightly {}.", "{}, which is {}. This is {}.",
    "Is there {}? {}.", "{}? No, {}.", "{}: no. Possible {} and {}.", "{} is likely {}, unlikely {}.",
    "Look for {}. Yes.", "?{}, ? {}.", "Small left and large right {}.", "{} in the right {} and left {}.",
    "{}, with {}, possible {}.",
    "Option A mentions:\n- {}\n- {}.\n{}.", "Observe the ribs for {}, {}. Possible {}. None is seen.",
    "A) {}: no.\nB) {}: none; {}: yes.", "Could be {}. No, {}.",
    "No {}, and the {} is {}.", "No {} and a {} has decreased.", "{} or {}.", "{}, {} or {} in the {}.",
    "No {}, {}, and {} have been identified.", "{} was suspected, {} or {}. None is seen.",
)  # fmt: skip


@cache
def phrases() -> list[list[list[str]]]:
    """The lexicon's phrases, each a list of lexemes in all their spellings."""
    loaded = lexicon.load()
    spellings: dict[int, list[str]] = {}
    for word, lexeme in loaded.lexemes.items():
        spellings.setdefault(lexeme, []).append(word)
    return [[spellings[lexeme] for lexeme in phrase] for phrase in loaded.phrases]


def phrase(rng: random.Random) -> str:
    text = " ".join(rng.choice(spellings) for spellings in rng.choice(phrases()))
    if rng.random() < 0.2:
        words = text.split()
        words.insert(rng.randrange(len(words) + 1), rng.choice(("mild", "left", "the", "of", "small", "xxxx")))
        text = " ".join(words)
    return rng.choice((text, text, text, text.capitalize(), text.upper()))


def sentence(rng: random.Random) -> str:
    frame = rng.choice(FRAMES)
    return frame.format(*(phrase(rng) for _ in range(frame.count("{}"))))


def text(rng: random.Random) -> str:
    """A text of one of several kinds: sentences, loose phrases, tags in and out of order; sometimes cut anywhere."""
    if rng.random() < 0.45:
        body = " ".join(sentence(rng) for _ in range(rng.randint(0, 5)))
        result = f"<think> {body} </think><answer> {rng.choice('ABCD')} </answer>" if rng.random() < 0.6 else body
    else:
        parts = []
        for _ in range(rng.randint(0, 14)):
            parts.append(phrase(rng) if rng.random() < 0.75 else rng.choice(ODD if rng.random() < 0.7 else TAGS))
            parts.append(rng.choice(JOINTS))
        result = "".join(parts)
    return result[: rng.randrange(len(result) + 1)] if rng.random() < 0.2 else result


def vocabulary(rng: random.Random, texts: list[str], size: int) -> list[bytes]:
    """All single bytes, a special token, and random pieces of the texts."""
    pieces = set()
    while len(pieces) < size:
        data = rng.choice(texts).encode()
        if data:
            start = rng.randrange(len(data))
            pieces.add(data[start : start + rng.randint(2, 9)])
    return [*BYTES, b"", *sorted(pieces)]


def tokens(rng: random.Random, data: bytes, id_of: dict[bytes, int]) -> list[int]:
    """A random tokenisation, with special tokens in between."""
    ids, start = [], 0
    while start < len(data):
        if rng.random() < 0.02:
            ids.append(256)
        length = rng.randint(1, 9)
        while data[start : start + length] not in id_of:
            length -= 1
        ids.append(id_of[data[start : start + length]])
        start += length
    return ids


def byte_completion(texts: list[str], prompt: list[int], width: int = 0) -> Completion:
    """Texts as rows of byte tokens, `width` of them (0: three more than the longest text has)."""
    rows = [text.encode()[: width or None] for text in texts]
    ids = np.zeros((len(rows), width or max(map(len, rows)) + 3), np.int32)
    for row, data in enumerate(rows):
        ids[row, : len(data)] = list(data)
    return Completion(ids, np.asarray([len(data) for data in rows], np.int32), np.asarray(prompt, np.int32))


def differences(
    texts: list[str],
    rng: random.Random,
    tables: lexicon.Tables,
    token_bytes: list[bytes],
    width: int,
    modes: tuple[bool, ...] = (True, False),
) -> list[str]:
    """Texts whose findings differ between jit, host and oracle, in `modes` of `think_only`, with the three results."""
    id_of = {data: token for token, data in enumerate(token_bytes) if data}
    rows = [tokens(rng, item.encode(), id_of)[:width] for item in texts]
    cut_texts = [b"".join(token_bytes[token] for token in row) for row in rows]  # in the middle of a character too
    ids = np.full((len(rows), width), 256, np.int32)
    for row, row_ids in enumerate(rows):
        ids[row, : len(row_ids)] = row_ids
    length = np.asarray([len(row) for row in rows], np.int32)
    different = []
    for think_only in modes:
        jitted = jax.device_get(extract(tables, ids, length, slots=32, think_only=think_only))
        on_host = read_bytes(lexicon.load(), cut_texts, think_only=think_only)
        for row, (data, in_jit, reading) in enumerate(zip(cut_texts, in_lists(jitted), on_host, strict=True)):
            plain = oracle.extract_bytes(lexicon.load(), data, think_only=think_only)
            token_of_byte = [position for position, token in enumerate(rows[row]) for _ in token_bytes[token]]
            in_tokens = [f._replace(first=token_of_byte[f.first], last=token_of_byte[f.last]) for f in plain]
            too_many = max(len(plain) - 32, 0)
            if reading.findings != plain or in_jit != in_tokens[:32] or too_many != int(jitted.overflow[row]):
                results = f"  oracle {plain}\n  host   {reading.findings}\n  jit    {in_jit}"
                different.append(f"{data!r} (think_only={think_only})\n{results}")
    return different
