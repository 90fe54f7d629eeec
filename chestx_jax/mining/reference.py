"""What a study shows: its report read by the findings rules, with the set's own labels as a second opinion."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from chestx_jax.findings import ASSERTED, HYPOTHETICAL, SEVERITIES, Finding, read_reports
from chestx_jax.findings.sections import SILENT_SECTIONS, sentence_span
from chestx_jax.findings.targets import distinct
from chestx_jax.labels import LABELS
from chestx_jax.lexicon import Lexicon, relations
from chestx_jax.lexicon.tables import Relations
from chestx_jax.sources.labels import radr_labels
from chestx_jax.sources.reports import joined_report
from chestx_jax.sources.study import Study

FINDINGS = LABELS[:-1]
NO_FINDING = LABELS[-1]

# The end of a line within a sentence.
_WRAPPED = re.compile(rb"(?<![.:!?\n])\n(?![ \t]*(?:\n|\d+[.)]|[A-Z ]+:))")
_HEADER = re.compile(r"^[A-Z][A-Z /]+: ")
Value = Literal["present", "absent", "uncertain"]
# Where a status comes from: the report says so, says something that implies it, is silent; the set's labels.
Basis = Literal["stated", "implied", "not mentioned", "labels"]


class Status(NamedTuple):
    """What is known of a label. `uncertain` also covers what is hedged, contradicted, or might go by another name: such
    a label is neither a right answer nor a wrong one."""

    value: Value
    basis: Basis
    statement: str = ""  # the report's sentence


@dataclass(frozen=True)
class Reference:
    """A study with its report (the sections that tell of the films), what the report says, and the status of each of
    LABELS."""

    study: Study
    report: str
    mentions: tuple[Finding, ...]  # all that the report says, hypotheses aside
    findings: tuple[Finding, ...]  # one for each concept, polarity and film
    statuses: dict[str, Status]
    shown: tuple[str, ...]  # the labels that are present, without those that another of them is a kind of

    def doubts(self, label: str) -> bool:
        """Whether the report or the set's labels speak of a label and leave it uncertain."""
        return self.statuses[label].value == "uncertain" and self.statuses[label].basis != "not mentioned"


def read_references(lexicon: Lexicon, studies: Sequence[Study]) -> list[Reference]:
    """What each study shows. Without a report, or where it lacks a label, the set's labels alone say so."""
    reports = [told_report(study) for study in studies]
    readings = read_reports(lexicon, reports)
    return [
        _reference(lexicon, study, report, [f for f in reading.findings if f.certainty != HYPOTHETICAL])
        for study, report, reading in zip(studies, reports, readings, strict=True)
    ]


def told_report(study: Study) -> str:
    """The sections that tell of the films, each under its header. Without sections there is no text that the rules can
    read (PadChest's are stems of Spanish words)."""
    sections = {name: text for name, text in study.sections.items() if not SILENT_SECTIONS.fullmatch(name)}
    if set(sections) == {"last_paragraph"}:
        return sections["last_paragraph"]
    return joined_report(sections)


def _reference(lexicon: Lexicon, study: Study, report: str, mentions: list[Finding]) -> Reference:
    tables = relations(lexicon)
    findings = [_agreed_attributes(finding, mentions) for finding in distinct(mentions)]
    opinions = second_opinion(study)
    statuses = {}
    for index, label in enumerate(FINDINGS):
        by_report = _by_report(tables, report, findings, index) if report.strip() else None
        statuses[label] = _agreed(by_report, opinions.get(label, ()))
    if not report.strip():
        sides = _box_sides(study)
        findings = [
            Finding(index, int(statuses[label].value == "present"), ASSERTED, sides.get(label, 0))
            for index, label in enumerate(FINDINGS)
            if statuses[label].value != "uncertain" and statuses[label].basis == "labels"
        ]
    statuses = {label: _unless_related(tables, findings, statuses, label) for label in FINDINGS}
    statuses[NO_FINDING] = _normality(tables, report, findings, statuses, opinions.get(NO_FINDING, ()))
    present = [index for index, label in enumerate(FINDINGS) if statuses[label].value == "present"]
    shown = [LABELS[i] for i in present if not any(tables.is_a[other, i] for other in present if other != i)]
    return Reference(study, report, tuple(mentions or findings), tuple(findings), statuses, tuple(shown))


def _box_sides(study: Study) -> dict[str, int]:
    """The sides (1 left, 2 right, 3 both) of the labels that have boxes on the first film; the patient's left is at the
    picture's right. A box over the midline says none."""
    sides: dict[str, int] = {}
    for box in study.boxes:
        if box.frame is None or box.film != study.films[0].id:
            continue
        begin, end = (x / box.frame[0] for x in (box.left, box.left + box.width))
        side = 2 if end < 0.55 else 1 if begin > 0.45 else 0
        for label, value in radr_labels({box.label: 1}).items():
            if value == 1:
                sides[label] = sides.get(label, 0) | side
    return sides


def _agreed_attributes(finding: Finding, mentions: Sequence[Finding]) -> Finding:
    """A distinct finding without a site or severity that only some of its mentions, on one of its sides, have."""
    key = (finding.concept, finding.polarity, finding.film)
    alike = [m for m in mentions if (m.concept, m.polarity, m.film) == key]
    for name in ("site", "severity"):
        having = [m for m in alike if getattr(m, name)]
        sides = 0
        for mention in having:
            sides |= mention.side
        if len({getattr(m, name) for m in having}) > 1 or (sides and finding.side & ~sides):
            finding = finding._replace(**{name: 0})
    return finding


