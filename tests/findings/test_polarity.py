"""Texts labelled by hand, of reports and reasonings: what a radiologist understands is what the rules read.

All texts were written before the rules that read them. Rules may be tuned on `polarity.tsv` and `polarity_later.tsv`,
whose texts were written to be hard once the first were read well. `polarity_held_out.tsv` holds other texts of the same
kinds, chosen by chance from those written, and is HELD OUT: never looked at while rules are written, only its accuracy
is. A line is kind, side (report or reasoning), what must be read, text; tab separated, with `\\n` and `\\uXXXX` in the
text for that character. What must be read is a list of `SIGN Concept @ attribute=value, …`, joined by semicolons,
without blanks:

* `+` present, `?` present but hedged, `-` absent (hedged or not), `0` not asserted, present or absent. Several signs
  before one concept: each of them is right. A concept that the list does not name may be read or not.
* A concept's other mentions must agree with the signs listed for it. `film=earlier` speaks of the earlier of two films;
  where the list does not say so, what is read of an earlier film asserts nothing.
* `side` left, right or both; `severity` mild (trace, small, minimal), moderate or severe (large, massive, extensive);
  `change` stable, worsening (new) or improving (resolved); `site` a place of the lexicon or where a device ends.
  An attribute that is not listed may be anything; a finding must not be on a side that is not listed.
* "Consistent with" asserts; "likely", "may", "suggests", "concerning for", "versus", "not excluded" hedge; "unlikely",
  "less likely", "doubt" deny. "No new X" denies at most a new one, so `-` and `0` are right.

`python -m tests.findings.test_polarity [KIND …]` prints what is read wrong of the two tuning files.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from chestx_jax import lexicon
from chestx_jax.findings import FILMS, SEVERITIES, read_reports, read_texts
from chestx_jax.lexicon.lexicon import CHANGES, SIDES

NAMES = ("polarity.tsv", "polarity_later.tsv", "polarity_held_out.tsv")
TUNING, LATER, HELD_OUT = (Path(__file__).with_name(name) for name in NAMES)
FLOORS = {TUNING: 0.98, LATER: 0.92, HELD_OUT: 0.86}  # of the texts have their signs read right
BASIC_FLOOR = 0.97  # the same of the plain sentences (kind `basic`)


@dataclass(frozen=True)
class Item:
    """One thing that must be read, or that is read."""

    signs: str
    concept: str
    attributes: dict[str, str]

    @property
    def sides(self) -> set[str]:
        side = self.attributes.get("side", "")
        return {"left", "right"} if side == "both" else {side} - {""}


@dataclass(frozen=True)
class Line:
    kind: str
    side: str
    expected: tuple[Item, ...]
    text: str
    source: str


def parse(line: str) -> Line:
    kind, side, expected, text = line.split("\t")
    assert side in ("report", "reasoning"), line
    items = []
    for item in expected.split(";"):
        signs, concept, attributes = re.fullmatch(r"([-+?0]+)([^@]+)@?(.*)", item).groups()
        items.append(Item(signs, concept, dict(pair.split("=") for pair in attributes.split(",") if pair)))
    text = re.sub(r"\\n|\\u(\w{4})", lambda match: chr(int(match[1], 16)) if match[1] else "\n", text)
    return Line(kind, side, tuple(items), text, line)


def load(path: Path) -> list[Line]:
    return [parse(line) for line in path.read_text(encoding="utf-8").rstrip("\n").split("\n")]


def read(side: str, text: str) -> list[Item]:
    """What the rules read in a report or a reasoning; unasserted findings left out."""
    loaded = lexicon.load()
    return [
        Item(
            "-" if not finding.polarity else "?" if finding.certainty == 1 else "+",
            loaded.concepts[finding.concept].name,
            {
                "side": SIDES[finding.side],
                "site": loaded.sites[finding.site - 1] if finding.site else "",
                "change": CHANGES[finding.change],
                "severity": SEVERITIES[finding.severity],
                "film": FILMS[finding.film],
            },
        )
        for finding in (read_reports if side == "report" else read_texts)(loaded, [text])[0].findings
        if finding.certainty
    ]


def signs_right(expected: Iterable[Item], found: list[Item]) -> bool:
    """Whether one concept is read with the signs that are listed for it, and no other."""
    found_signs = {item.signs for item in found} or {"0"}
    allowed = set("".join(item.signs for item in expected))
    return found_signs <= allowed | {"0"} and all(
        found_signs & set(item.signs) or "0" in item.signs for item in expected
    )


def attributes_right(expected: list[Item], found: list[Item]) -> bool:
    """Whether each listed attribute is read, and no finding lies on a side that is not listed."""
    for item in expected:
        if "0" in item.signs:
            continue
        others = {name: value for name, value in item.attributes.items() if name != "side"}
        alike = [
            other
            for other in found
            if other.signs in item.signs and all(other.attributes.get(n) == v for n, v in others.items())
        ]
        if not alike or not all(any(side in other.sides for other in alike) for side in item.sides):
            return False
        of_sign = [other for other in expected if set(other.signs) & set(item.signs)]
        if all(other.sides for other in of_sign):
            listed = set().union(*(other.sides for other in of_sign))
            if any(other.sides - listed for other in found if other.signs in item.signs):
                return False
    return True


def check(line: Line) -> tuple[bool, bool]:
    """Whether the signs of a line are read right, and whether signs and attributes are."""
    found = read(line.side, line.text)
    signs = attributes = True
    for concept in {item.concept for item in line.expected}:
        expected = [item for item in line.expected if item.concept == concept]
        of_concept = [item for item in found if item.concept == concept]
        if not any(item.attributes.get("film") == "earlier" for item in expected):
            of_concept = [item for item in of_concept if item.attributes.get("film") != "earlier"]
        signs &= signs_right(expected, of_concept)
        attributes &= attributes_right(expected, of_concept)
    return signs, signs and attributes


def accuracy(lines: list[Line]) -> dict[str, tuple[int, float, float]]:
    """By kind, by side and in all: lines, the share with the right signs, the share with right attributes as well."""
    total, signs, whole = Counter(), Counter(), Counter()
    for line in lines:
        right = check(line)
        for group in (line.kind, line.side, "all"):
            total[group] += 1
            signs[group] += right[0]
            whole[group] += right[1]
    last = ["report", "reasoning", "all"]
    groups = [group for group in total if group not in last] + [group for group in last if group in total]
    return {group: (total[group], signs[group] / total[group], whole[group] / total[group]) for group in groups}


def table(accuracies: dict[str, tuple[int, float, float]]) -> str:
    rows = [f"{group:26}{count:5}{signs:8.3f}{whole:8.3f}" for group, (count, signs, whole) in accuracies.items()]
    return "\n".join([f"{'kind':26}{'lines':>5}{'signs':>8}{'all':>8}", *rows])


def test_labels_are_well_formed():
    names = {concept.name for concept in lexicon.load().concepts}
    values = {
        "side": set(SIDES),
        "change": set(CHANGES),
        "severity": {"mild", "moderate", "severe"},
        "film": {"earlier", "current"},
    }
    tuning, held_out = load(TUNING) + load(LATER), load(HELD_OUT)
    for line in tuning + held_out:
        for item in line.expected:
            assert item.concept in names, line.source
            assert item.attributes.keys() <= {*values, "site"}, line.source
            assert all(value in values.get(name, {value}) for name, value in item.attributes.items()), line.source
    texts = [line.text for line in tuning if line.kind != "basic"] + [line.text for line in held_out]
    assert len(texts) == len(set(texts))
    assert {line.kind for line in tuning} == {line.kind for line in held_out} | {"basic"}
    assert len(tuning) >= 2300
    assert len(held_out) >= 500


def test_what_is_read_of_hand_labelled_texts():
    for path in FLOORS:
        accuracies = accuracy(load(path))
        print(f"\n{path.name}\n{table(accuracies)}")
        assert accuracies["all"][1] >= FLOORS[path], path.name
        assert accuracies.get("basic", (0, 1.0, 1.0))[1] >= BASIC_FLOOR


if __name__ == "__main__":
    chosen = [line for line in load(TUNING) + load(LATER) if line.kind in (sys.argv[1:] or [line.kind])]
    for line in chosen:
        if not all(check(line)):
            items = [(item.signs + item.concept, dict(item.attributes)) for item in read(line.side, line.text)]
            read_as = [(name, *(value for value in attributes.values() if value)) for name, attributes in items]
            print("attributes" if check(line)[0] else "SIGNS", line.source, "\n   read", *read_as)
    print(table(accuracy(chosen)))
