"""PadChest: 160,861 films of 67,625 patients with labels and Spanish reports, stemmed and without stop words.

Layout: `PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv[.gz]` and `<ImageDir>/<ImageID>` (16-bit PNG) beside it
(Bustos et al. 2020, https://bimcv.cipf.es/bimcv-projects/padchest/).
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from chestx_jax.sources.folders import require
from chestx_jax.sources.problems import Problems
from chestx_jax.sources.study import Film, Labels, Study
from chestx_jax.sources.tables import Row, number, read_table
from chestx_jax.sources.views import view_of

MARKERS = ("PADCHEST_chest_x_ray_images_labels_*.csv",)
_COLUMNS = ("ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "Projection", "Report", "Labels")


def read(raw: Path, problems: Problems) -> Iterator[Study]:
    """Studies by patient and date. Their reports are not sentences, so they have no sections; findings named are 1, and
    nothing is known of the others. Films marked EXCLUDE are left out."""
    table = require(raw, *MARKERS)
    patients: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in read_table(table, _COLUMNS, problems, ("MethodLabel",)):
        patients[row["PatientID"]][row["StudyID"]].append(row)
    for patient, studies in sorted(patients.items()):
        dates = {name: number(rows[0], "StudyDate_DICOM", problems) for name, rows in studies.items()}
        in_time = sorted(studies, key=lambda name: (dates[name] is None, dates[name] or 0, name))
        for order, name in enumerate(in_time):
            rows = studies[name]
            films = _films(rows, table.parent, raw, problems)
            named = _label_names(rows[0], problems)
            if not films:
                problems.skip("no film", rows[0].where)
                continue
            values: dict[str, int | None] = dict.fromkeys(named, 1)
            yield Study(
                source="padchest",
                patient=f"padchest:{patient}",
                id=name,
                order=None if dates[name] is None else order,
                films=films,
                report=rows[0]["Report"],
                labels=(Labels(f"padchest {rows[0]['MethodLabel']}".strip(), values),) if values else (),
            )


def _films(rows: list[Row], root: Path, raw: Path, problems: Problems) -> tuple[Film, ...]:
    films = []
    for row in rows:
        path = root / row["ImageDir"] / row["ImageID"]
        if row["Projection"] == "EXCLUDE":
            problems.note("a film that the set excludes", row.where, "it is left out")
        elif not row["ImageID"] or not path.is_file():
            problems.note("a film is missing", f"{row.where} ({row['ImageID']})", "the study goes without it")
        else:
            films.append(Film(row["ImageID"], path.relative_to(raw).as_posix(), view_of(row["Projection"])))
    return tuple(films)


def _label_names(row: Row, problems: Problems) -> list[str]:
    """The names in the text of a Python list, without the blanks and empty names between."""
    try:
        names = ast.literal_eval("[]" if row["Labels"] in ("", "nan") else row["Labels"])
        return sorted({name.strip() for name in names if name.strip()} - {"unchanged", "exclude"})
    except (ValueError, SyntaxError, TypeError, AttributeError, MemoryError, RecursionError):
        problems.note("Labels is no list of names", row.where, "the study has no labels")
        return []
