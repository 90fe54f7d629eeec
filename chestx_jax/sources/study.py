"""A study: the films of one examination, its report, labels and boxes, whatever set it comes from."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

View = Literal["PA", "AP", "frontal", "lateral", "other", "unknown"]  # "frontal": PA or AP, the set does not say which
Split = Literal["train", "validation", "test", ""]  # "": the set has none
FRONTAL: tuple[View, ...] = ("PA", "AP", "frontal")


class Film(NamedTuple):
    """One film: its id in the set, its path relative to the raw (or prepared) folder, its view."""

    id: str
    path: str
    view: View


class Labels(NamedTuple):
    """Values of a labeller or reader, under the set's own label names: 1 present, 0 absent, -1 uncertain, None not
    mentioned. A label that is no key is none the labeller knows."""

    provenance: str  # "chexpert", "negbio", "radiologist" …
    values: dict[str, int | None]


class Box(NamedTuple):
    """A finding's place on a film, in pixels of a `frame` (width, height) that need not be the file's; frame None: it
    is the file's."""

    film: str
    label: str
    left: float
    top: float
    width: float
    height: float
    frame: tuple[int, int] | None
    provenance: str


class Change(NamedTuple):
    """How a finding changed since a film of an earlier study."""

    finding: str
    value: Literal["improving", "stable", "worsening"]
    film: str
    previous_study: str
    previous_film: str
    provenance: str


@dataclass(frozen=True)
class Study:
    """One examination. `report` is the whole text, "" where there is none; `sections` has its parts by name (findings,
    impression, indication, comparison …), those with text only. A study may have no films, or no report."""

    source: str  # the set's name in the catalog
    patient: str  # "nih:13": sets that share patients share the prefix, so that a split by patient holds across them
    id: str  # of the study, unique in the set
    order: int | None = None  # position among the patient's studies in time; None: unknown
    split: Split = ""
    films: tuple[Film, ...] = ()
    report: str = ""
    sections: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[Labels, ...] = ()
    boxes: tuple[Box, ...] = ()
    changes: tuple[Change, ...] = ()


def study_to_json(study: Study) -> dict[str, Any]:
    """Plain dicts, lists and scalars."""
    document = asdict(study)
    for name in ("films", "labels", "boxes", "changes"):
        document[name] = [part._asdict() for part in getattr(study, name)]
    return document


def study_from_json(document: Mapping[str, Any]) -> Study:
    """The inverse of `study_to_json`. Raises KeyError or TypeError for a document that is none of its."""
    parts: dict[str, Any] = {
        "films": tuple(Film(**film) for film in document["films"]),
        "labels": tuple(Labels(**labels) for labels in document["labels"]),
        "boxes": tuple(Box(**{**box, "frame": box["frame"] and tuple(box["frame"])}) for box in document["boxes"]),
        "changes": tuple(Change(**change) for change in document["changes"]),
    }
    return Study(**{**document, **parts})
