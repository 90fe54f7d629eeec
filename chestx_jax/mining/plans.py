"""Where on a film each label is looked for, and why: the plan of a question, and the words that open its reasoning."""

from collections.abc import Sequence
from typing import NamedTuple

from chestx_jax.mining.wording import listing


class Look(NamedTuple):
    """Places, and what decides there. The places alone assert nothing when they are read."""

    places: tuple[str, ...]
    why: str


LOOKS = {
    "Atelectasis": Look(
        ("the lung bases", "the position of the fissures"),
        "what has lost its air draws its surroundings towards it",
    ),
    "Cardiomegaly": Look(
        ("the width of the heart",),
        "more than half of the chest's width is too much",
    ),
    "Consolidation": Look(
        ("every zone of the lungs",),
        "where air spaces are filled, vessels are blurred and airways stand out",
    ),
    "Edema": Look(
        ("the vessels around the hila", "the outer lung"),
        "fluid blurs the outlines of vessels, on both sides alike",
    ),
    "Enlarged Cardiomediastinum": Look(
        ("the contours of the mediastinum",),
        "its width and borders tell whether it is enlarged",
    ),
    "Fracture": Look(
        ("the ribs, the clavicles and the spine",),
        "a step or a line in the cortex tells",
    ),
    "Lung Lesion": Look(
        ("every zone of the lungs", "the apices and the area behind the heart"),
        "what is sought is round and stands out from its surroundings",
    ),
    "Lung Opacity": Look(
        ("every zone of the lungs",),
        "anything whiter than the same zone of the other side counts",
    ),
    "Pleural Effusion": Look(
        ("the costophrenic angles",),
        "free fluid collects there first",
    ),
    "Pneumonia": Look(
        ("every zone of the lungs",),
        "what is sought is patchy or fills a lobe",
    ),
    "Pneumothorax": Look(
        ("the edges of both lungs",),
        "a thin line without vessels beyond it tells",
    ),
    "Support Devices": Look(
        ("whatever was placed in or on the chest",),
        "the course of each is followed to its end",
    ),
    "No Finding": Look(
        ("all regions",),
        "each of them has to be looked at",
    ),
}
_OPENINGS = (
    "The question turns on {places}.",
    "To answer, {places} {are} examined.",
    "The answer lies in {places}.",
    "The place to look is {places}.",
)
_SEVERAL = (
    "The options differ in {places}, so these are gone through in turn.",
    "To tell the options apart, {places} {are} examined.",
    "The options are told apart by {places}.",
)
_ALL = (
    "The film is gone through region by region: heart and mediastinum, lungs, pleura, bones.",
    "The heart, the mediastinum, the lungs, the pleura and the bones are looked at in this order.",
    "Each region is looked at in turn, from the heart and mediastinum to the lungs, the pleura and the bones.",
)
_TWO = (
    "Both images are looked at in the same place: {places}.",
    "On each of the two images {places} {are} examined, and then compared.",
)


def plan(labels: Sequence[str]) -> dict[str, str]:
    """For each label where to look and why."""
    return {label: f"Look at {listing(LOOKS[label].places, 'and')}: {LOOKS[label].why}." for label in labels}


def opening(labels: Sequence[str], task: str, way: int) -> str:
    """The sentence that opens the reasoning: where the answer is looked for."""
    places = list(
        dict.fromkeys(place for label in labels if label != "No Finding" for place in LOOKS[label].places[:1])
    )
    forms = {"anomaly": _ALL, "temporal": _TWO, "binary": _OPENINGS}.get(task, _SEVERAL)
    if not places or (task in ("single", "multiple") and len(places) > 3):
        forms = _ALL
    are = "is" if len(places) == 1 and places[0].startswith(("every", "the width", "whatever")) else "are"
    return forms[way % len(forms)].format(places=listing(places or [""], "and"), are=are)
