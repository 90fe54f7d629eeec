"""The parts of a question's text: what is asked, the options it lists, and the instruction, which is no part of it.

Options come in many spellings: after `Options:` or `Choices:`, or lettered lines without either; a line each or all on
one; `A)`, `(a)`, `A.`, `A:`, `1.`. All are read as letters, and asked in the release's form (`canonical_question`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_INSTRUCTIONS = (
    re.compile(r"\s*Let['’]?s think step by step\b[^\n]*\s*\Z", re.IGNORECASE),
    re.compile(r"(?:\s*\n(?!\W*\w{1,2}[).:\]])[^\n]*</?(?:think|answer)>[^\n]*)+\s*\Z", re.IGNORECASE),
)
_HEADER = re.compile(r"\b(?:answer\s+)?(?:options|choices)(?:\s+are)?\s*[:：]", re.IGNORECASE)
_MARK = re.compile(
    r"(?P<line>^[ \t]*(?:[-*•][ \t]*)?)?(?<!\S)(?P<open>[(\[（]?)\**(?P<label>[A-Z]|[a-z]|\d{1,2})"
    r"(?P<close>[)\]）．：、]|[.:](?!\w)|[.:](?=[A-Z]))\**",
    re.MULTILINE,
)
_LINK = re.compile(r"(?:[\s,;|/]|\b(?:or|and)\b)+\Z")  # what stands between two options of one line


@dataclass(frozen=True)
class Parts:
    """A question in parts; `options` is letter → text, empty for an open question."""

    stem: str
    options: dict[str, str]
    rest: str = ""  # what follows the options
    numbered: bool = False  # the options are numbered instead of lettered
    unreadable: bool = False  # it announces options, or repeats a letter, and they cannot be read
    canonical: bool = True  # it is written as the release writes questions


def without_instruction(question: str) -> str:
    """The question without the closing sentence that asks to think, or lines that ask for `<think>` or `<answer>`."""
    for instruction in _INSTRUCTIONS:
        question = instruction.sub("", question)
    return question


def options(question: str) -> dict[str, str]:
    """Letter → text of the options listed in a question (numbered ones get letters); empty for open questions."""
    return parts(question).options


def canonical_question(question: str) -> str:
    """The question as the release writes it, with one `A) text` a line after `Options:`; an open one unchanged."""
    split = parts(question)
    if split.canonical:
        return question
    listed = "\n".join(f"{letter}) {text}" for letter, text in split.options.items())
    return f"{split.stem} Options:\n{listed}" + (f"\n{split.rest}" if split.rest else "")


def with_options(stem: str, texts: Sequence[str]) -> str:
    """A question in the release's form: what is asked, and one lettered line an option."""
    lines = "\n".join(f"{chr(65 + i)}) {text}" for i, text in enumerate(texts))
    return f"{stem} Options:\n{lines}"


def question_key(question: str) -> str:
    """The same text for two spellings of one question: instruction, options' form and white space do not count."""
    return " ".join(canonical_question(without_instruction(question)).split())


@lru_cache(maxsize=4096)
def parts(question: str) -> Parts:
    """Splits a question. An option begins with a mark at the start of a line or, within a line, with a mark of the same
    form whose letter follows the last one's."""
    header = _HEADER.search(question)
    listing = question[header.end() :] if header else question
    marks = _marks(listing, bool(header))
    if not marks:
        return Parts(question.strip(), {}, unreadable=header is not None)
    texts = [_text(listing, mark, following) for mark, following in zip(marks, [*marks[1:], None], strict=True)]
    letters = [_letter(mark) for mark in marks]
    stem = question[: header.start()] if header else listing[: marks[0].start()]
    tail = listing[marks[-1].end() :].lstrip()
    release_form = all(m[0].strip() == f"{_letter(m)})" and _begins_line(m) for m in marks)
    return Parts(
        stem=stem.strip(),
        options=dict(zip(letters, texts, strict=True)) if len(set(letters)) == len(letters) else {},
        rest=tail.partition("\n")[2].strip(),
        numbered=marks[0]["label"].isdigit(),
        unreadable=len(set(letters)) < len(letters),
        canonical=release_form and header is not None and header[0] == "Options:",
    )


def _marks(listing: str, announced: bool) -> list[re.Match[str]]:
    """The marks that begin options. Without a header, options are at least A and B, and numbers are none."""
    candidates = list(_MARK.finditer(listing))
    if announced:
        first = (i for i, mark in enumerate(candidates) if _begins_line(mark) or not listing[: mark.start()].strip())
        begins = [i for i in [next(first, None)] if i is not None]
    else:
        begins = [i for i, mark in enumerate(candidates) if mark["label"] in "Aa" and _stands_out(mark)]
    for begin in begins:
        marks = [candidates[begin]]
        for mark in candidates[begin + 1 :]:
            same_case = _case(mark) == _case(marks[0])
            same_form = (mark["open"], mark["close"]) == (marks[-1]["open"], marks[-1]["close"])
            is_next = _number(mark) == _number(marks[-1]) + 1
            if same_case and (_begins_line(mark) or (same_form and is_next)):
                marks.append(mark)
        if announced or (len(marks) > 1 and _number(marks[1]) == 2):
            return marks if max(map(_number, marks)) <= 26 and min(map(_number, marks)) else []
    return []


def _stands_out(mark: re.Match[str]) -> bool:
    return _begins_line(mark) or mark["close"] in ")）"


def _begins_line(mark: re.Match[str]) -> bool:
    return mark["line"] is not None


def _case(mark: re.Match[str]) -> str:
    return "1" if mark["label"].isdigit() else "A" if mark["label"].isupper() else "a"


def _number(mark: re.Match[str]) -> int:
    return int(mark["label"]) if mark["label"].isdigit() else ord(mark["label"].upper()) - 64


def _letter(mark: re.Match[str]) -> str:
    return chr(64 + _number(mark))


def _text(listing: str, mark: re.Match[str], following: re.Match[str] | None) -> str:
    """What stands before the next option, less what links two options of one line; of the last option its line."""
    if following is None:
        return " ".join(listing[mark.end() :].strip().partition("\n")[0].split())
    text = listing[mark.end() : following.start()]
    return " ".join((text if _begins_line(following) else _LINK.sub("", text)).split())
