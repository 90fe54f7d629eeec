"""The finding that shows in each region of a film: the one whose drawing changes the region most.

The film is drawn small, once with all findings and once without each; the regions form a square grid, listed row by
row.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from chestx_jax.phantom.drawing.anatomy import draw_anatomy, draw_pose
from chestx_jax.phantom.drawing.film import draw_film
from chestx_jax.phantom.finding import Finding

SIDE = 4  # regions along a side: one for each visual token of a 112-pixel film
SIZE = 56  # pixels of the small film; signs are placed in units of the film's side, so any size shows them alike
VISIBLE = 3.0  # mean change of a region, in gray levels, above which a finding shows in it


def region_labels(patient: tuple[int, ...], film: tuple[int, ...], findings: tuple[Finding, ...]) -> list[str]:
    """The label that shows in each region, row by row; "" where none does. `patient` and `film` are the job's seeds."""

    def draw(shown: tuple[Finding, ...]) -> Float[np.ndarray, "S S"]:
        rng = np.random.default_rng(film)
        pose = draw_pose(rng)
        return draw_film(draw_anatomy(np.random.default_rng(patient)), pose, shown, rng, SIZE).astype(np.float32)

    best, labels = np.full(SIDE * SIDE, VISIBLE, np.float32), [""] * (SIDE * SIDE)
    if not findings:
        return labels
    complete, cell = draw(findings), SIZE // SIDE
    for i, finding in enumerate(findings):
        change = np.abs(complete - draw(findings[:i] + findings[i + 1 :]))
        change_of_region = change.reshape(SIDE, cell, SIDE, cell).mean((1, 3)).reshape(-1)
        for region in np.flatnonzero(change_of_region > best):
            best[region], labels[region] = change_of_region[region], finding.label
    return labels


def region_text(labels: Sequence[str], word: Callable[[str], str]) -> str:
    """The regions as one word each, "clear effusion …", by the label's `word`."""
    return " ".join(word(label) if label else "clear" for label in labels)
