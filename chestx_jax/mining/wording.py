"""Findings as sentences. Each sentence is read by the findings rules before it is used: it says the finding that it was
made of, and nothing else."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

from chestx_jax.findings import ASSERTED, HEDGED, Finding, extract
from chestx_jax.lexicon import Lexicon

# Nouns of concepts, where they are not the concept's name in lower case.
_NOUNS = {
    "Pneumonic Infiltrate": "infiltrate", "Elevated Diaphragm": "elevated hemidiaphragm",
    "Flattened Diaphragm": "flattened hemidiaphragm", "Catheter or Tube": "catheter",
    "Tracheostomy": "tracheostomy tube", "PICC": "PICC", "Prominent Fat": "prominent fat pad",
    "Bypass Graft": "coronary bypass graft", "Increased Markings": "increased interstitial markings",
    "Kerley Lines": "Kerley B lines", "Degenerative Change": "degenerative changes",
    "Post-Surgical Change": "postsurgical changes", "Sternotomy": "sternotomy wires", "Edema": "pulmonary edema",
    "Haziness": "hazy opacity", "Bronchial Thickening": "bronchial wall thickening",
    "Contusion or Hemorrhage": "pulmonary contusion", "Pulmonary Hypertension": "pulmonary arterial hypertension",
    "Aortic Tortuosity": "tortuosity of the aorta", "Vascular Congestion": "pulmonary vascular congestion",
    "Vascular Calcification": "aortic calcification", "Free Air": "free air below the diaphragm",
    "Fissural Fluid": "fluid in the fissure", "Pectus": "pectus excavatum",
    "Spinal Fusion": "spinal fusion hardware", "ARDS": "acute respiratory distress syndrome",
}  # fmt: skip
# Concepts whose nouns are counted ("two effusions") and those whose nouns are plurals.
_COUNTED = frozenset((
    "Fracture", "Lung Lesion", "Lung Opacity", "Pleural Effusion", "Pneumothorax", "Pneumonic Infiltrate", "Density",
    "Ground Glass Opacity", "Interstitial Opacity", "Nodule", "Nodular Opacity", "Mass", "Cavity", "Granuloma",
    "Calcification", "Bulla", "Lucency", "Azygos Lobe", "Pericardial Effusion", "Aortic Aneurysm",
    "Blunted Costophrenic Angle", "Meniscus", "Pleural Plaque", "Hiatal Hernia", "Elevated Diaphragm",
    "Flattened Diaphragm", "Compression Deformity", "Deformity", "Osteophyte", "Catheter or Tube",
    "Implanted Device", "Nerve Stimulator", "Joint Prosthesis", "Endotracheal Tube", "Tracheostomy", "Enteric Tube",
    "Central Venous Catheter", "PICC", "Port", "Chest Tube", "Pacemaker", "Valve Prosthesis", "Stent",
    "Foreign Body", "Air Bronchogram", "Prominent Fat", "Small Heart", "Bypass Graft", "Enlarged Cardiomediastinum",
))  # fmt: skip
_PLURAL = frozenset((
    "Support Devices", "Increased Markings", "Low Lung Volumes", "Kerley Lines", "Surgical Clips",
    "Degenerative Change", "Post-Surgical Change", "Monitoring Leads", "Sternotomy",
))  # fmt: skip
# Other ways to say that something is there or not.
_PRESENT = {
    "Cardiomegaly": ("The heart is {adverb}enlarged.", "The cardiac silhouette is {adverb}enlarged."),
    "Enlarged Cardiomediastinum": ("The mediastinum is widened.", "The cardiomediastinal silhouette is enlarged."),
    "Blunted Costophrenic Angle": ("The {side}costophrenic angle is {adverb}blunted.",),
    "Elevated Diaphragm": ("The {side}hemidiaphragm is {adverb}elevated.",),
    "Aortic Tortuosity": ("The aorta is tortuous.",),
    "Hyperinflation": ("The lungs are hyperinflated.",),
    "Low Lung Volumes": ("The lung volumes are low.",),
}
_ABSENT = {
    "Cardiomegaly": (
        "The heart size is normal.",
        "The heart is not enlarged.",
        "The cardiac silhouette is not enlarged.",
    ),
    "Enlarged Cardiomediastinum": (
        "The mediastinal contours are normal.",
        "The cardiomediastinal silhouette is not enlarged.",
    ),
    "Support Devices": ("No support devices are seen.", "There are no support devices."),
}  # fmt: skip
_FRAMES = (
    "There {is} {noun}{place}.",
    "{Noun} {is} seen{place}.",
    "{Noun} {is} present{place}.",
    "{Noun} {is} visible{place}.",
    "The film shows {noun}{place}.",
)
_HEDGED = ("There may be {noun}{place}.", "There is possible {bare}{place}.", "{Noun} {is} possible{place}.")
_DENIED = ("There {is} no {list}.", "No {list} {is} seen.", "No {list} {is} present.", "The film shows no {list}.")
_SIZED = ("Pleural Effusion", "Pneumothorax", "Nodule", "Mass", "Granuloma", "Hiatal Hernia", "Lung Lesion",
          "Pericardial Effusion", "Nodular Opacity", "Bulla", "Cavity", "Osteophyte")  # fmt: skip
_SIZE = ("", "small ", "moderate ", "large ")
_SEVERITY = ("", "mild ", "moderate ", "severe ")
_ADVERB = ("", "mildly ", "moderately ", "severely ")
_SIDE = ("", "left ", "right ", "bilateral ")
# Places by site: with a side, on both sides, without a side.
_SITES = {
    "base": (" at the {side}lung base", " at both lung bases", " at the lung base"),
    "lower lobe": (" in the {side}lower lobe", " in both lower lobes", " in the lower lobe"),
    "middle lobe": (" in the {side}mid lung", "", " in the mid lung"),  # the left lung has no middle lobe
    "lingula": (" in the lingula", "", " in the lingula"),
    "upper lobe": (" in the {side}upper lobe", " in both upper lobes", " in the upper lobe"),
    "apex": (" at the {side}lung apex", " at both lung apices", " at the lung apex"),
    "perihilar": (" in the {side}perihilar region", " in both perihilar regions", " in the perihilar region"),
    "retrocardiac": (" in the {side}retrocardiac region", "", " in the retrocardiac region"),
    "costophrenic": (" at the {side}costophrenic angle", " at both costophrenic angles", " at the costophrenic angle"),
    "fissure": (" along the {side}fissure", "", " along the fissure"),
    "svc": (" with the tip in the superior vena cava",) * 3,
    "cavoatrial junction": (" with the tip at the cavoatrial junction",) * 3,
    "right atrium": (" with the tip in the right atrium",) * 3,
    "right ventricle": (" with the tip in the right ventricle",) * 3,
    "carina": (" with the tip at the carina",) * 3,
    "above carina": (" with the tip above the carina",) * 3,
    "stomach": (" with the tip in the stomach",) * 3,
}
_DEVICES = "devices_and_surgery"  # what is there or not, and has no degree
# Words that lead over to a region.
_LEADS = {
    _DEVICES: ("As to devices, ", "Looking at what was placed or operated on, "),
    "heart_and_mediastinum": ("At the heart and mediastinum, ", "Turning to the heart and mediastinum, "),
    "lungs": ("In the lungs, ", "Turning to the lungs, ", "Over the lungs, "),
    "pleura": ("At the pleura, ", "Turning to the pleura, "),
    "diaphragm": ("At the diaphragm, ", "Below the lungs, "),
    "chest_wall": ("In the chest wall, ", "Among the bones, ", "Turning to the bones, "),
}
_IN_LUNGS = ("base", "lower lobe", "middle lobe", "lingula", "upper lobe", "apex", "perihilar", "retrocardiac")
_SITES_OF = {
    "lungs": _IN_LUNGS,
    "pleura": ("base", "apex", "costophrenic", "fissure"),
    _DEVICES: tuple(site for site in _SITES if site not in (*_IN_LUNGS, "costophrenic", "fissure")),
}
_OF_ALL_THE_LUNG = ("Low Lung Volumes", "Hyperinflation")
_SIDED = ("Hilar Enlargement", "Lymphadenopathy")  # findings of the mediastinum that are on a side
_PLURALS = {"pneumothorax": "pneumothoraces", "bulla": "bullae", "tracheostomy tube": "tracheostomy tubes"}


def noun(lexicon: Lexicon, concept: int) -> str:
    """A concept's noun without an article."""
    name = lexicon.concepts[concept].name
    return _NOUNS.get(name, name.lower())


