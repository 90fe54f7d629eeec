"""Random radiology texts, random tokenisations, and the comparison of the jitted reading with the plain one."""

import random
from dataclasses import astuple

import jax
import numpy as np

from chestx_jax import lexicon
from chestx_jax.lexicon.extract import FIELDS
from chestx_jax.rewards.extract import extract

_WORDS = None
TAGS = (
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "<Think>",
    "< think >",
    "<answer",
    "think>",
    "</think",
    "<<answer>",
)
ODD = (
    "–",
    "’",
    "•",
    " ",
    "é",
    "无",
    "ο",
    "\u200b",
    "🙂",
    "1.",
    "2)",
    "A)",
    "(B)",
    "5.2",
    "e.g.",
    "Dr.",
    "T12",
    "**",
    "_",
    "\t",
)
JOINTS = (
    " ",
    " ",
    " ",
    " ",
    " ",
    ", ",
    ". ",
    ". ",
    "; ",
    ": ",
    "\n",
    "\n\n",
    "-",
    "/",
    "? ",
    ") ",
    " (",
    "",
    ".",
    "\n- ",
    "! ",
)
FRAMES = (
    "There is {}.", "No {} or {}.", "The {} is {}.", "{} is not seen.", "Possible {}, {}.", "Without {}, {} has worsened.",  # noqa: E501
    "The lungs are clear, but {} remains.", "1. {}\n2. {}", "{} cannot be excluded.", "I should look for {}.",
    "Normal heart size and {}.", "Heart and {} are normal.", "A) {}\nB) {}", "Does this show {}?", "{}: none.",
    "The {} on the left, {} on the right.", "{} would appear as {}.", "Stable {} with new {}.",
    "Look for {} and {}. None is seen.", "{}: {}.", "{}:\n- {}", "The correct answer is:\nA) {}\nB) {}", "If {}, the image shows {}.",  # noqa: E501
    "Option A suggests {}. It shows no {}, ruling out this option.", "To assess {}, no {} is seen.", "Check {}, which is not seen.",  # noqa: E501
    "The image shows {}, typically {}.", "{} (Option B) should be {}.", "Options: {}, which suggests {}, is the best answer.",  # noqa: E501
)  # fmt: skip


def phrases() -> list[str]:
    """Phrases of the lexicon in words."""
    global _WORDS
    if _WORDS is None:
        loaded = lexicon.load()
        spelling: dict[int, list[str]] = {}
        for word, number in loaded.lexemes.items():
            spelling.setdefault(number, []).append(word)
        _WORDS = [[spelling[number] for number in phrase] for phrase in loaded.phrases]
    return _WORDS


def phrase(rng: random.Random) -> str:
    text = " ".join(rng.choice(words) for words in rng.choice(phrases()))
    if rng.random() < 0.2:
        words = text.split()
        words.insert(rng.randrange(len(words) + 1), rng.choice(("mild", "left", "the", "of", "small", "xxxx")))
        text = " ".join(words)
    return rng.choice((text, text, text, text.capitalize(), text.upper()))


def sentence(rng: random.Random) -> str:
    frame = rng.choice(FRAMES)
    return frame.format(*(phrase(rng) for _ in range(frame.count("{}"))))


def text(rng: random.Random) -> str:
    """A text of one of several kinds: sentences, loose phrases, tags in and out of order; cut anywhere now and then."""
    kind = rng.random()
    if kind < 0.45:
        body = " ".join(sentence(rng) for _ in range(rng.randint(0, 5)))
        made = f"<think> {body} </think><answer> {rng.choice('ABCD')} </answer>" if rng.random() < 0.6 else body
    else:
        parts = []
        for _ in range(rng.randint(0, 14)):
            parts.append(phrase(rng) if rng.random() < 0.75 else rng.choice(ODD if rng.random() < 0.7 else TAGS))
            parts.append(rng.choice(JOINTS))
        made = "".join(parts)
    return made[: rng.randrange(len(made) + 1)] if rng.random() < 0.2 else made


def vocabulary(rng: random.Random, texts: list[str], size: int) -> list[bytes]:
    """All single bytes, a special token, and random pieces of the texts."""
    pieces = set()
    while len(pieces) < size:
        data = rng.choice(texts).encode()
        if data:
            start = rng.randrange(len(data))
            pieces.add(data[start : start + rng.randint(2, 9)])
    return [bytes([byte]) for byte in range(256)] + [b""] + sorted(pieces)


def tokens(rng: random.Random, data: bytes, index: dict[bytes, int]) -> list[int]:
    """A random tokenisation, special tokens strewn in."""
    ids, start = [], 0
    while start < len(data):
        if rng.random() < 0.02:
            ids.append(256)
        length = rng.randint(1, 9)
        while data[start : start + length] not in index:
            length -= 1
        ids.append(index[data[start : start + length]])
        start += length
    return ids


def differences(
    texts: list[str], rng: random.Random, tables: lexicon.Tables, words: list[bytes], width: int
) -> list[str]:
    """Texts whose findings differ between the jitted and the plain reading (both modes), with what each found."""
    index = {data: number for number, data in enumerate(words) if data}
    rows = [tokens(rng, item.encode(), index)[:width] for item in texts]
    texts = [b"".join(words[number] for number in row) for row in rows]  # as cut by the width, in mid-character too
    ids = np.full((len(rows), width), 256, np.int32)
    for row, numbers in enumerate(rows):
        ids[row, : len(numbers)] = numbers
    length = np.asarray([len(row) for row in rows], np.int32)
    found = []
    for think_only in (True, False):
        got = jax.device_get(extract(tables, ids, length, slots=32, think_only=think_only))
        for row, data in enumerate(texts):
            owner = [place for place, number in enumerate(rows[row]) for _ in words[number]]
            plain = lexicon.extract.extract_bytes(lexicon.load(), data, think_only=think_only)
            want = [(*astuple(item)[:-2], owner[item.first], owner[item.last]) for item in plain]
            have = [
                tuple(int(getattr(got, name)[row, slot]) for name in FIELDS) for slot in np.flatnonzero(got.valid[row])
            ]
            if want[:32] != have or max(len(want) - 32, 0) != int(got.overflow[row]):
                found.append(f"{data!r} (think_only={think_only})\n  plain {want}\n  jit   {have}")
    return found