def second_opinion(study: Study) -> dict[str, tuple[int | None, ...]]:
    """The values that the set's labellers give each label; a radiologist's alone where there are some. Labels that no
    labeller knows are left out."""
    sets = [labels for labels in study.labels if labels.provenance == "radiologist"] or study.labels
    merged = [radr_labels(labels.values) for labels in sets]
    return {
        label: tuple(values[label] for values in merged if label in values)
        for label in LABELS
        if any(label in values for values in merged)
    }


def _by_report(tables: Relations, report: str, findings: list[Finding], label: int) -> Status:
    """A label's status by the report alone. A finding outweighs the denial of something broader ("no opacity; small
    atelectasis"), which leaves the broader label uncertain."""
    is_a = tables.is_a
    denials = [f for f in findings if f.polarity == 0]
    # "Right lung clear" leaves the left one open, "no large effusion" a small one.
    partly = [f for f in denials if f.side in (1, 2) or f.severity == SEVERITIES.index("severe")]
    shown = [f for f in findings if f.polarity == 1 and is_a[f.concept, label]]
    ruled_out = [f for f in findings if f.polarity == 1 and tables.denies[f.concept, label]]
    denied = [f for f in denials if is_a[label, f.concept]] + ruled_out
    agreed = [
        f
        for f in shown
        if f.certainty == ASSERTED
        and not any(is_a[f.concept, d.concept] and is_a[d.concept, label] and overlap(f, d) for d in denials)
    ]
    if agreed:
        best = max(agreed, key=lambda f: (f.concept == label, float(tables.weight[f.concept])))
        return Status("present", "stated", statement(report, best))
    if shown or any(f.certainty != ASSERTED or (f in partly and is_a[label, f.concept]) for f in denied):
        return Status("uncertain", "stated", statement(report, (shown or denied)[0]))
    if denied:
        closest = min(denied, key=lambda f: (f.concept != label, f.polarity))
        basis: Basis = "stated" if closest.concept == label else "implied"
        return Status("absent", basis, statement(report, closest))
    return Status("absent", "not mentioned")


def overlap(one: Finding, other: Finding) -> bool:
    """Whether two findings may be on one side."""
    return not one.side or not other.side or bool(one.side & other.side)


def statement(report: str, finding: Finding) -> str:
    """The report's sentence that a finding stands in, on one line."""
    data = _WRAPPED.sub(b" ", report.encode("utf-8", "surrogatepass"))
    start, end = sentence_span(data, finding.first, finding.last)
    text = " ".join(data[start:end].decode("utf-8", "replace").split())
    return _HEADER.sub("", text)


def _agreed(report: Status | None, values: tuple[int | None, ...]) -> Status:
    """The report's status where no labeller contradicts it; without a report the labels'."""
    spoken = {value for value in values if value is not None}
    doubtful = Status("uncertain", "labels")
    if -1 in spoken or spoken == {0, 1}:
        return doubtful
    if report is None:
        if not values:
            return Status("uncertain", "not mentioned")  # no labeller knows it
        if not spoken:
            return Status("absent", "not mentioned")
        return Status("present" if spoken == {1} else "absent", "labels")
    if report.basis == "not mentioned" and spoken:
        return Status("absent", "labels") if spoken == {0} else doubtful
    opposite = {"present": {0}, "absent": {1}}.get(report.value)
    return Status("uncertain", "stated", report.statement) if spoken == opposite else report


def _unless_related(tables: Relations, findings: Sequence[Finding], statuses: dict[str, Status], label: str) -> Status:
    """What is not mentioned is uncertain beside a finding that may be it by another name, or another finding of its
    region that is none of the labels: only what nothing is said about counts as normal."""
    status, index = statuses[label], LABELS.index(label)
    if status.basis != "not mentioned":
        return status
    for finding in findings:
        if finding.polarity == 0 or not tables.counted[finding.concept]:
            continue
        same_region = tables.region[finding.concept] == tables.region[index] and tables.weight[finding.concept] > 0
        labelled = any(tables.is_a[finding.concept, LABELS.index(other)] for other in FINDINGS)
        if tables.credit[index, finding.concept] > 0 or (same_region and not labelled):
            return Status("uncertain", "not mentioned")
    return status


def _normality(
    tables: Relations,
    report: str,
    findings: Sequence[Finding],
    statuses: dict[str, Status],
    values: tuple[int | None, ...],
) -> Status:
    """No Finding: present where nothing is found or suspected, and something is called normal."""
    found = [f for f in findings if f.polarity == 1 and tables.weight[f.concept] > 0]
    if any(status.value == "present" for status in statuses.values()):
        return Status("absent", "implied", next(s.statement for s in statuses.values() if s.value == "present"))
    if report.strip():
        normal = [f for f in findings if f.polarity == 0 or tables.denies[f.concept].any()]
        if found or not normal or 0 in values:
            return Status("uncertain", "implied")
        return Status("present", "implied", statement(report, normal[-1]))
    return Status("present" if set(values) == {1} else "uncertain", "labels")
