"""CheXpert Plus: CheXpert's training and validation studies with their reports (Chambon et al. 2024).

Layout: `df_chexpert_plus_240401.csv`, `chexbert_labels/{report,findings,impression}_fixed.json` (an object a line), and
`{train,valid}/patient00001/study1/view1_frontal.{png,jpg,dcm}` beside the table or in a folder below.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from chestx_jax.sources.folders import find, require
from chestx_jax.sources.labels import CHEXPERT, label_value
from chestx_jax.sources.problems import Problems
from chestx_jax.sources.reports import clean, joined_report, named_sections
from chestx_jax.sources.sets.chexpert import PATH, film_view, patient_key
from chestx_jax.sources.study import Film, Labels, Split, Study
from chestx_jax.sources.tables import number, read_names, read_table

MARKERS = ("df_chexpert_plus_*.csv",)
SPLITS: dict[str, Split] = {"train": "train", "valid": "validation"}
_SECTIONS = {
    "section_narrative": "narrative",
    "section_clinical_history": "indication",
    "section_history": "history",
    "section_comparison": "comparison",
    "section_technique": "technique",
    "section_procedure_comments": "procedure",
    "section_findings": "findings",
    "section_impression": "impression",
    "section_summary": "summary",
}
_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm")


def read(raw: Path, problems: Problems) -> Iterator[Study]:
    """Studies in the order of the table. Where a study's films have different texts (dates were replaced at random) the
    first counts, and it is noted; a study without films is text only."""
    table = require(raw, *MARKERS)
    columns = ("path_to_image", "deid_patient_id", "patient_report_date_order", "report", "split")
    labels = _labels(raw, problems)
    roots = _film_roots(table.parent)
    studies: dict[str, Study] = {}
    films: dict[str, list[Film]] = {}
    for row in read_table(table, columns, problems, (*_SECTIONS, "ap_pa")):
        match = PATH.fullmatch(row["path_to_image"])
        if not match or not match[4]:
            problems.note("no path of a film", f"{row.where} ({row['path_to_image'][:40]!r})", "it is passed over")
            continue
        folder, patient, study, name, _ = match.groups()
        sections = {common: text for column, common in _SECTIONS.items() if (text := _text(row[column]))}
        report = _text(row["report"]) or joined_report(sections)
        order = number(row, "patient_report_date_order", problems)
        found = Study(
            source="chexpert_plus",
            patient=patient_key(row["deid_patient_id"] or patient),
            id=f"{patient}/{study}",
            order=None if order is None else int(order),
            split=SPLITS.get(row["split"] or folder.partition("/")[0], ""),
            report=report,
            sections=sections or named_sections(report),
            labels=tuple(labels.get(folder, ())),
        )
        if studies.setdefault(folder, found) != found:
            problems.note("films of a study with different texts", row.where, "that of the first counts")
        places = (root / f"{folder}/{name}{suffix}" for root in roots for suffix in _SUFFIXES)
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            problems.note("a film is missing", f"{row.where} ({folder}/{name})", "the study goes without it")
        else:
            film = Film(f"{folder}/{name}", path.relative_to(raw).as_posix(), film_view(row["ap_pa"], name))
            films.setdefault(folder, []).append(film)
    for folder, study in studies.items():
        shown = tuple(sorted(films.get(folder, ())))
        if not shown and not study.sections:
            problems.skip("neither a film nor a report", f"{table.name} ({folder})")
        else:
            yield Study(**{**vars(study), "films": shown})


def _text(cell: str) -> str:
    return "" if cell.lower() in ("nan", "none") else clean(cell.replace("\r\n", "\n"))


def _film_roots(folder: Path) -> list[Path]:
    """The folders that hold `train` or `valid`, nearest first."""
    depths = ("train", "valid", "*/train", "*/valid", "*/*/train", "*/*/valid")
    return list(dict.fromkeys(path.parent for depth in depths for path in sorted(folder.glob(depth))))


def _labels(raw: Path, problems: Problems) -> dict[str, list[Labels]]:
    """CheXbert's labels by the folder of the study, those of its first film."""
    labels: dict[str, list[Labels]] = {}
    for part in ("impression", "findings", "report"):
        path = find(raw, f"chexbert_labels/{part}_fixed.json", f"{part}_fixed.json")
        if path is None:
            problems.note(f"{part}_fixed.json is missing", str(raw), f"no study has labels of its {part}")
            continue
        labelled = set()
        for line, text in enumerate(read_names(path), start=1):
            try:
                record = json.loads(text)
                match = PATH.fullmatch(record["path_to_image"])
                values = {name: label_value(record.get(name)) for name in CHEXPERT}
            except (ValueError, TypeError, KeyError, AttributeError):
                problems.note("no record of labels", f"{path.name} line {line}", "it is passed over")
                continue
            if match and match[1] not in labelled and any(value is not None for value in values.values()):
                labelled.add(match[1])
                labels.setdefault(match[1], []).append(Labels(f"chexbert {part}", values))
    return labels
