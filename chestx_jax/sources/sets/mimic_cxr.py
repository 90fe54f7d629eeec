"""MIMIC-CXR-JPG 2.0.0 and 2.1.0 with the reports of MIMIC-CXR: 377,110 films, 227,835 studies of about 65,000 patients.

Layout (https://physionet.org/content/mimic-cxr-jpg/2.1.0/ and /mimic-cxr/2.1.0/), side by side or in one folder:
`mimic-cxr-2.0.0-{metadata,split,chexpert,negbio}.csv.gz`, `mimic-cxr-2.1.0-test-set-labeled.csv`,
`files/p10/p10000001/s50000001/*.jpg`, and `mimic-cxr-reports.zip` or its `files/p10/p10000001/s50000001.txt`.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from chestx_jax.errors import UserError
from chestx_jax.sources.folders import find, open_archive, read_member
from chestx_jax.sources.labels import CHEXPERT, CHEXPERT_ALIASES, label_values
from chestx_jax.sources.problems import Problems
from chestx_jax.sources.reports import named_sections
from chestx_jax.sources.study import Film, Labels, Split, Study
from chestx_jax.sources.tables import Row, number, read_table
from chestx_jax.sources.views import view_in_text, view_of

METADATA, REPORTS = "mimic-cxr-2.*-metadata.csv", "mimic-cxr-reports.zip"
MARKERS = (METADATA, REPORTS)
SPLITS: dict[str, Split] = {"train": "train", "validate": "validation", "test": "test"}
_REPORT = re.compile(r"(?:.*/)?p(\d+)/s(\d+)\.txt")


class _Films(NamedTuple):
    """A study's films, and the first date and time at which one was taken."""

    time: tuple[float, float]
    films: list[Film]


def read(raw: Path, problems: Problems, only: Collection[int] | None = None) -> Iterator[Study]:
    """Studies by patient and time, or of those the ones numbered in `only`. Without the table of films those of the
    reports are text only, in no order of time.

    A study without a film and a report is left out; without a row of labels, or with nothing but blanks, it has none.
    """
    metadata, zipped = find(raw, METADATA), find(raw, REPORTS)
    if metadata is None and zipped is None:
        raise UserError(f"{raw} holds neither {METADATA}[.gz] nor {REPORTS}: give the folder of MIMIC-CXR as --raw.")
    read_report, reports = _report_reader(raw, zipped, problems)
    studies = _studies(metadata, raw, problems, only) if metadata else {}
    for patient, study in reports:
        studies.setdefault((patient, study), _Films((float("inf"), 0.0), []))
    labels, splits = _labels(raw, problems), _splits(raw, problems)
    by_patient: dict[int, list[int]] = defaultdict(list)
    for patient, study in studies:
        by_patient[patient].append(study)
    for patient in sorted(by_patient):
        in_time = sorted(by_patient[patient], key=lambda study: (studies[patient, study].time, study))
        for order, study in enumerate(in_time):
            if only is not None and study not in only:
                continue
            time, films = studies[patient, study]
            report = read_report(patient, study)
            if not films and not report.strip():
                problems.skip("neither a film nor a report", f"study s{study} of patient p{patient}")
                continue
            if not report.strip():
                problems.note("no report", f"study s{study} of patient p{patient}", "the study has films only")
            sections = named_sections(report)
            if report.strip() and not {"findings", "impression", "last_paragraph"} & sections.keys():
                problems.note("a report without findings", f"study s{study} of patient p{patient}", "it is kept")
            yield Study(
                source="mimic_cxr",
                patient=f"mimic:{patient}",
                id=f"s{study}",
                order=order if time[0] < float("inf") else None,
                split=splits.get(patient, ""),
                films=tuple(films),
                report=report,
                sections=sections,
                labels=tuple(labels.get(study, ())),
            )


def film_path(patient: int, study: int, film: str) -> str:
    """A film's path below the folder of `files`."""
    return f"files/p{patient // 10**6:02d}/p{patient}/s{study}/{film}.jpg"


def row_ids(row: Row, problems: Problems) -> tuple[int, int] | None:
    """Patient and study of a row; None, with a note, where one is no number."""
    patient, study = number(row, "subject_id", problems), number(row, "study_id", problems)
    if patient is None or study is None:
        problems.note("no number of patient or study", row.where, "the row is passed over")
        return None
    return int(patient), int(study)


