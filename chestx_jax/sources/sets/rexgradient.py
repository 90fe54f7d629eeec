"""ReXGradient-160K: 160,000 studies of 109,487 patients with reports, no labels.

Layout: `metadata/{train,valid,test}_metadata_view_position.json` (or without views `…_metadata.json`), and the PNG
films of `deid_png/` beside it (https://huggingface.co/datasets/rajpurkarlab/ReXGradient-160K).
"""

import posixpath
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chestx_jax import files
from chestx_jax.sources.folders import find
from chestx_jax.sources.problems import Problems
from chestx_jax.sources.reports import clean, joined_report
from chestx_jax.sources.study import Film, Split, Study
from chestx_jax.sources.views import view_of

MARKERS = ("train_metadata*.json", "valid_metadata*.json", "test_metadata*.json")
_SECTIONS = ("Indication", "Comparison", "Findings", "Impression")
_SPLITS: tuple[tuple[str, Split], ...] = (("train", "train"), ("valid", "validation"), ("test", "test"))


def read(raw: Path, problems: Problems) -> Iterator[Study]:
    """Studies split by split, by patient and date."""
    for name, split in _SPLITS:
        path = find(raw, f"{name}_metadata_view_position.json", f"{name}_metadata.json")
        if path is None:
            problems.note(f"{name}_metadata.json is missing", str(raw), f"there are no studies of {name}")
            continue
        document: Any = files.read_json(path, "download it again")
        records = list(document.values()) if isinstance(document, dict) else document
        by_patient: dict[str, list[tuple[str, str, int, dict[str, Any]]]] = defaultdict(list)
        for i, record in enumerate(records if isinstance(records, list) else ()):
            if not isinstance(record, dict) or not record.get("PatientID") or not record.get("AccessionNumber"):
                problems.skip("no patient or study", f"{path.name} entry {i}")
                continue
            date, study = str(record.get("StudyDate") or ""), str(record["AccessionNumber"])
            by_patient[str(record["PatientID"])].append((date, study, i, record))
        for patient in sorted(by_patient):
            for order, (date, study, i, record) in enumerate(sorted(by_patient[patient], key=lambda item: item[:3])):
                where = f"{path.name} entry {i}"
                sections = {part.lower(): text for part in _SECTIONS if (text := _text(record.get(part)))}
                films = _films(record, path.parent, raw, problems, where)
                if not films and not {"findings", "impression"} & sections.keys():
                    problems.skip("neither film nor findings nor impression", where)
                    continue
                yield Study(
                    source="rexgradient",
                    patient=f"rexgradient:{patient}",
                    id=f"{patient}/{study}",
                    order=order if date else None,
                    split=split,
                    films=films,
                    report=joined_report(sections),
                    sections=sections,
                )


def _text(value: Any) -> str:
    text = clean(value.replace("\r\n", "\n")) if isinstance(value, str) else ""
    return "" if text.lower() in ("none", "nan") else text


def _films(record: dict[str, Any], folder: Path, raw: Path, problems: Problems, where: str) -> tuple[Film, ...]:
    """Films by paths relative to the folder of the metadata; a list of views of another length is not read."""
    paths, views = record.get("ImagePath") or [], record.get("ImageViewPosition") or []
    if not isinstance(paths, list) or not isinstance(views, list):
        problems.note("no list of films", where, "the study goes without films")
        return ()
    if len(views) != len(paths):
        views = [""] * len(paths)
    films = []
    for path, view in zip(map(str, paths), views, strict=True):
        place = Path(posixpath.normpath(folder / path))
        if place.is_file() and place.is_relative_to(raw):
            films.append(Film(place.stem, place.relative_to(raw).as_posix(), view_of(str(view or ""))))
        else:
            problems.note("a film is missing", f"{where} ({path})", "the study goes without it")
    return tuple(films)