def phrase(lexicon: Lexicon, concept: int) -> str:
    """A concept's noun, with an article where it takes one."""
    word = noun(lexicon, concept)
    counted = lexicon.concepts[concept].name in _COUNTED
    return f"{_article(word)} {word}" if counted else word


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"


def present(lexicon: Lexicon, finding: Finding, way: int) -> str | None:
    """A sentence that states a finding with as many of its attributes as can be said; `way` chooses among the wordings.
    None where the rules read none of them as that finding."""
    forms = [form for frame in _from(_frames(lexicon, finding), way) for form in _filled(lexicon, finding, frame)]
    forms.sort(key=lambda form: -form[0])
    return next((text for _, text in forms if _says(lexicon, text, [finding])), None)


def absent(lexicon: Lexicon, concepts: tuple[int, ...], way: int) -> str | None:
    """A sentence that denies concepts. None where the rules do not read it so."""
    own = _ABSENT.get(lexicon.concepts[concepts[0]].name, ()) if len(concepts) == 1 else ()
    listed = listing([noun(lexicon, concept) for concept in concepts], "or")
    verb = "are" if lexicon.concepts[concepts[-1]].name in _PLURAL else "is"
    texts = _from(own or [frame.format(list=listed, **{"is": verb}) for frame in _DENIED], way)
    findings = [Finding(concept, 0, ASSERTED) for concept in concepts]
    return next((text for text in texts if _says(lexicon, text, findings)), None)


