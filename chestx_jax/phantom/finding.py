"""One finding of a phantom film. Kept apart from everything heavy, so that a drawing process starts in no time."""

from dataclasses import dataclass

SIDES = ("right", "left")
ZONES = ("upper", "mid", "lower")
SEVERITIES = ("mild", "moderate", "severe")
CHANGES = ("stable", "worsening", "improving")
DEVICES = ("pacemaker", "central line", "endotracheal tube", "enteric tube")


@dataclass(frozen=True)
class Finding:
    """One finding. `amount` in [0, 1] is what is drawn, `severity` what is said, `shape` the seed of its details."""

    label: str
    side: str  # right, left, both, or "" for midline findings
    zone: str  # upper, mid, lower, or "" where the finding has its own place
    severity: str
    amount: float
    shape: int
    kind: str = ""  # the device of a Support Devices finding