def _studies(
    metadata: Path, raw: Path, problems: Problems, only: Collection[int] | None
) -> dict[tuple[int, int], _Films]:
    """The studies of the table of films, with those films that are there."""
    columns = ("dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime")
    optional = ("ViewCodeSequence_CodeMeaning", "PerformedProcedureStepDescription")
    root = metadata.parent
    studies: dict[tuple[int, int], _Films] = {}
    for row in read_table(metadata, columns, problems, optional):
        ids = row_ids(row, problems)
        if ids is None:
            continue
        date = number(row, "StudyDate", problems)
        if date is None:
            problems.note("no date of the study", row.where, "its place in time is unknown")
        time = (float("inf") if date is None else date, number(row, "StudyTime", problems) or 0.0)
        earlier, films = studies.get(ids, _Films(time, []))
        path = root / film_path(*ids, row["dicom_id"])
        wanted = only is None or ids[1] in only
        if wanted and path.is_file():
            view = view_of(row["ViewPosition"], row["ViewCodeSequence_CodeMeaning"])
            if view == "unknown" and not row["ViewPosition"]:
                view = view_in_text(row["PerformedProcedureStepDescription"])
            films.append(Film(row["dicom_id"], path.relative_to(raw).as_posix(), view))
        elif wanted:
            problems.note("a film is missing", f"{row.where} ({path.relative_to(raw)})", "the study goes without it")
        studies[ids] = _Films(min(time, earlier), films)
    return studies


def _report_reader(
    raw: Path, zipped: Path | None, problems: Problems
) -> tuple[Callable[[int, int], str], list[tuple[int, int]]]:
    """A function of patient and study that returns the report ("" where there is none), and the studies that the
    archive or the list of studies names. Without an archive reports are looked for below every folder `files`."""
    if zipped is not None:
        archive = open_archive(zipped)
        matches = ((_REPORT.fullmatch(name), name) for name in archive.namelist())
        names = {(int(match[1]), int(match[2])): name for match, name in matches if match}
        return lambda *study: read_member(archive, names[study]) if study in names else "", list(names)
    roots = [folder for depth in ("files", "*/files", "*/*/files") for folder in sorted(raw.glob(depth))]

    def from_folders(patient: int, study: int) -> str:
        for root in roots:
            path = root / f"p{patient // 10**6:02d}/p{patient}/s{study}.txt"
            if path.is_file():
                return path.read_text(encoding="utf-8", errors="replace")
        return ""

    listed = find(raw, "cxr-study-list.csv")
    rows = read_table(listed, ("subject_id", "study_id"), problems) if listed else ()
    return from_folders, [ids for row in rows if (ids := row_ids(row, problems))]


def _labels(raw: Path, problems: Problems) -> dict[int, list[Labels]]:
    """Label sets by study; the table of a radiologist's test labels comes with version 2.1.0 only."""
    tables = (
        ("radiologist", "mimic-cxr-2.1.*-test-set-labeled.csv"),
        ("chexpert", "mimic-cxr-2.*-chexpert.csv"),
        ("negbio", "mimic-cxr-2.*-negbio.csv"),
    )
    labels: dict[int, list[Labels]] = defaultdict(list)
    for provenance, name in tables:
        path = find(raw, name)
        if path is None:
            if provenance != "radiologist":
                problems.note(f"{name} is missing", str(raw), f"no study has {provenance} labels")
            continue
        for row in read_table(path, ("study_id", *CHEXPERT), problems, aliases=CHEXPERT_ALIASES):
            study = number(row, "study_id", problems)
            values = label_values(row, CHEXPERT, problems)
            if study is not None and any(value is not None for value in values.values()):
                labels[int(study)].append(Labels(provenance, values))
    return labels


def _splits(raw: Path, problems: Problems) -> dict[int, Split]:
    """The split of each patient; the table has a row for each film."""
    path = find(raw, "mimic-cxr-2.*-split.csv")
    if path is None:
        problems.note("the table of splits is missing", str(raw), "no study has a split")
        return {}
    splits: dict[int, Split] = {}
    for row in read_table(path, ("subject_id", "split"), problems):
        patient = number(row, "subject_id", problems)
        if row["split"] not in SPLITS:
            problems.note("no known split", f"{row.where} ({row['split'][:20]!r})", "the row is passed over")
        elif patient is not None and splits.setdefault(int(patient), SPLITS[row["split"]]) != SPLITS[row["split"]]:
            problems.note("a patient in two splits", row.where, "the first counts")
    return splits
