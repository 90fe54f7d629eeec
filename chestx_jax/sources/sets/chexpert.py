"""CheXpert 1.0 and 1.0-small: 223,414 films of 64,540 patients with labels of each study, no reports.

Layout: `train.csv`, `valid.csv`, `test_labels.csv` or `groundtruth.csv`, and
`{train,valid,test}/patient00001/study1/view1_frontal.jpg` beside them (Irvin et al. 2019, https://aimi.stanford.edu).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from chestx_jax.sources.folders import find
from chestx_jax.sources.labels import CHEXPERT, label_values
from chestx_jax.sources.problems import Problems
from chestx_jax.sources.study import Film, Labels, Split, Study, View
from chestx_jax.sources.tables import read_table
from chestx_jax.sources.views import view_of

MARKERS = ("train.csv", "valid.csv")
_TABLES: tuple[tuple[tuple[str, ...], Split, str], ...] = (
    (("train.csv",), "train", "chexpert"),
    (("valid.csv",), "validation", "radiologist"),
    (("test_labels.csv", "groundtruth.csv"), "test", "radiologist"),
)
PATH = re.compile(r"(?:.*/)?((?:train|valid|test)/(patient\d+)/(study\d+))(?:/(view\d+_(frontal|lateral))\.\w+)?/?")


def read(raw: Path, problems: Problems) -> Iterator[Study]:
    """Studies of the training, validation and test tables, each in the order of paths. Their order in time is unknown.

    A table that lists studies (`groundtruth.csv`) has the films of their folders. Rows of one study that differ are
    noted, and the first counts.
    """
    for names, split, provenance in _TABLES:
        table = find(raw, *names)
        if table is not None:
            yield from _table_studies(table, raw, split, provenance, problems)


def patient_key(patient: str) -> str:
    """The patient of CheXpert and CheXpert Plus alike."""
    return f"chexpert:{patient}"


def film_view(direction: str, name: str) -> View:
    """PA or AP where the table says so, else what the film's name says."""
    view = view_of(direction)
    return view_of(name.partition("_")[2]) if view == "unknown" else view


def _table_studies(table: Path, raw: Path, split: Split, provenance: str, problems: Problems) -> Iterator[Study]:
    films: dict[tuple[str, str, str], dict[str, str]] = {}
    labels: dict[tuple[str, str, str], dict[str, int | None]] = {}
    for row in read_table(table, ("Path", *CHEXPERT), problems, ("AP/PA",), {"Path": ("Study",)}):
        match = PATH.fullmatch(row["Path"])
        if not match:
            problems.note("no path of a study", f"{row.where} ({row['Path'][:40]!r})", "the row is passed over")
            continue
        folder, patient, study, name, _ = match.groups()
        key = (folder, patient, study)
        values = label_values(row, CHEXPERT, problems)
        if labels.setdefault(key, values) != values:
            problems.note("films of a study with different labels", row.where, "those of the first count")
        names = [name] if name else sorted(path.stem for path in (table.parent / folder).glob("view*.jpg"))
        films.setdefault(key, {}).update(dict.fromkeys(names, row["AP/PA"]))
    for key in sorted(films):
        folder, patient, study = key
        shown = []
        for name, direction in sorted(films[key].items()):
            path = table.parent / folder / f"{name}.jpg"
            if path.is_file():
                shown.append(Film(f"{folder}/{name}", path.relative_to(raw).as_posix(), film_view(direction, name)))
            else:
                problems.note("a film is missing", f"{table.name} ({folder}/{name}.jpg)", "the study goes without it")
        if not shown:
            problems.skip("no film", f"{table.name} ({folder})")
            continue
        yield Study(
            source="chexpert",
            patient=patient_key(patient),
            id=f"{patient}/{study}",
            split=split,
            films=tuple(shown),
            labels=(Labels(provenance, labels[key]),) if set(labels[key].values()) != {None} else (),
        )