def on_film(lexicon: Lexicon, finding: Finding, film: str) -> str:
    """A sentence about one of two films, `reference` or `new`."""
    shows = f"The {film} image shows"
    if finding.polarity == 0:
        return f"{shows} no {noun(lexicon, finding.concept)}."
    for _, text in sorted(_filled(lexicon, finding, f"{shows} {{noun}}{{place}}."), key=lambda form: -form[0]):
        if _says(lexicon, text, [finding]):
            return text
    return f"{shows} {noun(lexicon, finding.concept)}."


def _degree(name: str, word: str) -> tuple[str, ...]:
    """The words for the severities of a concept: sizes, adverbs before an adjective, or adjectives."""
    adjective = word.startswith(("enlarged", "increased", "elevated", "blunted", "flattened", "low", "prominent"))
    return _ADVERB if adjective else _SIZE if name in _SIZED else _SEVERITY


def is_plain(lexicon: Lexicon, concept: int) -> bool:
    """Whether a concept's noun says the concept alone, and no place or side with it."""
    return _says(lexicon, f"There is {phrase(lexicon, concept)}.", [Finding(concept, 1, ASSERTED)])


def is_plural(lexicon: Lexicon, concept: int) -> bool:
    """Whether a concept's noun is a plural."""
    return lexicon.concepts[concept].name in _PLURAL


def led(lexicon: Lexicon, region: str, sentence: str, way: int) -> str:
    """A sentence with words that lead over to its region, where it is read the same with them."""
    for lead in _from(_LEADS.get(region, ()), way):
        first = sentence[0].lower() if sentence[1:2].islower() or sentence[1:2] == " " else sentence[0]
        text = lead + first + sentence[1:]
        if _says(lexicon, text, _read(lexicon, sentence)):
            return text
    return sentence


