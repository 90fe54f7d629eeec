"""A contact sheet of phantom films: normal ones, several of each label, and follow-up pairs, with captions.

python -m chestx_jax.phantom contact_sheet --out sheet.png [--seed 0] [--columns 6] [--label Edema]
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from chestx_jax.phantom.cases import FINDINGS, PROGRESSIVE, draw_findings, draw_follow_up
from chestx_jax.phantom.drawing.render import Job, draw
from chestx_jax.phantom.finding import CHANGES, Finding

ROWS = ("No Finding", *FINDINGS, "Follow-up")
_CAPTION = 14  # pixels above each film


def contact_sheet(
    labels: Sequence[str] = ROWS, columns: int = 6, seed: int = 0, size: int = 112, zoom: int = 2
) -> Image.Image:
    """One row for each label ("No Finding" for normal films, "Follow-up" for pairs side by side), as a gray image.

    `size` is the side of a film in pixels before it is enlarged `zoom` times.
    """
    cell = size * zoom
    sheet = Image.new("L", (columns * (cell + 4), len(labels) * (cell + _CAPTION + 4)))
    canvas = ImageDraw.Draw(sheet)
    for row, label in enumerate(labels):
        for column, (film, caption) in enumerate(_row(label, columns, (seed, row), size)):
            left, top = column * (cell + 4), row * (cell + _CAPTION + 4)
            picture = Image.fromarray(film).resize((cell, cell), Image.Resampling.BICUBIC)
            sheet.paste(picture, (left, top + _CAPTION))
            canvas.text((left + 2, top), caption, fill=255)
    return sheet


def _row(label: str, columns: int, seed: tuple[int, ...], size: int) -> list[tuple[np.ndarray, str]]:
    """The films of one row with their captions."""
    films = []
    for number in range(columns):
        patient = (*seed, number)
        rng = np.random.default_rng(patient)
        if label == "Follow-up":
            pair = number // 2
            rng = np.random.default_rng((*seed, pair))
            case = draw_follow_up(rng, "", PROGRESSIVE[pair % len(PROGRESSIVE)], CHANGES[(pair + 1) % len(CHANGES)])
            findings = (case.earlier or (), case.findings)[number % 2]
            job = Job("", (*seed, pair, 0), (*patient, 1), findings)
            caption = f"{case.changed} {case.change}" if number % 2 else case.changed
        else:
            job = Job("", (*patient, 0), (*patient, 1), draw_findings([label] if label != "No Finding" else [], rng))
            caption = _caption(job.findings)
        films.append((draw(job, size), caption))
    return films


def _caption(findings: Sequence[Finding]) -> str:
    return " + ".join(f"{f.label}: {f.severity} {f.side} {f.zone} {f.kind}" for f in findings) or "normal"
