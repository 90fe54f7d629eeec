"""The findings of a phantom patient and their places: the truth behind films, reports and questions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from chestx_jax.data.schema import Drawn
from chestx_jax.labels import LABELS
from chestx_jax.phantom.finding import DEVICES, SEVERITIES, SIDES, ZONES, Finding

FINDINGS = LABELS[:-1]
# The five findings whose progression is asked for, as in MS-CXR-T (Bannur et al. 2023).
PROGRESSIVE = ("Consolidation", "Edema", "Pleural Effusion", "Pneumonia", "Pneumothorax")

IS_A = {
    **dict.fromkeys(("Edema", "Consolidation", "Atelectasis", "Pneumonia"), "Lung Opacity"),
    "Cardiomegaly": "Enlarged Cardiomediastinum",
}
# No film shows both labels of a pair and no question offers both, so every gold answer is unambiguous: a film with
# pneumonia alone does show a lung opacity, and a nodule may be called one.
AMBIGUOUS = frozenset(map(frozenset, (*IS_A.items(), ("Lung Lesion", "Lung Opacity"))))

_SHARE_OF_COUNT = (0.20, 0.35, 0.27, 0.18)  # films with 0, 1, 2, 3 findings
_BILATERAL = 0.15  # share of effusions and atelectases that are on both sides
_PROPOSAL_WEIGHT = {"Lung Opacity": 1.9}  # others 1; it is refused more often, being in many ambiguous pairs
_MIDLINE = ("Cardiomegaly", "Enlarged Cardiomediastinum")


@dataclass(frozen=True)
class Case:
    """One patient: the findings of the film; of a follow-up patient also those of the earlier film, and the change."""

    id: str
    findings: tuple[Finding, ...]
    earlier: tuple[Finding, ...] | None = None
    changed: str = ""  # label whose progression is asked about
    change: str = ""  # one of finding.CHANGES


def has_ambiguous_pair(labels: Iterable[str]) -> bool:
    """Whether two of the labels must not be in one film or one question."""
    distinct = frozenset(labels)
    return any(pair <= distinct for pair in AMBIGUOUS)


def is_ambiguous(label: str, labels: Iterable[str]) -> bool:
    """Whether `label` must not be called absent of a film with `labels`."""
    return any(other == label or frozenset((label, other)) in AMBIGUOUS for other in labels)


def ground_truth(findings: Iterable[Finding], changed: str = "", change: str = "") -> tuple[str, ...]:
    """The findings of one film as strings of schema.Drawn; the label `changed` carries `change`."""
    return tuple(str(Drawn(f.label, f.side, change if f.label == changed else "")) for f in findings)


def draw_case(rng: np.random.Generator, id: str) -> Case:
    """A patient with one film."""
    return Case(id, _place(_labels(rng, int(rng.choice(4, p=_SHARE_OF_COUNT))), rng))


def draw_findings(labels: Sequence[str], rng: np.random.Generator) -> tuple[Finding, ...]:
    """Findings for exactly these labels, which must hold no ambiguous pair."""
    return _place(list(labels), rng)


def draw_follow_up(rng: np.random.Generator, id: str, changed: str, change: str) -> Case:
    """A patient with two films: the finding `changed` undergoes `change`, at most one other stays the same."""
    others = [label for label in FINDINGS if label != changed and not has_ambiguous_pair((label, changed))]
    companion = [str(rng.choice(others))] if rng.random() < 0.5 else []
    findings = _place([changed, *companion], rng)
    # Half of the time two severity levels apart, so that the change is plain to see.
    low, high = ((0, 2), (0, 2), (0, 1), (1, 2))[rng.integers(4)]
    level = int(rng.integers(3))
    before, after = {"stable": (level, level), "worsening": (low, high), "improving": (high, low)}[change]
    earlier = [_graded(finding, before, rng) if finding.label == changed else finding for finding in findings]
    later = tuple(
        _graded(finding, after, rng, finding.amount if change == "stable" else None)
        if finding.label == changed
        else finding
        for finding in earlier
    )
    return Case(id, later, tuple(earlier), changed, change)


def _labels(rng: np.random.Generator, count: int) -> list[str]:
    """`count` labels without an ambiguous pair, all about equally frequent."""
    weights = np.array([_PROPOSAL_WEIGHT.get(label, 1.0) for label in FINDINGS])
    while True:
        chosen = [FINDINGS[i] for i in rng.choice(len(FINDINGS), size=count, replace=False, p=weights / weights.sum())]
        if not has_ambiguous_pair(chosen):
            return chosen


def _graded(finding: Finding, level: int, rng: np.random.Generator, amount: float | None = None) -> Finding:
    """The finding at severity `level`; a given amount is kept (a stable finding is drawn as it was)."""
    low = (0.05, 0.42, 0.80)[level]
    new_amount = round(float(low + 0.2 * rng.random()), 3) if amount is None else amount
    return replace(finding, severity=SEVERITIES[level], amount=new_amount)


def _place(labels: list[str], rng: np.random.Generator) -> tuple[Finding, ...]:
    """Findings for the labels, each in cells of the lungs (side, zone) of its own; tries until they fit."""
    while True:
        placed = _try_to_place(labels, rng)
        if len(placed) == len(labels):
            return tuple(placed[label] for label in labels)


def _try_to_place(labels: list[str], rng: np.random.Generator) -> dict[str, Finding]:
    """Findings by label; incomplete if a label found no free cell."""
    taken: set[tuple[str, str]] = set()
    placed = {}
    # Labels with few places choose first; edema may overlie others but keeps later patches out of the mid zones.
    for label in sorted(labels, key=lambda label: (*_PLACING_ORDER, label).index(label)):
        level = int(rng.integers(3))
        kind = str(rng.choice(DEVICES)) if label == "Support Devices" else ""
        places = _places(label, kind)
        if len(places) > 1 and places[-1][0] == "both" and rng.random() > _BILATERAL:
            places = places[:-1]
        free = [place for place in places if label == "Edema" or not taken & _cells(label, kind, *place, level)]
        if not free:
            break
        side, zone = free[rng.integers(len(free))]
        taken |= _cells(label, kind, side, zone, level)
        placed[label] = _graded(Finding(label, side, zone, "", 0.0, int(rng.integers(2**31)), kind), level, rng)
    return placed


_PLACING_ORDER = ("Pneumothorax", "Atelectasis", "Pleural Effusion", "Fracture", "Support Devices", "Edema")
_ZONED = {
    "Pneumothorax": ("",),
    "Pleural Effusion": ("",),
    "Atelectasis": ("lower",),
    "Fracture": ("",),
    "Consolidation": ZONES,
    "Pneumonia": ZONES,
    "Lung Opacity": ZONES,
    "Lung Lesion": ZONES,
}


def _places(label: str, kind: str) -> list[tuple[str, str]]:
    """The (side, zone) pairs that a finding may have; a bilateral one, if any, comes last."""
    if label in _MIDLINE or kind in ("endotracheal tube", "enteric tube"):
        return [("", "")]
    if label == "Edema":
        return [("both", "")]
    if label == "Support Devices":
        return [(side, "") for side in SIDES]
    pairs = [(side, zone) for side in SIDES for zone in _ZONED[label]]
    return [*pairs, ("both", _ZONED[label][0])] if label in ("Pleural Effusion", "Atelectasis") else pairs


def _cells(label: str, kind: str, side: str, zone: str, level: int) -> frozenset[tuple[str, str]]:
    """The lung cells that a finding occupies."""
    sides = SIDES if side == "both" else (side,) if side else ()
    zones: tuple[str, ...] = (zone,) if zone else ()
    if label == "Pneumothorax":
        zones = ZONES if level == 2 else ("upper", "mid")
    elif label == "Pleural Effusion":
        zones = ("lower",) if level == 0 else ("mid", "lower")
    elif label == "Edema":
        zones = ("mid",)
    elif label == "Fracture" or kind == "pacemaker":
        zones = ("upper",) if kind else ("mid",)
    return frozenset((side, zone) for side in sides for zone in zones)
