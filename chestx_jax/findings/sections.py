"""Reports by section: which parts assert what the films show.

Indication, history, comparison, technique and recommendation assert nothing; findings, impression, addenda and all else
do. The section names follow the public splitter of MIMIC-CXR (Johnson et al. 2019).
"""

import re
from itertools import pairwise
from typing import NamedTuple

_NAMED = (
    r"(?:clinical |pertinent |patient |past medical )?(?:history|information|indications?|data)",
    r"clinical (?:statement|question|concern|context|details|scenario|presentation|problem|diagnosis)",
    r"reason(?: for (?:this )?(?:exam(?:ination)?|study))?",
    r"priors?|prior (?:studies|exams|films|radiographs)|comparisons?",
    r"techniques?|procedure|exam(?:ination)?|type of exam|views?",
    r"recommendations?(?:/notification)?|notifications?|follow[- ]up recommendations?",
)
SILENT_SECTIONS = re.compile("|".join(_NAMED), re.IGNORECASE)
_ASSERTING = (
    r"findings?(?: and impression)?|impression|conclusions?|(?:wet read|addendum)[^:\n]*|(?:final|preliminary) report"
)
# Known names in any case where a line or sentence begins; other names in capitals where a line begins.
_HEADER = re.compile(
    rf"(?:(?:^|(?<=[.!?\]])\s)[ \t]*(?P<known>{SILENT_SECTIONS.pattern}|{_ASSERTING})[ \t]*:)"
    r"|^[ \t]*(?P<capitals>[A-Z][A-Z ()/,-]*[A-Z)])[ \t]*:"
    r"|^[ \t]*(?P<line>_{5,}|\**[ \t]*(?:FINAL REPORT|WET READ)\b[^\n]*)$",
    re.IGNORECASE | re.MULTILINE,
)
_LETTER = re.compile(r"(?:(?<=\s)|^)[A-Ha-h]\)(?=\s)")
_LEADER = re.compile(r"\.{4,}(?=[ \t]*\w)")
_PARAGRAPH = re.compile(r"\n[ \t]*\n")


class Section(NamedTuple):
    """One section: its name in lower case ("" without a header), and where its header and its text begin and end."""

    name: str
    header: int
    start: int
    end: int

    @property
    def asserts(self) -> bool:
        return not SILENT_SECTIONS.fullmatch(self.name)


def split_sections(report: str) -> list[Section]:
    """The sections of a report in order, what precedes the first header included. Offsets count characters.

    A section ends where the next begins. Where no header follows it, a section that asserts nothing ends at the first
    blank line, behind which many reports go on without one.
    """
    headers = [match for match in _HEADER.finditer(report) if not match["capitals"] or match["capitals"].isupper()]
    bounds = [(match.start(), match.end(), match["known"] or match["capitals"] or "") for match in headers]
    bounds = [(0, 0, ""), *bounds, (len(report), len(report), "")]
    sections = [
        Section(" ".join(name.lower().split()), header, start, end)
        for (header, start, name), (end, _, _) in pairwise(bounds)
    ]
    last = sections[-1]
    paragraph = None if last.asserts else _PARAGRAPH.search(report, last.start)
    if paragraph:
        sections[-1:] = [last._replace(end=paragraph.end()), Section("", paragraph.end(), paragraph.end(), last.end)]
    return [section for section in sections if section.header < section.end]


def asserting_text(report: str) -> str:
    """The report with blanks for the sections that assert nothing; the same number of bytes in UTF-8.

    Items of a list with letters, which are no options here, become lines; dots that lead to a value a colon ("Edema
    ..... none").
    """
    parts = [
        report[section.header : section.end] if section.asserts else _blank(report[section.header : section.end])
        for section in split_sections(report)
    ]
    lines = _LETTER.sub("\n-", "".join(parts))
    return _LEADER.sub(lambda dots: ":".ljust(len(dots[0])), lines)


def sentence_span(data: bytes, first: int, last: int) -> tuple[int, int]:
    """Start and end of the sentence around two offsets, by full stops before spaces, line ends and tags."""
    start, end = first, last + 1
    while start > 0 and not (
        data[start - 1 : start] in (b"\n", b">") or data[start - 2 : start] in (b". ", b"? ", b"! ")
    ):
        start -= 1
    while end < len(data) and data[end : end + 1] not in (b"\n", b"<"):
        end += 1
        if data[end - 1 : end] in (b".", b"?", b"!") and data[end : end + 1] in (b" ", b"", b"\n"):
            break
    while start < first and data[start : start + 1] == b" ":
        start += 1
    return start, end


def _blank(text: str) -> str:
    """Line ends at both sides, so that the sentences around stay apart."""
    size = len(text.encode("utf-8", "surrogatepass"))
    return ("\n\n" + " " * (size - 4) + "\n\n")[-size:] if size >= 4 else "\n" * size
