"""Which finding shows in which region of a film: the finding whose drawing changes the region most.

A film is drawn small, once with all findings and once without each; the regions are a square grid, listed
row by row.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from chestx_jax.phantom.drawing.anatomy import draw_anatomy, draw_pose
from chestx_jax.phantom.drawing.film import draw_film
from chestx_jax.phantom.finding import Finding

SIDE = 4  # regions along a side: one for each visual token of a 112-pixel film
SIZE = 56  # pixels; signs are placed in units of the film, so a small one shows them where a large one does
VISIBLE = 3.0  # mean change of a region, in gray levels, from which its finding counts as showing


def region_labels(patient: tuple[int, ...], film: tuple[int, ...], findings: tuple[Finding, ...]) -> list[str]:
    """The label that shows in each region, row by row; "" where none does. The seeds are those of the film's job."""

    def drawn(shown: tuple[Finding, ...]) -> Float[np.ndarray, "S S"]:
        rng = np.random.default_rng(film)
        pose = draw_pose(rng)
        return draw_film(draw_anatomy(np.random.default_rng(patient)), pose, shown, rng, SIZE).astype(np.float32)

    best, labels = np.full(SIDE * SIDE, VISIBLE, np.float32), [""] * (SIDE * SIDE)
    if not findings:
        return labels
    whole = drawn(findings)
    for i, finding in enumerate(findings):
        change = np.abs(whole - drawn(findings[:i] + findings[i + 1 :]))
        cell = SIZE // SIDE
        seen = change.reshape(SIDE, cell, SIDE, cell).mean((1, 3)).reshape(-1)
        for region in np.flatnonzero(seen > best):
            best[region], labels[region] = seen[region], finding.label
    return labels


def region_text(labels: Sequence[str], name: Callable[[str], str]) -> str:
    """The regions as text, "clear effusion …", one word each; `name` says a label in words, of which the last stands
    for it."""
    return " ".join(name(label).split()[-1] if label else "clear" for label in labels)
