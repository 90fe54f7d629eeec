"""A report's sections under common names."""

import re

from chestx_jax.findings.sections import split_sections

# In this order: the first pattern that a section's name matches names it.
_NAMES = (
    ("findings", r"findings?"),
    (
        "impression",
        r"imp?ress?i?ons?|conclusions?|ndication|opinion|summary|findings? ?(?:and|/|&) ?impressions?|impression ?/.*",
    ),
    ("addendum", r"addend(?:um|a)\b.*"),
    ("wet read", r"wet ?read\b.*"),
    ("indication", r"(?:clinical )?indications?|reason for.*|clinical (?:information|history|data)"),
    ("history", r"(?:.* )?history"),
    ("comparison", r"comparisons?\b.*"),
    ("technique", r"techniques?|procedure|exam(?:ination)?|type of exam|views?"),
    ("recommendation", r"(?:follow[- ]up )?recommendations?\b.*|notifications?"),
)
_TITLE = re.compile(r"chest\b|portable\b|.*\b(?:views?|radiographs?|lateral|frontal|x-?ray)\b|(?:pa|ap)\b")
_LETTER = re.compile(r"[^\W\d_]")
_PARAGRAPH = re.compile(r"\n[ \t]*\n")


def named_sections(report: str) -> dict[str, str]:
    """The sections that have text: findings, impression, indication, history, comparison, technique, addendum, wet
    read, recommendation, and others under their own names in lower case.

    A title of the examination in a header's place (`CHEST, TWO VIEWS:`) heads findings where nothing else does. Of
    several sections of one name the last with text counts, as in the public splitter of MIMIC-CXR (Johnson et al.
    2019). Where there are neither findings nor an impression, what follows the first blank line of the last section is
    `last_paragraph`; a report without any header is that paragraph as a whole. Numbers and blanks alone are no text.
    """
    report = report.replace("\r\n", "\n")
    sections: dict[str, str] = {}
    titled = {}
    paragraph = ""
    for section in split_sections(report):
        text = report[section.start : section.end]
        if not _LETTER.search(text):
            continue
        parts = [text] if section.header == section.start else _PARAGRAPH.split(text.lstrip("\n"), maxsplit=1)
        paragraph = clean(parts[-1])
        name = _common_name(section.name)
        if name == "title":
            titled["findings"] = clean(text)
        elif name:
            sections[name] = clean(text)
    sections = {**titled, **sections}
    unread = not {"findings", "impression"} & sections.keys() and paragraph not in sections.values()
    if unread and _LETTER.search(paragraph):
        sections["last_paragraph"] = paragraph
    return sections


def joined_report(sections: dict[str, str]) -> str:
    """One text of sections that a set gives apart, each under its header."""
    return "\n".join(f"{name.upper()}: {text}" for name, text in sections.items())


def clean(text: str) -> str:
    """Without blanks around the text and its lines, and without lines of nothing but rules."""
    lines = [line.strip() for line in text.split("\n")]
    return "\n".join(line for line in lines if not re.fullmatch(r"_{5,}", line)).strip()


def _common_name(name: str) -> str:
    for common, pattern in _NAMES:
        if re.fullmatch(pattern, name):
            return common
    return "title" if _TITLE.match(name) else name
