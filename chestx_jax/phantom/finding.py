"""One finding of a phantom film. Imports nothing heavy, so that a drawing process starts fast."""

from dataclasses import dataclass

SIDES = ("right", "left")
ZONES = ("upper", "mid", "lower")
SEVERITIES = ("mild", "moderate", "severe")
CHANGES = ("stable", "worsening", "improving")
DEVICES = ("pacemaker", "central line", "endotracheal tube", "enteric tube")


@dataclass(frozen=True)
class Finding:
    """One finding. `amount` in [0, 1] scales the drawing, `severity` the words; `shape` is the seed of its details."""

    label: str
    side: str  # right, left, both, or "" for midline findings
    zone: str  # upper, mid, lower, or "" where the label fixes the place
    severity: str
    amount: float
    shape: int
    kind: str = ""  # the device of a Support Devices finding