def listing(names: Sequence[str], last: str) -> str:
    """ "a", "a or b", "a, b or c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def _from(items: Sequence[str], start: int) -> list[str]:
    """The items beginning with one of them."""
    start %= max(len(items), 1)
    return [*items[start:], *items[:start]]


def _frames(lexicon: Lexicon, finding: Finding) -> tuple[str, ...]:
    if finding.certainty == HEDGED:
        return _HEDGED
    return (*_PRESENT.get(lexicon.concepts[finding.concept].name, ()), *_FRAMES)


def _filled(lexicon: Lexicon, finding: Finding, frame: str) -> Iterator[tuple[int, str]]:
    """A frame with all that it can say of a finding, and with less; each with the number of attributes said."""
    concept, severity = lexicon.concepts[finding.concept], finding.severity
    name = concept.name
    side = 0 if concept.region == "heart_and_mediastinum" and name not in _SIDED else finding.side
    site = lexicon.sites[finding.site - 1] if finding.site else ""
    site = site if site in _SITES_OF.get(concept.region, ()) and name not in _OF_ALL_THE_LUNG else ""
    for with_site, with_side, with_severity in _CHOICES:
        no_degree = not severity or concept.region == _DEVICES
        if (with_site and not site) or (with_side and not side) or (with_severity and no_degree):
            continue
        degree = _degree(name, noun(lexicon, finding.concept))[severity] if with_severity else ""
        place, placed_side = _place(site, side if with_side else 0) if with_site else ("", False)
        before = _SIDE[side] if with_side and not placed_side else ""
        word = noun(lexicon, finding.concept)
        plural = name in _PLURAL or (before == "bilateral " and name in _COUNTED)
        if plural and name in _COUNTED:
            word = plural_of(word)
        bare = f"{before}{degree}{word}" if degree in _ADVERB else f"{degree}{before}{word}"
        whole = bare if plural or name not in _COUNTED else f"{_article(bare)} {bare}"
        text = frame.format(
            noun=whole, Noun=whole[0].upper() + whole[1:], bare=bare, place=place, side=before or "",
            adverb=_ADVERB[severity] if with_severity else "", **{"is": "are" if plural else "is"},
        )  # fmt: skip
        yield with_site + with_side + with_severity, text


_CHOICES = [(a, b, c) for a in (True, False) for b in (True, False) for c in (True, False)]


def _place(site: str, side: int) -> tuple[str, bool]:
    """The words for a site, and whether they say the side."""
    one, both, none = _SITES[site]
    if side == 3 and both:
        return both, "both" in both
    if side in (1, 2):
        return one.format(side=_SIDE[side]), "{side}" in one
    return none, False


def plural_of(word: str) -> str:
    """The plural of a noun."""
    if word in _PLURALS:
        return _PLURALS[word]
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def _says(lexicon: Lexicon, text: str, findings: Sequence[Finding]) -> bool:
    """Whether a text is read as these findings, with no attribute that they do not have, and as nothing else."""
    read = _read(lexicon, text)
    if len(read) != len(findings):
        return False
    return all(
        (one.concept, one.polarity, one.certainty) == (other.concept, other.polarity, other.certainty)
        and all(getattr(one, name) in (0, getattr(other, name)) for name in ("side", "site", "severity"))
        and not one.change
        for one, other in zip(
            sorted(read, key=lambda f: f.concept), sorted(findings, key=lambda f: f.concept), strict=True
        )
    )


@lru_cache(maxsize=1 << 17)
def _read(lexicon: Lexicon, text: str) -> tuple[Finding, ...]:
    """The findings of a sentence; the same few thousand sentences come again and again."""
    return tuple(extract(lexicon, text))
