"""The words by which sets name a film's projection."""

import re

from chestx_jax.sources.study import View

_VIEWS: dict[str, View] = {
    "pa": "PA", "ap": "AP", "postero anterior": "PA", "antero posterior": "AP", "posteroanterior": "PA",
    "anteroposterior": "AP", "ap horizontal": "AP", "frontal": "frontal",
    "lateral": "lateral", "ll": "lateral", "rl": "lateral", "l": "lateral", "left lateral": "lateral",
    "right lateral": "lateral", "xtable lateral": "lateral", "lat": "lateral",
    "pa lld": "other", "pa rld": "other", "ap lld": "other", "ap rld": "other", "lld": "other", "rld": "other",
    "lao": "other", "rao": "other", "lpo": "other", "rpo": "other", "ap axial": "other", "swimmers": "other",
    "oblique": "other", "costal": "other", "left oblique": "other", "right oblique": "other",
    "left anterior oblique": "other", "right anterior oblique": "other", "lateral decubitus": "other",
}  # fmt: skip
_IN_TEXT = re.compile(r"\b(pa|ap|lat|lateral|frontal)\b")


def view_of(*names: str) -> View:
    """The view that the first known of `names` stands for."""
    for name in names:
        view = _VIEWS.get(_plain(name))
        if view:
            return view
    return "unknown"


def view_in_text(text: str) -> View:
    """The view of a procedure such as "CHEST (PORTABLE AP)"; unknown where it names several or none."""
    views = {_VIEWS[word] for word in _IN_TEXT.findall(_plain(text))}
    return views.pop() if len(views) == 1 else "unknown"


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^a-z]", " ", text.lower()).split())
