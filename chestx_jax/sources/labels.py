"""Label columns, and the labels of all sets under the names of `chestx_jax.labels`."""

from collections.abc import Iterable, Mapping

from chestx_jax.labels import LABELS
from chestx_jax.sources.problems import Problems
from chestx_jax.sources.tables import Row, number

CHEXPERT = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation",
    "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
CHEXPERT_ALIASES = {"Lung Opacity": ("Airspace Opacity",), "No Finding": ("No Findings", "Normal")}
# Names of other sets for the same label, in lower case.
_SAME = {
    "Pleural Effusion": ("effusion", "pleural effusion"),
    "Lung Lesion": ("nodule", "mass", "nodule/mass"),
    "Lung Opacity": ("infiltration", "infiltrate", "opacity", "airspace opacity"),
    "Fracture": ("fractures, bone", "rib fracture", "clavicle fracture"),
    "No Finding": ("normal",),
}
_KINDS = {
    "Lung Opacity": ("Atelectasis", "Consolidation", "Edema", "Pneumonia"),
    "Enlarged Cardiomediastinum": ("Cardiomegaly",),
}


def label_values(row: Row, names: Iterable[str], problems: Problems) -> dict[str, int | None]:
    """Cells of 1, 0, -1 or blank by label; anything else is noted and counts as blank."""
    values: dict[str, int | None] = {}
    for name in names:
        value = number(row, name, problems)
        try:
            values[name] = label_value(value)
        except ValueError:
            problems.note(f"{name} is none of 1, 0, -1 and blank", f"{row.where} ({value:g})", "it counts as blank")
            values[name] = None
    return values


def label_value(value: float | None) -> int | None:
    """1, 0, -1 or None. Raises ValueError for anything else."""
    if value is not None and value not in (1, 0, -1):
        raise ValueError(f"{value} is no value of a label")
    return None if value is None else int(value)


def radr_labels(values: Mapping[str, int | None]) -> dict[str, int | None]:
    """A set's values under the names of `chestx_jax.labels.LABELS`; labels that the set does not have are left out.

    A label that goes by several names (nodule, mass) has the greatest certainty of them: 1, else -1, else 0 where all
    are 0, else None. One that the set has under another name only is also 1 where a kind of it is (NIH's edema is a
    lung opacity). A 0 beside a kind that is 1 contradicts it, so it becomes None.
    """
    lower = {name.lower(): value for name, value in values.items()}
    merged: dict[str, int | None] = {}
    for label in LABELS:
        names = [name for name in (label.lower(), *_SAME.get(label, ())) if name in lower]
        if names:
            merged[label] = _merge([lower[name] for name in names])
    for label, kinds in _KINDS.items():
        present = any(merged.get(kind) == 1 for kind in kinds)
        if label in merged and present and merged[label] != 1:
            own = label.lower() in lower
            merged[label] = (None if merged[label] == 0 else merged[label]) if own else 1
    return merged


def _merge(values: list[int | None]) -> int | None:
    for value in (1, -1, None):
        if value in values:
            return value
    return 0
